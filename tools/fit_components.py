"""Make the content components that ship for the default encoder: `python -m tools.fit_components FILE`.

For all of its layers, and for its first three. FILE is the archive of A/B tests. Headlines of its first fifth
(never played, in tuning or scoring) are taken with one text of the package's own catalogue for every four: by
then 66 % of the variance of later headlines and 69 % of that of other ads lies in 64 components (all layers).
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import bandit.features
from bandit.features.content_pca import SHIPPED, components_to_bytes, fit_components
from encoders import TextEncoder
from simulations.worlds.ads import MAX_PRODUCTS, catalogue
from simulations.worlds.archive import TUNE_FROM, PastTest, read_archive

HEADLINES_PER_AD_TEXT = 4


def make_components(archive: Path, layers: int) -> Path:
    """Fit the components and write them into the package.

    Args:
        archive: The archive's file, columns as in `replay.COLUMNS`.
        layers: How many layers the encoder computes.

    Returns:
        The file written.
    """
    headlines, ads = fitted_texts(read_archive(archive))
    encoder = TextEncoder(layers=layers)
    components = fit_components(encoder.encode(headlines + ads))
    metadata = {
        "encoder": "sentence-transformers/all-MiniLM-L6-v2",
        "weights_sha256": encoder.weights_sha256,
        "pooling": encoder.pooling,
        "layers": str(encoder.layers),
        "texts": f"{len(headlines)} headlines of the first fifth of the Upworthy Research Archive's "
        f"exploratory set (CC BY 4.0, Matias et al. 2021) and {len(ads)} texts of simulations.worlds.ads",
        "command": "python -m tools.fit_components packages.csv.gz",
    }
    name = SHIPPED[encoder.weights_sha256, encoder.pooling, encoder.layers]
    path = Path(bandit.features.__file__).parent / name
    path.write_bytes(components_to_bytes(components, metadata))
    return path


def fitted_texts(tests: Sequence[PastTest]) -> tuple[list[str], list[str]]:
    """Return the headlines of an archive's first fifth, and own ads' texts, that components are fitted to."""
    first = tests[: round(TUNE_FROM * len(tests))]
    headlines = sorted({headline for test in first for headline in test.headlines})
    ads = catalogue(0, products=MAX_PRODUCTS, creatives_per_product=150)
    own = sorted({text for ad in ads for text in (ad.headline, ad.body)})
    picked = np.random.default_rng(0).permutation(len(own))[: len(headlines) // HEADLINES_PER_AD_TEXT]
    return headlines, [own[i] for i in picked]


if __name__ == "__main__":
    for _, _, n_layers in SHIPPED:
        sys.stdout.write(f"{make_components(Path(sys.argv[1]), n_layers)}\n")
