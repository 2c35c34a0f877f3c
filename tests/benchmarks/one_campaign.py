"""The one world that all contenders play: ten ads of a product, contexts of two string fields, known truth.

A click depends on content, words, context and their interactions, and on what is each ad's own
(`simulations.worlds.shop`, effects as in the demo's shop). The other fields of its contexts stand still,
so nothing matters that the contenders are not told.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bandit.features.content_pca import shipped_components
from bandit.jax_runtime import double_precision
from encoders import TextEncoder, encode_fields
from simulations.experiments.demo_shop import SIZES
from simulations.worlds.ads import Ad, catalogue
from simulations.worlds.requests import BASKET_MEAN, LEVELS
from simulations.worlds.shop import HostView, draw_truth, make_world

ARMS = 10
FIELDS = ("device", "daypart")
STANDING_STILL = {"segment": "new", "weekend": False, "basket": BASKET_MEAN}


class OneCampaign(NamedTuple):
    """One campaign with its traffic.

    Attributes:
        ads: its creatives, in the order of the arms.
        content: their 64 components, as the engine computes them for itself.
        contexts: what is known of each impression.
        rates: the true click rates.
        uniforms: uniform numbers; a shown creative is clicked when its rate is above.
    """

    ads: tuple[Ad, ...]
    content: Float[np.ndarray, "arms 64"]
    contexts: list[dict[str, str]]
    rates: Float[np.ndarray, "impressions arms"]
    uniforms: Float[np.ndarray, "impressions"]


def open_campaign(seed: int, impressions: int, encoder: TextEncoder) -> OneCampaign:
    """Write the ads, draw the truth about them, and draw the impressions."""
    ads = catalogue(seed, products=1, creatives_per_product=ARMS)
    components = shipped_components(encoder)
    assert components is not None, "the world is made of the default encoder's contents"
    content = components.project(encode_fields(encoder, [_fields(ad) for ad in ads]))
    tones, offers = (sorted({getattr(ad, name) for ad in ads}) for name in ("tone", "offer"))
    words = [[ad.tone == tone for tone in tones] + [ad.offer == offer for offer in offers] for ad in ads]
    with double_precision():
        key_truth, key_world = jax.random.split(jax.random.key(seed))
        truth = draw_truth(key_truth, len(words[0]), SIZES)
        world = make_world(key_world, truth, jnp.asarray(content, float), jnp.asarray(words, float), SIZES)
        view = HostView(creative_ids=tuple(ad.creative_id for ad in ads), world=jax.device_get(world))
    rng = np.random.default_rng([seed, 1])
    drawn = [rng.choice(list(LEVELS[field]), impressions, p=list(LEVELS[field].values())) for field in FIELDS]
    contexts = [dict(zip(FIELDS, map(str, levels), strict=True)) for levels in zip(*drawn, strict=True)]
    rates = view.true_rates([{**STANDING_STILL, **context} for context in contexts])
    return OneCampaign(ads, np.asarray(content, float), contexts, rates, rng.random(impressions))


def one_hot(contexts: list[dict[str, str]]) -> Float[np.ndarray, "contexts 8"]:
    """Return contexts as numbers, for contenders that take only these: 1, then an indicator of each level."""
    return np.array([_ROWS[context["device"], context["daypart"]] for context in contexts])


def _fields(ad: Ad) -> Mapping[str, str]:
    return {"headline": ad.headline, "body": ad.body, "call_to_action": ad.call_to_action}


_ROWS = {
    (device, daypart): [1.0]
    + [float(device == level) for level in LEVELS["device"]]
    + [float(daypart == level) for level in LEVELS["daypart"]]
    for device in LEVELS["device"]
    for daypart in LEVELS["daypart"]
}
