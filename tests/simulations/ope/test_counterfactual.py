"""The engine as another policy: with its own settings it is the engine that ran, to the last bit."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bandit.decision_log.own_logs import read_settled
from bandit.engine import Engine, utc_now
from bandit.errors import LogError
from bandit.model.model import Model
from bandit.types import Creative, Outcome, Request
from encoders import TextEncoder
from simulations.cli import main
from simulations.ope.counterfactual import EngineSettings, engine_probabilities
from storage import Store
from storage.maintenance.exporter import LoggedDecision
from tests.paths import TINY

NAMES = ("calm", "cold", "urgent", "warm", "plain")
N = 240  # of each half


@pytest.fixture
def logged(url: str) -> str:
    """Two halves; the posterior of the second is a refit on the first."""
    rng = np.random.default_rng(4)
    with Engine.open(url, learn="manual", seed=3, encoder=TextEncoder(TINY, dtype="float32")) as engine:
        engine.add_campaign("spring", attribution_window=0, horizon=2_000, control_share=0.1)
        limits = {"warm": {"floor": 0.15}, "urgent": {"cap": 0.4}}
        engine.add_creatives(
            "spring",
            [Creative(name, headline=f"{name} {name}", **limits.get(name, {})) for name in NAMES],
        )
        for half in range(2):
            for start in range(0, N, 60):
                requests = [
                    Request(
                        campaign="spring",
                        context={"device": ("mobile", "desktop")[i % 2], "basket": 10.0 + i % 7},
                        decision_id=f"{half}-{start + i}",
                        exclude=frozenset({"calm"} if i % 5 == 0 else ()),
                    )
                    for i in range(60)
                ]
                decisions = engine.select_many(requests)
                outcomes = [
                    Outcome(
                        decision_id=one.id,
                        click=bool(rng.random() < 0.2 + 0.05 * (one.creative_id in ("cold", "urgent"))),
                    )
                    for one in decisions
                ]
                engine.update_many(outcomes)
                if half == 0:
                    engine.settle()
            if half == 0:
                engine.refit()
        engine.settle()
    return url


def asked(
    url: str, settings: EngineSettings, encoder: TextEncoder | None = None
) -> tuple[Sequence[LoggedDecision], np.ndarray]:
    with Store.open(url) as store:
        decisions = read_settled(store, "spring")
        found = engine_probabilities(Model(store, utc_now, 0, None), decisions, N, settings, encoder)
    return decisions, found


@pytest.mark.slow
def test_the_same_engine_has_the_logged_propensities_and_another_has_not(logged: str) -> None:
    decisions, found = asked(logged, EngineSettings())
    assert len(decisions) == 2 * N
    expected = np.zeros((N, len(NAMES)))
    for row, one in enumerate(decisions[N:]):
        for name, propensity in zip(one.candidates, one.propensities, strict=True):
            expected[row, sorted(NAMES).index(name)] = propensity
    assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert len(np.unique(found.round(6), axis=0)) > 10

    _, greedier = asked(logged, EngineSettings(kappa=0.0, uniform_share=0.02))
    assert_allclose(greedier.sum(axis=1), 1)
    assert np.abs(greedier - found).max() > 0.01
    allowed = expected > 0
    assert np.all(greedier[allowed] >= 0.12 / 5 - 1e-12)  # the even share, control included
    assert np.all(greedier[~allowed] == 0)
    # Caps and floors are the campaign's.
    assert found[:, sorted(NAMES).index("urgent")].max() == pytest.approx(0.4)
    assert greedier[:, sorted(NAMES).index("warm")].min() >= 0.15 - 1e-12

    _, again = asked(logged, EngineSettings(), TextEncoder(TINY, dtype="float32"))
    # The same encoder, whose components a new database would draw by the same seed.
    assert_allclose(again, found, rtol=0, atol=1 / 256)


def test_outcomes_of_the_second_half_do_not_matter(logged: str) -> None:
    with Store.open(logged) as store:
        decisions = read_settled(store, "spring")
        model = Model(store, utc_now, 0, None)
        found = engine_probabilities(model, decisions, N, EngineSettings())
        other = [one._replace(click=1 - (one.click or 0)) for one in decisions[N:]]
        assert np.array_equal(
            engine_probabilities(model, [*decisions[:N], *other], N, EngineSettings()), found
        )


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"kappa": -0.1}, "expected kappa to be a number of at least 0, got -0.1"),
        ({"noise": float("nan")}, "expected noise to be a number of at least 0, got nan"),
        ({"uniform_share": 1.5}, "expected uniform_share to be 0 to 1, got 1.5"),
    ],
)
def test_settings_out_of_range(settings: dict[str, float], problem: str) -> None:
    with pytest.raises(LogError, match=problem):
        EngineSettings(**settings)


@pytest.mark.slow
def test_the_command(logged: str, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", logged, "--campaign", "spring", "--policy", "engine"]
    assert main([*command, "--kappa", "0.1", "--noise", "0.2", "--uniform-share", "0.1"]) == 0
    out = capfd.readouterr().out
    assert f"on {N} decisions" in out
    assert "mips takes the 5 creatives as 2 clusters" in out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["log.csv", "--policy", "engine"], "engine needs a database, which has contents and contexts"),
        (["ads.db", "--policy", "engine"], "--campaign: is needed with a database, got 'ads.db'"),
        (["log.csv", "--policy", "uniform", "--kappa", "1"], "expected engine, which alone has kappa"),
        (["ads.db", "--policy", "engine", "--kappa", "much"], "--kappa: expected a number, got 'much'"),
        (["ads.db", "--campaign", "x", "--policy", "engine", "--kappa", "-1"], "kappa to be a number of at"),
    ],
)
def test_the_command_refuses(arguments: list[str], problem: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *arguments]) == 2
    assert problem in capfd.readouterr().err
