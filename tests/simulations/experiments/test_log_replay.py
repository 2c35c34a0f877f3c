"""Replay by rejection against a loop over the lines, and on logs where the truth is known."""

import csv
from pathlib import Path

import jax
import numpy as np
import pytest

from bandit.decision_log.logs import Log, context_columns
from bandit.decision_log.open_bandit import read_open_bandit
from bandit.errors import LogError
from bandit.jax_runtime import double_precision
from simulations.cli import main
from simulations.experiments.log_replay import SETTINGS, contexts_of, replay_log

RATES = np.array([0.1, 0.2, 0.6, 0.3])
N = 1_200


def some_log(n_lines: int = N, *, seed: int = 0) -> Log:
    rng = np.random.default_rng(seed)
    action = rng.integers(0, 4, n_lines)
    everywhere = np.full((n_lines, 4), 0.25)
    return Log(
        ("a", "b", "c", "d"),
        None,
        np.arange(n_lines).astype(str),
        action,
        (rng.random(n_lines) < RATES[action]).astype(float),
        everywhere[:, 0],
        everywhere,
        everywhere > 0,
        np.zeros(n_lines, int),
        context_columns([{"device": f"{i % 3}", "hour": i % 24} for i in range(n_lines)]),
    )


def test_ucb_sees_what_a_loop_over_the_lines_sees() -> None:
    log = some_log()
    with double_precision():
        key_order, _ = jax.random.split(jax.random.key(3))
        order = np.asarray(jax.random.permutation(key_order, N))
    n, clicks, late, late_clicks = np.zeros(4), np.zeros(4), 0, 0.0
    for place, line in enumerate(order):
        total = max(n.sum(), 2.0)
        index = clicks / np.maximum(n, 1) + dict(SETTINGS["ucb1"].numbers)["scale"] * np.sqrt(
            2 * np.log(total) / np.maximum(n, 1)
        )
        chosen = int(np.argmax(np.where(n > 0, index, np.inf)))
        if chosen == log.action[line]:
            n[chosen] += 1
            clicks[chosen] += log.reward[line]
            late += place >= N // 2
            late_clicks += log.reward[line] * (place >= N // 2)
    found = replay_log(log, SETTINGS["ucb1"], seeds=[3])
    assert found.accepted.tolist() == [n.sum()]
    assert found.clicks.tolist() == [clicks.sum()]
    assert found.late_accepted.tolist() == [late]
    assert found.late_clicks.tolist() == [late_clicks]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["engine", "lin-ucb", "beta-thompson"])
def test_policies_learn_by_rejection(name: str) -> None:
    found = replay_log(some_log(4_000), SETTINGS[name], seeds=[0])
    assert found.accepted[0] == pytest.approx(1_000, abs=110)  # one line of four
    assert found.late_clicks[0] / found.late_accepted[0] > 0.5  # the best has 0.6


def test_uniform_earns_what_the_log_earned() -> None:
    log = some_log(4_000)
    found = replay_log(log, SETTINGS["uniform"], seeds=range(4))
    error = (0.3 * 0.7 / 1_000) ** 0.5 / 2
    assert found.clicks.sum() / found.accepted.sum() == pytest.approx(log.reward.mean(), abs=4 * error)
    assert len(set(found.clicks.tolist())) > 1


@pytest.mark.slow
def test_what_may_not_be_shown_is_not_chosen() -> None:
    log = some_log()
    may = np.tile([True, True, False, False], (N, 1))
    half = log._replace(action=log.action % 2, eligible=may, propensity=np.full(N, 0.5), logging=may / 2)
    found = replay_log(half, SETTINGS["engine"], seeds=[0])
    assert found.accepted[0] == pytest.approx(N / 2, abs=70)


def test_the_columns_that_vary_most_are_the_context() -> None:
    log = some_log()
    contexts = contexts_of(log)
    assert contexts.shape == (N, 16)
    assert np.array_equal(contexts[:, :4], log.context[:, 1:])  # three devices, and the hour
    assert not contexts[:, 4:].any()
    wide = np.column_stack([np.ones(N), np.random.default_rng(0).normal(size=(N, 20)) * np.arange(1, 21)])
    assert np.array_equal(contexts_of(log._replace(context=wide)), wide[:, 5:])


def test_a_log_of_other_propensities_is_refused() -> None:
    log = some_log()
    with pytest.raises(
        LogError, match=r"3 of 1,200 decisions have other propensities, the first is 7: 0\.3 of 4"
    ):
        replay_log(
            log._replace(propensity=np.where(np.isin(np.arange(N), [7, 9, 30]), 0.3, 0.25)),
            SETTINGS["ucb1"],
            seeds=[0],
        )


def written(log: Log, path: Path) -> Path:
    lines = [
        f"2024-01-01,{log.actions[a]},1,{r:.0f},{m}"
        for a, r, m in zip(log.action, log.reward, log.propensity, strict=True)
    ]
    path.write_text("\n".join(["timestamp,item_id,position,click,propensity_score", *lines]) + "\n")
    return path


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = str(written(some_log(), tmp_path / "log.csv"))
    command = ["simulate", "log", file, "--out", str(tmp_path / "out")]
    assert main([*command, "--policies", "ucb1", "--seeds", "1"]) == 0
    out = capfd.readouterr().out
    assert "on 1,200 lines" in out
    assert "The engine had a click rate" in out
    assert (tmp_path / "out" / "report-figures" / "click-rates.png").exists()
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "<td class=words>the log itself</td><td class=number>1,200</td>" in page
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    assert [row["policy"] for row in rows] == ["engine", "ucb1"]
    assert 0.2 < float(rows[0]["accepted_share"]) < 0.3
    for more, problem in (
        (["--policies", "ucb7"], "unknown policy 'ucb7'; nearest: "),
        (["--seeds", "0"], "expected at least one seed, got 0"),
        (["--seeds", "1"], "has results.csv, report.html already"),
    ):
        assert main([*command, *more]) == 2
        assert problem in capfd.readouterr().err
    uneven = written(some_log()._replace(propensity=np.full(N, 0.5)), tmp_path / "uneven.csv")
    assert main(["simulate", "log", str(uneven), "--out", str(tmp_path)]) == 2
    assert "1,200 of 1,200 decisions have other propensities" in capfd.readouterr().err


@pytest.mark.real_data
def test_of_the_open_bandit_sample_one_log_is_uniform(data_dir: Path) -> None:
    random, bts = (
        read_open_bandit(data_dir / "open-bandit" / f"{name}_men.csv.gz") for name in ("random", "bts")
    )
    accepted = replay_log(random, SETTINGS["ucb1"], seeds=[0]).accepted[0]
    assert accepted == pytest.approx(10_000 / 34, abs=4 * (10_000 / 34) ** 0.5)
    with pytest.raises(LogError, match="of 10,000 decisions have other propensities"):
        replay_log(bts, SETTINGS["ucb1"], seeds=[0])
