import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from encoders import TextEncoder
from simulations.experiments.synthetic import draw_words, draw_world, draw_worlds, play_worlds
from simulations.policies.settings import WORLD_SETTINGS, PolicySetting
from simulations.reports.scores import (
    Played,
    impressions_of,
    oracle_of,
    regret_curve,
    score,
    traffic_shares,
    uniform_of,
)
from simulations.worlds.ad_features import Texts, read_ads, write_ads
from simulations.worlds.requests import WorldError
from simulations.worlds.shop import EffectSizes, World, draw_truth
from tests.paths import TINY

IMPRESSIONS, BATCH, N_WORLDS, N_ARMS = 3_000, 100, 3, 6


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    # Wide effects and a high base rate: 3,000 impressions must be enough to tell the policies apart.
    sizes = EffectSizes(base_rates=(0.05, 0.05), content=1.0, residual=0.5)
    return draw_worlds(0, n_worlds=N_WORLDS, n_creatives=N_ARMS, sizes=sizes)


@pytest.fixture(scope="module")
def engine(worlds: list[World]) -> Played:
    return play_worlds(worlds, WORLD_SETTINGS["engine"], IMPRESSIONS, batch=BATCH)


def by_hand(policy: str = "engine") -> Played:
    """Two seeds of two campaigns, two batches of ten impressions, two creatives."""
    shown = np.array([[[8.0, 2], [10, 0]], [[6, 4], [2, 8]], [[5, 5], [0, 10]], [[5, 5], [5, 5]]])
    return Played(
        PolicySetting(policy=policy),
        10,
        earned=np.array([[3.0, 5], [4, 6], [1, 1], [1, 1]]),
        best=np.array([[5.0, 5], [6, 6], [2, 2], [2, 2]]),
        uniform=np.array([[2.0, 2], [3, 3], [1, 1], [1, 1]]),
        shown=shown,
    )


@pytest.mark.slow
def test_runs_are_whole_and_consistent(engine: Played) -> None:
    assert engine.shown.shape == (N_WORLDS, IMPRESSIONS // BATCH, N_ARMS)
    assert_allclose(engine.shown.sum(axis=2), BATCH)
    assert (engine.earned <= engine.best + 1e-9).all()
    assert (engine.uniform < engine.best).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WORLD_SETTINGS))
