"""Floors, caps and control: by hand, against another algorithm, and as frequencies of the draw."""

import jax
import numpy as np
import pytest
from scipy.optimize import brentq

from bandit.policy.propensity import Limits, Propensities, draw, propensities_of
from bandit.policy.randomness import Uniforms, uniforms_of_ids

pytestmark = pytest.mark.usefixtures("double_precision")

K, N_DECISIONS = 4, 40_000
ALL = np.ones(K, bool)


@jax.jit
def propensities_jit(
    shares: np.ndarray, eligible: np.ndarray, even_share: float, limits: Limits
) -> Propensities:
    return propensities_of(shares, eligible, even_share, limits)


@jax.jit
def draw_jit(
    propensities: Propensities, best: np.ndarray, eligible: np.ndarray, control: float, uniforms: Uniforms
) -> tuple:
    def one(own: Uniforms) -> tuple:
        winners = best[:, (own.point * best.shape[1]).astype(int)]
        return draw(propensities, winners, eligible, control, own, has_caps=True)

    return jax.vmap(one)(uniforms)


def propensities(shares, floor=(0.0,) * K, cap=(1.0,) * K, even_share=0.0, eligible=ALL) -> np.ndarray:  # type: ignore[no-untyped-def]
    arrays = (np.asarray(shares, float), eligible, even_share, Limits(np.array(floor), np.array(cap)))
    return np.asarray(propensities_jit(*arrays).capped)


@pytest.mark.parametrize(
    ("shares", "floor", "cap", "even_share", "expected"),
    [
        # Nothing limits: ε/K + (1 − ε) p̂.
        ((0.5, 0.3, 0.2, 0), (0,) * 4, (1,) * 4, 0.2, (0.45, 0.29, 0.21, 0.05)),
        # A floor of .4 and three of ε/4 = .05 leave .45 to p̂.
        ((0.5, 0.3, 0.2, 0), (0, 0, 0, 0.4), (1,) * 4, 0.2, (0.275, 0.185, 0.14, 0.4)),
        # .3 over the cap, shared out 3 : 2 : 1.
        ((0.7, 0.15, 0.1, 0.05), (0,) * 4, (0.4, 1, 1, 1), 0.0, (0.4, 0.3, 0.2, 0.1)),
        # The first's .3 lifts the second over its cap: its .05 goes to the others, 2 : 1.
        ((0.7, 0.15, 0.1, 0.05), (0,) * 4, (0.4, 0.25, 1, 1), 0.0, (0.4, 0.25, 0.35 * 2 / 3, 0.35 / 3)),
        # Nobody else is ever best: even parts.
        ((1, 0, 0, 0), (0,) * 4, (0.4, 1, 1, 1), 0.0, (0.4, 0.2, 0.2, 0.2)),
        ((1, 0, 0, 0), (0,) * 4, (0.4, 0.1, 1, 1), 0.0, (0.4, 0.1, 0.25, 0.25)),
        # Caps that sum to .5 are doubled.
        ((0.7, 0.15, 0.1, 0.05), (0,) * 4, (0.2, 0.1, 0.1, 0.1), 0.0, (0.4, 0.2, 0.2, 0.2)),
        # Floors .8 and .6 beside ε = .2: above .05 they have .75 and .55, of which .8 is left.
        ((0.25,) * 4, (0.8, 0.6, 0, 0), (1,) * 4, 0.2, (0.05 + 0.6 / 1.3, 0.05 + 0.44 / 1.3, 0.05, 0.05)),
        # A cap below the floor wins.
        ((0.25,) * 4, (0.5, 0, 0, 0), (0.2, 1, 1, 1), 0.0, (0.2, 0.8 / 3, 0.8 / 3, 0.8 / 3)),
    ],
)
def test_by_hand(shares, floor, cap, even_share, expected) -> None:  # type: ignore[no-untyped-def]
    np.testing.assert_allclose(propensities(shares, floor, cap, even_share), expected, rtol=1e-14, atol=1e-16)


