"""Ads of the catalogue as worlds take them: the contents of their texts by an encoder, and their words."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bandit.features.content_pca import random_components, shipped_components
from encoders import Encoder, encode_fields
from simulations.worlds.ads import Ad, CatalogueError, catalogue
from simulations.worlds.requests import WorldError


class Texts(NamedTuple):
    """What a world needs of some ads.

    Attributes:
        content: content features, as the engine has them.
        words: 1 where an ad has a tone or an offer, else 0; a column for each that some ad has.
    """

    content: Float[np.ndarray, "ads content"]
    words: Float[np.ndarray, "ads words"]

    @property
    def digest(self) -> str:
        """What tells them from others."""
        return hashlib.sha256(self.content.tobytes() + self.words.tobytes()).hexdigest()


def read_ads(ads: Sequence[Ad], encoder: Encoder, seed: int) -> Texts:
    """Encode ads as the engine will.

    Args:
        ads: at least one.
        encoder: makes vectors of their texts.
        seed: of the components, where none ship for the encoder.
    """
    vectors = encode_fields(
        encoder,
        [{"headline": ad.headline, "body": ad.body, "call_to_action": ad.call_to_action} for ad in ads],
    )
    components = shipped_components(encoder) or random_components(encoder.dim, seed)
    columns = [sorted({ad.tone for ad in ads}), sorted({ad.offer for ad in ads})]
    words = [
        [float(ad.tone == tone) for tone in columns[0]] + [float(ad.offer == offer) for offer in columns[1]]
        for ad in ads
    ]
    return Texts(components.project(vectors), np.array(words))


def write_ads(seed: int, n_ads: int) -> tuple[Ad, ...]:
    """Return ads of one product of the catalogue.

    Raises:
        WorldError: the product has fewer headlines.
    """
    try:
        return catalogue(seed, products=1, creatives_per_product=n_ads)
    except CatalogueError as error:
        raise WorldError(f"expected as many creatives as a product has ads, got {n_ads}: {error}") from error
