"""The demo's shop: ads of the catalogue in three campaigns, each a world whose truth is known."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bandit.jax_runtime import double_precision
from encoders import Encoder
from simulations.worlds.ad_features import read_ads
from simulations.worlds.ads import Ad, catalogue
from simulations.worlds.requests import as_mappings, draw_visits
from simulations.worlds.shop import EffectSizes, HostView, World, draw_truth, make_world

CAMPAIGNS = ("home-page", "search-results", "checkout")  # places of a shop; at each, two products compete
PRODUCTS = 6
CREATIVES_PER_PRODUCT = 10
SIZES = EffectSizes(base_rates=(0.02, 0.03))


class Campaign(NamedTuple):
    """One campaign: its ads, and the truth about them."""

    name: str
    ads: tuple[Ad, ...]
    view: HostView

    @property
    def world(self) -> World:
        """The campaign as the compiled loop plays it."""
        return self.view.world


class Impressions(NamedTuple):
    """Requests in the order of their arrival, with what only the world knows.

    Attributes:
        campaign: index into `CAMPAIGNS`; the campaigns take turns.
        contexts: what the engine is told.
        rates: true click rate of each creative of the request's campaign.
        uniforms: uniform numbers; a shown creative is clicked when its rate is above.
    """

    campaign: np.ndarray
    contexts: list[dict[str, str | float | bool]]
    rates: np.ndarray
    uniforms: np.ndarray


def open_shop(seed: int, encoder: Encoder) -> tuple[Campaign, ...]:
    """Write the ads, encode them as the engine will, and draw the truth about them.

    Args:
        seed: seed of the catalogue and of the truth.
        encoder: makes the contents that the truth is a function of.

    Returns:
        Three campaigns of 20 creatives that share the weights of contents, words and contexts.
    """
    ads = catalogue(seed, products=PRODUCTS, creatives_per_product=CREATIVES_PER_PRODUCT)
    content, words = read_ads(ads, encoder, seed)
    size = len(ads) // len(CAMPAIGNS)
    with double_precision():
        key_truth, *keys = jax.random.split(jax.random.key(seed), 1 + len(CAMPAIGNS))
        # Compiled as wholes: one by one, their operations take seconds to compile.
        make = jax.jit(make_world, static_argnames="sizes")
        truth = jax.jit(draw_truth, static_argnames=("n_words", "sizes"))(key_truth, words.shape[1], SIZES)
        campaigns = []
        for number, (name, key) in enumerate(zip(CAMPAIGNS, keys, strict=True)):
            part = slice(number * size, (number + 1) * size)
            world = make(key, truth, jnp.asarray(content[part], float), jnp.asarray(words[part]), SIZES)
            ids = tuple(ad.creative_id for ad in ads[part])
            campaigns.append(Campaign(name, ads[part], HostView(creative_ids=ids, world=world)))
    return tuple(campaigns)


def draw_impressions(shop: Sequence[Campaign], n_impressions: int, seed: int) -> Impressions:
    """Draw requests, their true click rates, and their uniform numbers."""
    with double_precision():
        key = jax.random.fold_in(jax.random.key(seed), 1)
        contexts = as_mappings(jax.jit(draw_visits, static_argnames="size")(key, n_impressions))
    campaign = np.arange(n_impressions) % len(shop)
    rates = np.empty((n_impressions, len(shop[0].ads)))
    for number, one in enumerate(shop):
        rates[number :: len(shop)] = one.view.true_rates(contexts[number :: len(shop)])
    return Impressions(campaign, contexts, rates, np.random.default_rng([seed, 1]).random(n_impressions))
