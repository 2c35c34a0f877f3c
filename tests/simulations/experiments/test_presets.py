"""Presets as data, and the document that their results become."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulations.errors import ResultsExistError
from simulations.experiments.plans import PRESETS, plan_of
from simulations.experiments.synthetic_run import run_synthetic
from simulations.policies.settings import PolicySetting
from simulations.reports.scores import Comparison, Played, compare
from simulations.worlds.requests import WorldError
from tests.paths import DOCS
from tools.preset_results import POLICIES, section, verdict


def rows(engine: list[float], other: list[float]) -> list[Comparison]:
    """Two seeds of one batch in which uniform loses 10 clicks; what the engine and another lose."""

    def played(name: str, lost: list[float]) -> Played:
        best = np.full((2, 1), 20.0)
        return Played(
            PolicySetting(policy=name),
            10,
            best - np.array(lost)[:, None],
            best,
            best - 10,
            np.zeros((2, 1, 1)),
        )

    names = {"engine": engine, "ucb1": other, "uniform": [10.0, 10.0], "oracle": [0.0, 0.0]}
    return compare([played(name, lost) for name, lost in names.items()])


@pytest.mark.parametrize(
    ("engine", "other", "words"),
    [
        ([1, 1], [2, 4], "first; next is ucb1, 20.0 ± 10.0 points behind"),
        ([2, 3], [1, 4], "first; next is ucb1, 0.0 ± 10.0 points behind"),
        ([3, 4], [1, 5], "within one standard error of the first: ucb1 loses 5.0 ± 15.0 points less"),
        ([3, 4], [1, 1], "**not first**: ucb1 loses 25.0 ± 5.0 points less"),
    ],
)
def test_verdicts_by_hand(engine: list[float], other: list[float], words: str) -> None:
    assert verdict(rows(engine, other)) == words


def test_a_section_has_a_row_per_policy_the_least_regret_first() -> None:
    text = section("drift", plan_of("drift", ("ucb1",)), rows([3, 4], [1, 1]))
    policies = re.findall(r"^\| ([a-z0-9-]+) \|", text, re.MULTILINE)
    assert policies == ["policy", "ucb1", "engine", "uniform", "oracle"]
    assert "drift=0.15" in text
    assert "-25.0 ± 5.0 points" in text


def test_every_preset_is_described() -> None:
    text = (DOCS / "simulations.md").read_text()
    assert [name for name in PRESETS if f"**{name}**:" not in text] == []
    for name in PRESETS:
        assert plan_of(name, POLICIES).preset == name


def test_unknown_presets_are_refused_with_the_nearest() -> None:
    with pytest.raises(WorldError, match="unknown preset 'drifts'; nearest: drift"):
        plan_of("drifts", ())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fatigue", "new-arrivals"])
def test_a_preset_can_be_played(name: str, tmp_path: Path) -> None:
    plan = replace(plan_of(name, ("ucb1",)), seeds=2, impressions=400, creatives=4, batch=100)
    played = run_synthetic(plan, tmp_path)
    assert [row.policy for row in played] == ["engine", "ucb1", "uniform", "oracle"]
    assert played[-1].of_uniform == pytest.approx(0, abs=1e-12)
    assert f"Synthetic worlds: {name}" in (tmp_path / "report.html").read_text()
    with pytest.raises(ResultsExistError, match=r"has results.csv, report.html already"):
        run_synthetic(plan, tmp_path)
