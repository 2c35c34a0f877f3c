"""The engine with a part taken out, or of another size: what each part is worth on the archive."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bandit.features.content_pca import Components, fit_components
from bandit.features.design import N_CONTENT, PriorScales
from encoders import Encoder
from simulations.policies.settings import PolicySetting, engine_setting
from simulations.worlds.archive import PastTest
from tools.fit_components import fitted_texts

NO_EFFECT = 1e-3  # logits, from where learning a scale does not leave; 0 would be an infinite precision
FEWER, MORE = N_CONTENT // 2, 2 * N_CONTENT  # components
KAPPAS = (0.3, 3.0)


class Ablation(NamedTuple):
    """An engine that differs.

    Attributes:
        setting: how it plays, and its label.
        scales: prior scales.
        components: the content components.
    """

    setting: PolicySetting
    scales: PriorScales
    components: Components


def ablations(
    tests: Sequence[PastTest], vectors: Mapping[str, np.ndarray], components: Components, encoder: Encoder
) -> list[Ablation]:
    """Return the engines of the ablation table.

    Args:
        tests: All tests in order; components are fitted to headlines of their first fifth and own ads.
        vectors: Embedding of each headline.
        components: The engine's own components.
        encoder: Encodes the ads.
    """
    default = PriorScales()
    blank = components._replace(basis=np.zeros_like(components.basis))
    fewer = components._replace(basis=components.basis[:, :FEWER])
    headlines, ads = fitted_texts(tests)
    embeddings = np.vstack([np.stack([vectors[text] for text in headlines]), encoder.encode(ads)])
    more = fit_components(embeddings, MORE)
    parts = {
        "without text": (default, blank),
        "without arm effects": (default._replace(arm=NO_EFFECT), components),
        "without campaign effects": (default._replace(campaign=NO_EFFECT), components),
        f"{FEWER} components": (default, fewer),
        f"{MORE} components": (default, more),
    }
    changed = [Ablation(engine_setting(label), *part) for label, part in parts.items()]
    sampling = engine_setting("lookahead sampling", kappa=0.3, optimism=0, noise=1)
    return [
        *changed,
        *(Ablation(engine_setting("ablation", kappa=kappa), default, components) for kappa in KAPPAS),
        Ablation(sampling, default, components),
    ]
