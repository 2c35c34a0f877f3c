"""Policies, doubts and the command; and the Open Bandit sample, where the truth of both policies is known."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bandit.decision_log.logs import Log
from bandit.decision_log.open_bandit import read_open_bandit
from bandit.errors import LogError
from simulations.cli import main
from simulations.ope.evaluation import ESTIMATORS, Evaluation, evaluate
from simulations.ope.targets import greedy, shares_of, uniform

RATES = np.array([0.05, 0.1, 0.5])


def some_log(n_rows: int = 2_000, logging: tuple[float, ...] = (0.4, 0.4, 0.2), *, seed: int = 0) -> Log:
    rng = np.random.default_rng(seed)
    action = rng.choice(3, n_rows, p=logging)
    everywhere = np.tile(logging, (n_rows, 1))
    return Log(
        ("a", "b", "c"),
        None,
        np.arange(n_rows).astype(str),
        action,
        (rng.random(n_rows) < RATES[action]).astype(float),
        everywhere[0, action],
        everywhere,
        everywhere > 0,
        np.arange(n_rows) % 2,
        np.ones((n_rows, 1)),
    )


def always(log: Log, action: int) -> np.ndarray:
    return np.eye(3)[np.full(len(log.action), action)]


def test_what_is_found_of_a_policy() -> None:
    log = some_log()
    found = evaluate(log, always(log, 2))
    taken = log.action == 2
    assert [one.estimator for one in found.estimates] == [name for name in ESTIMATORS if name != "mips"]
    assert found.rows == 2_000
    assert found.on_policy == pytest.approx(log.reward.mean())
    assert found.on_policy_error == pytest.approx(log.reward.std(ddof=1) / 2_000**0.5)
    assert found.effective_rows == pytest.approx(taken.sum())
    assert found.largest_weight == pytest.approx(5)
    assert found.mean_weight == pytest.approx(5 * taken.mean())
    assert found.unsupported == found.rare == 0
    assert found.doubts == ()
    by_name = {one.estimator: one for one in found.estimates}
    assert by_name["snips"].value == pytest.approx(log.reward[taken].mean())
    assert by_name["replay"].value == pytest.approx(log.reward[taken].mean())
    for name, one in by_name.items():
        assert one.low is not None
        assert one.high is not None
        assert (one.bernstein_low is None) == (name not in ("ips", "dr"))
        if name != "dm":  # its interval is that of its mean, not of its bias
            assert one.low < 0.5 < one.high


def test_a_policy_without_support_is_refused() -> None:
    log = some_log(logging=(0.5, 0.5, 0.0))
    mixed = 0.75 * always(log, 0) + 0.25 * always(log, 2)
    with pytest.raises(LogError, match=r"25\.0 % of the policy's choices are never made"):
        evaluate(log, mixed)
    little = 0.995 * always(log, 0) + 0.005 * always(log, 2)
    assert "0.50 % of the policy's choices are never made" in evaluate(log, little).doubts[0]


@pytest.mark.parametrize(
    ("log", "action", "doubt"),
    [
        (some_log(logging=(0.49, 0.49, 0.02)), 2, "are needed"),
        (some_log(logging=(0.499, 0.5, 0.001), seed=0), 2, "of all weight"),
        (some_log()._replace(propensity=np.full(2_000, 0.9)), 0, "the propensities are wrong"),
        (some_log()._replace(reward=np.zeros(2_000)), 0, "no click fell"),
    ],
    ids=["few", "one", "wrong", "silent"],
)
def test_doubts_are_told(log: Log, action: int, doubt: str) -> None:
    assert any(doubt in one for one in evaluate(log, always(log, action)).doubts)


def test_choices_that_the_log_hardly_has_are_told() -> None:
    log = some_log(logging=(0.495, 0.495, 0.01))
    found = evaluate(log, 0.6 * always(log, 0) + 0.4 * always(log, 2))  # a weight of 40, below √2000
    assert found.rare == 0
    found = evaluate(log, 0.4 * always(log, 0) + 0.6 * always(log, 2))
    assert found.rare == pytest.approx(0.6)
    assert any("60.0 % of the policy's choices are too rare" in doubt for doubt in found.doubts)
    unknown = log._replace(logging=np.full((2_000, 3), np.nan))
    assert evaluate(unknown, always(log, 2)).rare == 0


def test_what_cannot_be_asked() -> None:
    log = some_log(100)
    with pytest.raises(LogError, match="no estimator 'x', 'y'; choose of ips"):
        evaluate(log, uniform(log), estimators=("x", "dr", "y"))
    with pytest.raises(LogError, match="at least 2 decisions, got 1"):
        evaluate(log.part(slice(1)), uniform(log.part(slice(1))))


@pytest.mark.slow
def test_mips_is_there_when_the_log_allows_it() -> None:
    rng = np.random.default_rng(0)
    logging = np.array([0.4, 0.3, 0.2, 0.1])
    action = rng.choice(4, 4_000, p=logging)
    content = np.array([[0.0, 1], [0, 1.1], [5, 0], [5, 0.1]])
    everywhere = np.tile(logging, (4_000, 1))
    log = Log(
        ("a", "b", "c", "d"),
        content,
        np.arange(4_000).astype(str),
        action,
        (rng.random(4_000) < np.array([0.1, 0.1, 0.4, 0.4])[action]).astype(float),
        logging[action],
        everywhere,
        everywhere > 0,
        np.zeros(4_000, int),
        np.ones((4_000, 1)),
    )
    target = np.tile([0.0, 0.1, 0.0, 0.9], (4_000, 1))
    found = evaluate(log, target)
    by_name = {one.estimator: one for one in found.estimates}
    mips, plain = by_name["mips"], by_name["ips"]
    assert mips.low is not None
    assert mips.high is not None
    assert mips.low < 0.9 * 0.4 + 0.1 * 0.1 < mips.high
    assert mips.standard_error is not None
    assert plain.standard_error is not None
    assert mips.standard_error < 0.6 * plain.standard_error
    assert "4 creatives as 2 clusters" in found.notes[0]
    for other, lack in (
        (log._replace(content=None), "no contents"),
        (log._replace(logging=np.full((4_000, 4), np.nan)), "of the creatives shown only"),
        (some_log()._replace(content=content[:3]), "at least 4 creatives, and the log has 3"),
    ):
        without = evaluate(other, uniform(other))
        assert "mips" not in [one.estimator for one in without.estimates]
        assert lack in without.notes[0]
        assert evaluate(other, uniform(other), estimators=("dr",)).notes == ()
        with pytest.raises(LogError, match=lack):
            evaluate(other, uniform(other), estimators=("mips",))


def test_uniform_shares_what_may_be_shown() -> None:
    log = some_log(2)._replace(eligible=np.array([[True, True, False], [True, True, True]]))
    assert_allclose(uniform(log), [[0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]])


def test_greedy_takes_the_best_eligible_of_what_it_learnt() -> None:
    log = some_log(1_000)
    past, rest = log.part(slice(500)), log.part(slice(500, None))
    assert_allclose(greedy(past, rest), always(rest, 2))
    without = rest._replace(eligible=np.tile([True, True, False], (500, 1)))
    assert_allclose(greedy(past, without), always(rest, 1))
    # What comes later must not matter.
    assert_allclose(greedy(past, rest._replace(reward=1 - rest.reward)), always(rest, 2))


def test_shares_of_another_log_are_its_frequencies_by_position() -> None:
    log = some_log(40)
    shares = shares_of(log, log)
    for position in (0, 1):
        is_here = log.position == position
        counts = np.bincount(log.action[is_here], minlength=3) / is_here.sum()
        assert_allclose(shares[is_here], np.tile(counts, (20, 1)))
    with pytest.raises(LogError, match="never shows: d"):
        shares_of(log._replace(actions=("a", "b", "d")), log)
    with pytest.raises(LogError, match="no rows at position 1"):
        shares_of(log._replace(position=log.position * 0), log)


@pytest.mark.real_data
@pytest.mark.parametrize(("logged", "target"), [("random", "bts"), ("bts", "random")])
def test_the_other_policy_of_open_bandit(data_dir: Path, logged: str, target: str) -> None:
    log, other = (
        read_open_bandit(data_dir / "open-bandit" / f"{name}_men.csv.gz") for name in (logged, target)
    )
    found = evaluate(log, shares_of(other, log), estimators=("snips", "dr", "switch-dr"))
    truth, error = other.reward.mean(), other.reward.std(ddof=1) / len(other.reward) ** 0.5
    assert found.unsupported == 0
    for one in found.estimates:
        assert one.value is not None
        assert one.standard_error is not None
        joint = 1.96 * np.hypot(one.standard_error, error)
        assert abs(one.value - truth) < joint, (one, truth)


def written(log: Log, path: Path) -> Path:
    lines = [
        f"2024-01-01T00:00:00+00:00,{log.actions[a]},{p},{r:.0f},{m}"
        for a, p, r, m in zip(log.action, log.position, log.reward, log.propensity, strict=True)
    ]
    path.write_text("\n".join(["timestamp,item_id,position,click,propensity_score", *lines]) + "\n")
    return path


@pytest.mark.slow
def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = str(written(some_log(), tmp_path / "log.csv"))
    assert main(["evaluate", file, "--policy", "greedy"]) == 0
    out = capfd.readouterr().out
    assert "By dr, greedy would earn" in out
    assert "better than the logged policy's" in out
    assert main(["evaluate", file, "--policy", file, "--estimators", "snips,dm", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert set(found) == {"log", "campaign", "policy", "settings", *Evaluation.__dataclass_fields__}
    assert [one["estimator"] for one in found["estimates"]] == ["snips", "dm"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["ads.db", "--policy", "greedy"], "--campaign: is needed with a database, got 'ads.db'"),
        (
            ["log.csv", "--policy", "best"],
            "expected uniform, greedy, engine or a file that ends in .csv, .csv.gz",
        ),
        (["log.parquet", "--policy", "greedy"], "parquet is not read, got 'log.parquet'"),
        (["log.csv", "--policy", "uniform"], "log.csv: no such file or directory"),
        (["no.db", "--policy", "uniform", "--campaign", "x"], "there is no creative-bandit database"),
    ],
)
def test_the_command_refuses(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    problem: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *arguments]) == 2
    assert problem in capfd.readouterr().err
