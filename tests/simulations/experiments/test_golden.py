"""Worlds that do not change stay as they are, to the last impression: effects are added beside them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from simulations.experiments.synthetic import _compiled, draw_worlds, play_worlds
from simulations.policies.settings import FIXED_SCALES, WORLD_SETTINGS

# Recorded before worlds could change: impressions of each creative, and expected clicks. The engine's first
# row is from before it was fitted anew, the second from since then.
PLAYED = {
    FIXED_SCALES: ([68, 148, 73, 1639, 72], 54.736684543172885),
    "engine": ([67, 147, 74, 1638, 74], 54.68541886794959),
    "lin-ts": ([80, 85, 155, 1403, 277], 54.85588299913698),
    "beta-thompson": ([277, 109, 196, 906, 512], 47.80963468322142),
}


def test_a_world_is_drawn_as_ever() -> None:
    world = draw_worlds(7, n_worlds=1, n_creatives=5)[0]
    assert float(world.base) == pytest.approx(-3.762697161986944, rel=1e-12)
    appeal = [
        0.04235854148410401,
        -0.1213779966857432,
        -0.1592224778514284,
        0.6934549562043009,
        0.15796660814190172,
    ]
    assert_allclose(world.appeal, appeal, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAYED)
def test_a_world_is_played_as_ever(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, earned = PLAYED[name]
    if name == FIXED_SCALES:
        monkeypatch.setattr("bandit.learning.schedule.FIRST_REFIT", 1e9)
        monkeypatch.setattr("simulations.experiments.synthetic._compiled", _compiled.__wrapped__)
    played = play_worlds(draw_worlds(7, n_worlds=1, n_creatives=5), WORLD_SETTINGS[name], 2_000, batch=100)
    np.testing.assert_array_equal(played.shown.sum(axis=(0, 1)), shown)
    assert played.earned.sum() == pytest.approx(earned, rel=1e-12)
    assert played.best.sum() == pytest.approx(61.007481485360024, rel=1e-12)
    assert played.uniform.sum() == pytest.approx(39.928127954913, rel=1e-12)
