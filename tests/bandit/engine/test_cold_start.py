"""What content alone tells: creatives never shown, history as the prior, components of encoders."""

import numpy as np
import pytest

from bandit import Creative, Engine, HistoryRow
from bandit.features.content_pca import components_from_bytes
from encoders import TextEncoder
from tests.bandit.engines import Engines, add_campaign, assert_same, play, posterior
from tests.bandit.inspect import follow_at_once

PRODUCTS = ("shoes", "coats", "lamps", "chairs", "mugs", "tents", "bikes", "rugs", "pans", "desks")


def test_the_example_of_the_product_runs_as_written(engines: Engines) -> None:
    """With the real default encoder, and learning in the background."""
    engine = Engine.open(engines.url)
    engine.add_campaign("spring-sale", horizon=200_000, attribution_window=0)
    engine.add_creatives(
        "spring-sale",
        [
            Creative("calm", headline="Free returns, always"),
            Creative("urgent", headline="48-hour flash sale"),
        ],
    )
    context = {"device": "mobile", "daypart": "evening", "segment": "new"}
    decision = engine.select("spring-sale", context=context)
    assert decision.creative_id in {"calm", "urgent"}
    assert decision.propensities[decision.creative_id] == decision.propensity
    engine.update(decision.id, click=True)
    engine.close()

    with Engine.open(engines.url) as again:
        arms = {arm.creative_id: arm for arm in again.arms("spring-sale")}
    shown = arms.pop(decision.creative_id)
    (other,) = arms.values()
    assert (shown.impressions, shown.clicks, shown.share) == (1, 1, 1.0)
    assert (other.impressions, other.clicks, other.share) == (0, 0, 0.0)
    assert other.ctr_low < other.ctr < other.ctr_high
    assert shown.ctr > other.ctr > 0.02
    ((settings,),) = engines.fetch("SELECT settings FROM models")
    assert '"components":"shipped"' in settings


@pytest.mark.slow
def test_a_new_creative_with_the_winning_word_is_expected_to_win(
    engines: Engines, default_encoder: TextEncoder
) -> None:
    engine = engines.open(encoder=default_encoder)
    rows = [
        HistoryRow(
            campaign="old",
            creative=Creative(f"{product}-{word}", headline=f"{text} {product}"),
            impressions=4_000,
            clicks=clicks,
        )
        for product in PRODUCTS
        for word, text, clicks in (
            ("free", "Free shipping on all", 160),
            ("other", "A large choice of", 60),
        )
    ]
    engine.warm_start(rows)
    add_campaign(engine, "one", name="seed")
    engine.add_campaign("new", attribution_window=0)
    engine.add_creatives(
        "new",
        [
            Creative("with", headline="Free shipping on all curtains"),
            Creative("without", headline="A large choice of curtains"),
        ],
    )
    engine.select("new", {"device": "mobile"})
    arms = {arm.creative_id: arm for arm in engine.arms("new")}
    for arm in arms.values():
        assert arm.impressions == 0
        assert 0 < arm.ctr_low < arm.ctr < arm.ctr_high < 1
    assert arms["with"].ctr > 1.3 * arms["without"].ctr
    assert arms["with"].p_best > 0.75


def test_history_is_shown_apart_and_added_up(engines: Engines) -> None:
    engine = engines.open()
    creative = Creative("a", headline="warm a")

    def rows(impressions: int, clicks: int) -> list[HistoryRow]:
        return [HistoryRow(campaign="old", creative=creative, impressions=impressions, clicks=clicks)]

    engine.warm_start(rows(100, 3) + rows(50, 1))
    engine.warm_start(rows(10, 0))
    (arm,) = engine.arms("old")
    assert (arm.history_impressions, arm.history_clicks, arm.impressions) == (160, 4, 0)
    # One import of the sum teaches the same.
    before = posterior(engine)
    engine.close()
    engines.execute("UPDATE history_counts SET impressions = 0, clicks = 0")
    again = engines.open()
    again.warm_start(rows(160, 4))
    after = posterior(again)
    assert_same({**after, "step": before["step"]}, before)


def test_history_alone_moves_the_posterior_as_much_as_decisions_would(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine, "calm", "urgent")
    for i in range(40):
        engine.select("spring", eligible=["calm"], decision_id=f"d{i}")
        engine.update(f"d{i}", click=i < 10)
    engine.settle()
    engine.refit()
    learnt = engine.arms("spring")[0].ctr
    engine.warm_start(
        [
            HistoryRow(
                campaign="spring",
                creative=Creative("calm", headline="free calm"),
                impressions=4_000,
                clicks=40,
            )
        ]
    )
    arm = engine.arms("spring")[0]
    assert arm.history_impressions == 4_000
    assert arm.ctr < learnt / 2
    assert abs(arm.ctr - 50 / 4_040) < 0.003


@pytest.mark.parametrize("n_texts", [255, 256])
def test_random_components_are_fitted_once_there_are_texts_enough(engines: Engines, n_texts: int) -> None:
    engine, follower = engines.open(), engines.open(role="select")
    engine.set_scale_learning(False)
    add_campaign(engine)
    play(engine, 10)
    follower.select("spring")
    many = [Creative(f"c{i}", headline=f"sale {i}", body="warm shoes") for i in range(n_texts - 4)]
    engine.add_campaign("many")
    engine.add_creatives("many", many)
    ((random,),) = engines.fetch("SELECT components FROM models")
    before = posterior(engine)
    engine.refit()
    ((stored, settings),) = engines.fetch("SELECT components, settings FROM models")
    is_enough = n_texts >= 256
    assert ('"components":"fitted"' in settings) == is_enough
    assert (stored != random) == is_enough
    if is_enough:
        fitted = components_from_bytes(stored)
        gram = fitted.basis[:, :24].T @ fitted.basis[:, :24]
        np.testing.assert_allclose(gram / gram[0, 0], np.eye(24), atol=1e-5)
        assert abs(fitted.centre).max() > 0
    # The refit sees the same ten outcomes: the same data, in other coordinates.
    after = posterior(engine)
    assert after["arm_precision"][:3].sum() == pytest.approx(before["arm_precision"][:3].sum(), rel=0.03)
    play(engine, 5, start=10)
    follow_at_once(follower)
    follower.select("spring")
    assert_same(posterior(follower), posterior(engine))
    last = posterior(engine)
    engine.close()
    engines.forget_states()
    assert_same(posterior(engines.open(role="select")), last)