def by_bisection(shares, floors, cap):  # type: ignore[no-untyped-def]
    """Return min(cap, f + λ p̂) with the λ found by a root finder; all p̂ positive."""
    cap = cap / min(cap.sum(), 1.0)

    def excess(level: float) -> float:
        return float(np.minimum(cap, floors + level * shares).sum()) - 1

    top = 1.0
    while excess(top) < -1e-13:
        top *= 2
    level = top if excess(top) <= 0 else brentq(excess, 0.0, top, xtol=1e-16, rtol=1e-15)
    return np.minimum(cap, floors + level * shares)


def test_against_a_root_finder() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        eligible = random.uniform(size=K) < 0.8
        eligible[0] = True
        n = eligible.sum()
        shares = np.zeros(K)
        shares[eligible] = random.dirichlet(np.full(n, 0.5)) * 0.99 + 0.01 / n
        even_share = random.choice([0.0, 0.05, 0.3])
        floor = random.uniform(0, 0.25, K)
        cap = random.uniform(0.25, 1.2, K).clip(max=1.0)
        got = propensities(shares, floor, cap, even_share, eligible)
        floors = np.where(eligible, np.maximum(floor, even_share / n), 0.0)
        # With at most 4 floors of at most .25 the sum may pass 1 only through ε/K.
        if floors.sum() > 1:
            continue
        wanted = by_bisection(shares[eligible], floors[eligible], cap[eligible])
        np.testing.assert_allclose(got[eligible], wanted, rtol=0, atol=1e-12)
        assert (got[~eligible] == 0).all()
        np.testing.assert_allclose(got.sum(), 1, rtol=1e-14)


@pytest.mark.parametrize("control", [0.0, 0.1])
@pytest.mark.parametrize("uniform", [0.0, 0.05])
@pytest.mark.parametrize(
    ("floor", "cap"),
    [
        ((0.0,) * K, (1.0,) * K),
        ((0.0, 0.0, 0.0, 0.3), (1.0,) * K),
        ((0.0,) * K, (0.4, 1.0, 0.2, 1.0)),
        ((0.0, 0.3, 0.0, 0.1), (0.35, 1.0, 0.05, 1.0)),
        ((0.6, 0.0, 0.0, 0.0), (0.3, 0.3, 0.3, 0.3)),
        ((0.9, 0.9, 0.0, 0.0), (0.5, 0.1, 0.1, 0.1)),
    ],
)
def test_the_draw_has_the_propensities(control: float, uniform: float, floor: tuple, cap: tuple) -> None:
    eligible = np.array([True, True, True, False])
    # Who is best at 16 points, once with a tie.
    best = np.zeros((K, 16), bool)
    best[0, :10] = best[1, 9:14] = best[2, 14:] = True
    shares = (best / best.sum(axis=0)).mean(axis=1)
    limits = Limits(np.array(floor), np.array(cap))
    follows = propensities_jit(shares, eligible, control + uniform, limits)
    uniforms = uniforms_of_ids([f"{i}" for i in range(N_DECISIONS)], 11)
    chosen, is_control = map(np.asarray, draw_jit(follows, best, eligible, control, uniforms))
    weights = np.asarray(follows.capped)
    shown = np.bincount(chosen, minlength=K)
    assert shown[3] == 0
    error = np.sqrt(np.maximum(N_DECISIONS * weights * (1 - weights), 1e-9))
    z = (shown - N_DECISIONS * weights)[:3] / error[:3]
    assert np.abs(z).max() < 5, (z, weights)
    # Controls come as often as they should unless a cap has moved them, and are drawn alike.
    if min(cap) == 1.0:
        assert abs(is_control.sum() - control * N_DECISIONS) <= 5 * np.sqrt(control * N_DECISIONS)
        of_controls = np.bincount(chosen[is_control], minlength=K)[:3]
        assert np.abs(of_controls - is_control.sum() / 3).max() <= 5 * np.sqrt(is_control.sum() * 2 / 9)
    if control == 0:
        assert not is_control.any()