def test_every_policy_learns_and_meets_the_same_requests(
    name: str, worlds: list[World], engine: Played
) -> None:
    played = play_worlds(worlds, WORLD_SETTINGS[name], IMPRESSIONS, batch=BATCH)
    assert_allclose(played.best, engine.best)
    assert_allclose(played.uniform, engine.uniform)
    later = slice(IMPRESSIONS // BATCH // 2, None)
    lift = (played.earned - played.uniform)[:, later].sum() / (played.best - played.uniform)[:, later].sum()
    assert lift > 0.15


def test_a_run_is_a_function_of_its_world_and_seed(worlds: list[World], engine: Played) -> None:
    again = play_worlds(worlds[::-1], WORLD_SETTINGS["engine"], IMPRESSIONS, seeds=[2, 1, 0], batch=BATCH)
    assert_allclose(again.earned, engine.earned[::-1])
    other = play_worlds(worlds[:1], WORLD_SETTINGS["engine"], IMPRESSIONS, seeds=[9], batch=BATCH)
    assert not np.allclose(other.best, engine.best[:1])


@pytest.mark.slow
def test_engine_loses_fewer_clicks_than_plain_thompson_at_ad_rates() -> None:
    worlds = draw_worlds(1, n_worlds=40, n_creatives=N_ARMS, sizes=EffectSizes(base_rates=(0.01, 0.03)))
    engine, plain = (
        regret_curve(play_worlds(worlds, WORLD_SETTINGS[name], IMPRESSIONS, batch=BATCH)).regret[:, -1]
        for name in ("engine", "plain-thompson")
    )
    saved = plain - engine
    assert saved.mean() > 2 * saved.std(ddof=1) / np.sqrt(len(saved))


def test_uniform_and_oracle_are_the_ends_of_the_scale(engine: Played) -> None:
    assert score(uniform_of(engine)).share_of_lift == 0
    assert score(uniform_of(engine)).policy == "uniform"
    assert score(oracle_of(engine)).share_of_lift == 1
    assert score(oracle_of(engine)).regret == 0
    assert_allclose(uniform_of(engine).shown.sum(axis=2), BATCH)


def test_score_by_hand() -> None:
    row = score(by_hand(), n_campaigns=2)
    # Seeds pair rows 0 with 2 and 1 with 3: earned 10 and 12, best 14 and 16, uniform 6 and 8.
    assert (row.impressions, row.seeds, row.clicks, row.regret) == (40, 2, 11.0, 4.0)
    assert row.share_of_lift == pytest.approx(8 / 16)
    assert row.standard_error == pytest.approx(0.0)
    assert row.regret_error == pytest.approx(0.0)
    alone = score(by_hand())
    gain, lift = np.array([4.0, 4, 0, 0]), np.array([6.0, 6, 2, 2])
    residual = (gain - 0.5 * lift) / 4
    assert alone.standard_error == pytest.approx(residual.std(ddof=1) / 2)
    assert alone.regret_error == pytest.approx((lift - gain).std(ddof=1) / 2)


def test_regret_curve_by_hand() -> None:
    curve = regret_curve(by_hand(), n_campaigns=2)
    assert curve.policy == "engine"
    assert_allclose(curve.regret, [[2 + 1, 2 + 2], [2 + 1, 2 + 2]])
    assert impressions_of(by_hand(), n_campaigns=2).tolist() == [20, 40]


def test_traffic_shares_by_hand() -> None:
    traffic = traffic_shares(by_hand(), ("a", "b"), runs=[0, 1], n_times=5)
    assert_allclose(traffic.shares, [[14 / 20, 6 / 20], [12 / 20, 8 / 20]])
    assert traffic.impressions.tolist() == [10, 20]
    assert traffic_shares(by_hand(), ("a", "b"), n_times=1).impressions.tolist() == [20]


def test_a_world_without_differences_has_no_lift_to_share() -> None:
    played = by_hand()._replace(best=np.ones((4, 2)), uniform=np.ones((4, 2)), earned=np.ones((4, 2)))
    assert score(played).share_of_lift == 0
    assert score(played).standard_error == 0


@pytest.mark.parametrize(
    ("setting", "impressions", "seeds", "words"),
    [
        (PolicySetting(policy="lin-ubc"), 200, None, "unknown policy 'lin-ubc'; nearest: lin-ucb"),
        (PolicySetting(policy="ucb1"), 99, None, "got batch=100, impressions=99"),
        (PolicySetting(policy="ucb1"), 200, [1], "got 3 worlds and 1 seeds"),
    ],
)
def test_what_cannot_be_played_is_refused(
    worlds: list[World], setting: PolicySetting, impressions: int, seeds: list[int] | None, words: str
) -> None:
    with pytest.raises(WorldError) as caught:
        play_worlds(worlds, setting, impressions, seeds=seeds, batch=BATCH)
    assert words in str(caught.value)


def test_worlds_out_of_range_are_refused() -> None:
    with pytest.raises(WorldError, match="got seed=-1, n_worlds=8, n_creatives=20"):
        draw_worlds(-1)
    with pytest.raises(WorldError, match="n_creatives=0"):
        draw_worlds(0, n_creatives=0)


@pytest.mark.slow
@pytest.mark.usefixtures("double_precision")
def test_words_add_what_their_weights_say_and_policies_do_not_see_them() -> None:
    sizes = EffectSizes(words=0.4)
    plain, wordy = (draw_worlds(3, n_worlds=2, n_creatives=9, sizes=sizes, n_words=n) for n in (0, 12))
    keys = jax.random.split(jax.random.key(3), 2)
    for key, without, world in zip(keys, plain, wordy, strict=True):
        has_word = np.asarray(draw_words(key, 9, 12))
        weights = np.asarray(draw_truth(jax.random.split(key, 3)[0], 12, sizes).words)
        added = has_word @ weights
        assert added.std() > 0.2
        np.testing.assert_allclose(world.appeal - without.appeal, added - added.mean(), atol=1e-9)
        for name in ("content", "base", "context", "interaction"):
            np.testing.assert_array_equal(getattr(world, name), getattr(without, name), err_msg=name)


def test_a_third_of_the_texts_has_a_word() -> None:
    has_word = np.asarray(draw_words(jax.random.key(0), 200, 50))
    assert set(np.unique(has_word)) == {0, 1}
    assert has_word.mean() == pytest.approx(1 / 3, abs=4 * np.sqrt(2 / 9 / has_word.size))


@pytest.fixture(scope="module")
def texts() -> Texts:
    return read_ads(write_ads(5, 9), TextEncoder(TINY, dtype="float32"), 5)


@pytest.mark.slow
@pytest.mark.usefixtures("double_precision")
def test_ads_give_a_world_their_contents_and_words_and_leave_the_rest(texts: Texts) -> None:
    plain, written = draw_world(3, 1, n_creatives=9), draw_world(3, 1, n_creatives=9, texts=texts)
    np.testing.assert_array_equal(written.content, texts.content)
    truth = draw_truth(
        jax.random.split(jax.random.split(jax.random.key(3), 2)[1], 3)[0], texts.words.shape[1], EffectSizes()
    )
    differing = texts.content - texts.content.mean(axis=0, dtype=float)
    own = plain.appeal - (plain.content - plain.content.mean(axis=0)) @ truth.content
    by_text = differing @ truth.content + (texts.words - texts.words.mean(axis=0)) @ truth.words
    np.testing.assert_allclose(written.appeal, own + by_text, atol=1e-6)
    np.testing.assert_allclose(written.interaction, differing @ truth.interaction.T, atol=1e-6)
    for name in ("base", "context"):
        np.testing.assert_array_equal(getattr(written, name), getattr(plain, name), err_msg=name)


def test_words_of_ads_are_their_tones_and_offers(texts: Texts) -> None:
    ads = write_ads(5, 9)
    n_tones, n_offers = len({ad.tone for ad in ads}), len({ad.offer for ad in ads})
    assert texts.words.shape == (9, n_tones + n_offers)
    for part, attribute in ((slice(n_tones), "tone"), (slice(n_tones, None), "offer")):
        own = texts.words[:, part]
        assert (own.sum(axis=1) == 1).all()
        alike = own @ own.T == 1
        names = [getattr(ad, attribute) for ad in ads]
        assert [[a == b for b in names] for a in names] == alike.tolist()


@pytest.mark.usefixtures("double_precision")
def test_a_world_does_not_depend_on_how_many_are_drawn() -> None:
    keys = jax.random.split(jax.random.key(4), 5)
    for number, among_others in enumerate(draw_worlds(4, n_worlds=3, n_creatives=5)):
        world = draw_world(4, number, n_creatives=5)
        jax.tree.map(np.testing.assert_array_equal, world, among_others)
        own = draw_truth(jax.random.split(keys[number], 3)[0], 0, EffectSizes())
        np.testing.assert_array_equal(world.context, own.context)


def test_texts_of_other_creatives_are_refused(texts: Texts) -> None:
    with pytest.raises(WorldError, match=r"each of 7 creatives and n_words=0.*got 9 texts and n_words=0"):
        draw_world(0, 0, n_creatives=7, texts=texts)
    with pytest.raises(WorldError, match="got 9 texts and n_words=12"):
        draw_world(0, 0, n_creatives=9, n_words=12, texts=texts)
