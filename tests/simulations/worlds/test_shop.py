import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from bandit.features.context import context_vector
from bandit.features.design import N_CONTEXT, design_row
from simulations.errors import SimulationError
from simulations.worlds.requests import (
    BASKET_MEAN,
    BASKET_SD,
    FIRST_SLOT,
    LEVELS,
    WorldError,
    as_mappings,
    context_vectors,
    draw_visits,
    vector_of,
)
from simulations.worlds.shop import (
    EffectSizes,
    HostView,
    UnknownCreativeError,
    World,
    click_rates,
    draw_truth,
    make_world,
    traffic_of,
)
from storage.records import ContextRecord, ContextSlotRecord

pytestmark = pytest.mark.usefixtures("double_precision")

OFF = EffectSizes(campaign=0, context=0, content=0, words=0, interaction=0, residual=0)
CONTEXT = {
    "device": "mobile",
    "daypart": "evening",
    "segment": "new",
    "weekend": True,
    "basket": BASKET_MEAN + BASKET_SD,
}


def a_world(seed: int = 0, n_arms: int = 5, sizes: EffectSizes | None = None) -> World:
    key_truth, key_content, key_words, key_world = jax.random.split(jax.random.key(seed), 4)
    content = 0.1 * jax.random.normal(key_content, (n_arms, 64))
    words = jax.random.bernoulli(key_words, 0.5, (n_arms, 3)).astype(float)
    sizes = sizes or EffectSizes()
    return make_world(key_world, draw_truth(key_truth, 3, sizes), content, words, sizes)


def a_view(**settings: Any) -> HostView:
    world = a_world(**settings)
    return HostView(creative_ids=tuple(f"ad-{i}" for i in range(len(world.appeal))), world=world)


def test_both_views_agree() -> None:
    view = a_view()
    visits = draw_visits(jax.random.key(3), 200)
    contexts = as_mappings(visits)
    vectors = context_vectors(visits)
    assert_allclose(np.stack([vector_of(context) for context in contexts]), vectors, atol=1e-12)
    assert_allclose(view.true_rates(contexts), click_rates(view.world, vectors), rtol=1e-12)
    assert view.true_rate(contexts[7], "ad-3") == pytest.approx(float(click_rates(view.world, vectors)[7, 3]))


def test_vectors_are_those_of_the_engines_schema() -> None:
    slots, kinds = [], {}
    for field in FIRST_SLOT:
        levels: list[str | None] = [None, *LEVELS.get(field, ())]
        kinds[field] = "string" if field in LEVELS else "boolean" if field == "weekend" else "number"
        for level in levels:
            moments = (
                {"mean": BASKET_MEAN, "sd": BASKET_SD, "moments_version": 1} if field == "basket" else {}
            )
            slots.append(
                ContextSlotRecord(
                    **{"mean": None, "sd": None, "moments_version": None, **moments},
                    slot=len(slots),
                    field=field,
                    level=level,
                    version=1,
                )
            )
    schema = ContextRecord(fields=kinds, slots=tuple(slots), version=1)
    for context in as_mappings(draw_visits(jax.random.key(5), 50)):
        assert_allclose(vector_of(context), context_vector(context, schema), atol=1e-12)


def test_without_effects_every_rate_is_the_base_rate() -> None:
    sizes = dataclasses.replace(OFF, base_rates=(0.03, 0.03))
    view = a_view(sizes=sizes)
    rates = view.true_rates(as_mappings(draw_visits(jax.random.key(0), 20)))
    assert_allclose(rates, 0.03, rtol=1e-12)


@pytest.mark.parametrize("effect", ["content", "words", "residual"])
def test_effects_of_creatives_differ_by_creative_and_not_by_context(effect: str) -> None:
    view = a_view(sizes=dataclasses.replace(OFF, **{effect: 0.5}))
    rates = view.true_rates(as_mappings(draw_visits(jax.random.key(0), 20)))
    assert_allclose(rates, rates[:1].repeat(20, axis=0), rtol=1e-12)
    assert rates[0].std() > 1e-4


def test_context_effect_differs_by_context_and_not_by_creative() -> None:
    view = a_view(sizes=dataclasses.replace(OFF, context=0.5))
    rates = view.true_rates(as_mappings(draw_visits(jax.random.key(0), 20)))
    assert_allclose(rates, rates[:, :1].repeat(5, axis=1), rtol=1e-12)
    assert rates[:, 0].std() > 1e-4


def test_interaction_changes_who_is_best() -> None:
    view = a_view(sizes=dataclasses.replace(OFF, interaction=1.0))
    best = view.true_rates(as_mappings(draw_visits(jax.random.key(0), 100))).argmax(axis=1)
    assert len(set(best.tolist())) > 1


def test_campaigns_of_a_shop_share_weights_and_differ_by_their_effect() -> None:
    sizes = dataclasses.replace(EffectSizes(), residual=0.0)
    truth = draw_truth(jax.random.key(0), 0, sizes)
    content, words = 0.1 * jax.random.normal(jax.random.key(1), (4, 64)), jnp.zeros((4, 0))
    first, second = (make_world(jax.random.key(seed), truth, content, words, sizes) for seed in (2, 3))
    assert_allclose(first.appeal, second.appeal)
    assert_allclose(first.interaction, second.interaction)
    assert float(first.base) != pytest.approx(float(second.base), abs=1e-3)


def test_rate_by_hand() -> None:
    slot = FIRST_SLOT["device"] + 1 + list(LEVELS["device"]).index("mobile")
    world = World(
        content=jnp.zeros((2, 64)),
        base=jnp.asarray(-4.0),
        context=jnp.zeros(N_CONTEXT).at[FIRST_SLOT["basket"]].set(0.5),
        appeal=jnp.array([0.0, 0.25]),
        interaction=jnp.zeros((2, N_CONTEXT)).at[1, slot].set(-1.0),
    )
    view = HostView(creative_ids=("a", "b"), world=world)
    assert view.true_rate(CONTEXT, "a") == pytest.approx(1 / (1 + math.exp(3.5)))
    assert view.true_rate(CONTEXT, "b") == pytest.approx(1 / (1 + math.exp(4.25)))
    assert view.true_rate({**CONTEXT, "device": "tablet"}, "b") == pytest.approx(1 / (1 + math.exp(3.25)))


def test_levels_come_as_often_as_they_should() -> None:
    n = 20_000
    visits = draw_visits(jax.random.key(1), n)
    for column, shares in enumerate(LEVELS.values()):
        wanted = np.array(list(shares.values()))
        seen = np.bincount(np.asarray(visits.levels[:, column]), minlength=len(wanted)) / n
        assert np.all(np.abs(seen - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / n))
    vectors = np.asarray(context_vectors(visits))
    assert vectors[:, FIRST_SLOT["basket"]].mean() == pytest.approx(0, abs=5 / np.sqrt(n))
    assert vectors[:, FIRST_SLOT["basket"]].std() == pytest.approx(1, abs=0.02)


def test_traffic_carries_the_engines_design_rows_and_the_exact_rates() -> None:
    world, key = a_world(), jax.random.key(9)
    traffic = traffic_of(world, 8).traffic_at((), jnp.asarray(0), key)
    vectors = context_vectors(draw_visits(key, 8))
    row = design_row(vectors[6], world.content[2], world.content.mean(axis=0))
    assert_allclose(traffic.requests.features[6, 2], row)
    assert_allclose(traffic.truth, click_rates(world, vectors))
    assert traffic.requests.eligible.all()
    assert traffic.size == 8


def test_same_seed_same_world_and_worlds_can_be_mapped() -> None:
    assert_allclose(a_world(4).appeal, a_world(4).appeal)
    assert not np.allclose(a_world(4).appeal, a_world(5).appeal)
    truths = jax.vmap(lambda key: draw_truth(key, 2, EffectSizes()))(jax.random.split(jax.random.key(0), 50))
    rates = jax.nn.sigmoid(truths.base)
    assert float(rates.min()) >= 0.005
    assert float(rates.max()) <= 0.05
    assert float(rates.std()) > 0.005


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"base_rates": (0.0, 0.05)}, "got (0.0, 0.05)"),
        ({"base_rates": (0.05, 0.01)}, "got (0.05, 0.01)"),
        ({"residual": -0.1}, "residual must be a finite number of at least 0, got -0.1"),
        ({"content": math.nan}, "content must be a finite number of at least 0, got nan"),
    ],
)
def test_impossible_sizes_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(WorldError) as caught:
        EffectSizes(**settings)
    assert words in str(caught.value)
    assert isinstance(caught.value, SimulationError)


def test_unknown_creative_is_named() -> None:
    with pytest.raises(UnknownCreativeError, match="'ad-9'") as caught:
        a_view().true_rate(CONTEXT, "ad-9")
    assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ({"device": "mobile"}, "missing: daypart, segment, weekend, basket"),
        ({**CONTEXT, "device": "watch"}, "device must be one of mobile, desktop, tablet, got 'watch'"),
    ],
)
def test_unknown_context_is_refused(context: dict[str, Any], words: str) -> None:
    with pytest.raises(WorldError) as caught:
        a_view().true_rate(context, "ad-0")
    assert words in str(caught.value)
