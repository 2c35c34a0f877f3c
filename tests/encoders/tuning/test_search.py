"""The search goes on where it was stopped, takes the best trial, and refuses what is not its own."""

import json
import sqlite3
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from encoders.errors import TuningError
from encoders.tuning import Trial, TuningSettings, search_and_tune
from encoders.tuning.fitting import load
from encoders.tuning.search import STUDY, _ranges, _search, _study, study_of
from encoders.tuning.tune import task_of
from tests.encoders.tuning.worlds import planted
from tests.paths import TINY

HISTORY = planted(40, seed=0)  # 10 are held out, and 9 of the other 30 judge
SETTINGS = TuningSettings(layers=1, epochs=1, learning_rate=3e-3, held_out=0.25)


@pytest.mark.slow
def test_a_stopped_search_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """Not even as one with other counts on the held-out campaigns, but for the report on these."""
    out, whole = tmp_path / "stopped", tmp_path / "whole"

    def stop(trial: Trial) -> None:
        if trial.number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search_and_tune(HISTORY, out, SETTINGS, 2, TINY, told_trial=stop)
    # As a killed process leaves it: a trial that began.
    with sqlite3.connect(study_of(out)) as study:
        study.execute("UPDATE trials SET state = 'RUNNING' WHERE number = 1")
    with pytest.raises(
        TuningError, match=r"stopped\.search\.db is a search with settings that differ; repeat"
    ):
        search_and_tune(HISTORY, out, replace(SETTINGS, mask=0.1), 2, TINY)
    told: list[Trial] = []
    found, report = search_and_tune(HISTORY, out, SETTINGS, 2, TINY, told_trial=told.append)
    turned = [each._replace(clicks=each.clicks[::-1].copy()) for each in HISTORY[30:]]
    unbroken, their_report = search_and_tune([*HISTORY[:30], *turned], whole, SETTINGS, 2, TINY)
    assert [trial.number for trial in told] == [0, 2]  # trial 1 was begun anew
    assert told == found.trials
    assert [(trial.settings, trial.gain) for trial in found.trials] == [
        (trial.settings, trial.gain) for trial in unbroken.trials
    ]
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert report.measures != their_report.measures
    assert {path.name for path in tmp_path.iterdir()} == {"stopped", "whole"}

    assert found.trials[0].settings == {"learning_rate": 3e-3, "dropout": 0.1}  # as given
    best = max(found.trials, key=lambda trial: trial.gain)
    assert found.best == best.number
    written = json.loads((out / "tuning.json").read_text())["settings"]
    for settings in (asdict(found.settings), written):
        assert best.settings == {name: settings[name] for name in best.settings}
    assert (found.campaigns, report.campaigns["held_out"]) == ({"training": 21, "judging": 9}, 10)
    with sqlite3.connect(out / STUDY) as study:
        assert study.execute("SELECT count(*) FROM trials").fetchone() == (3,)


@pytest.mark.slow
def test_a_trial_below_the_median_is_given_up(tmp_path: Path) -> None:
    out, settings = tmp_path / "out", replace(SETTINGS, epochs=2)
    study = _study(study_of(out), task_of(HISTORY, settings, load(TINY)))
    ranges = _ranges(load(TINY), settings)
    for number in range(5):
        trial = study.ask(fixed_distributions=ranges)
        trial.report(1e6, 1)
        study.tell(trial, 1e6 + number)
    found = _search(HISTORY, out, settings, 6, TINY, lambda _: None)
    assert [trial.is_pruned for trial in found.trials] == [False] * 5 + [True]
    assert found.trials[5].gain < 100  # that of its one epoch
    assert (found.best, found.settings.learning_rate) == (4, trial.params["learning_rate"])


def test_ranges_hold_what_was_given_and_fit_the_model() -> None:
    given = TuningSettings(method="lora", rank=1, learning_rate=3e-3, dropout=0.5)
    ranges = _ranges(load(TINY), given)
    found = {name: (distribution.low, distribution.high) for name, distribution in ranges.items()}
    assert found == {"learning_rate": (1e-5, 3e-3), "dropout": (0.0, 0.5), "rank": (1, 23)}


def test_what_is_no_study_is_left_alone(tmp_path: Path) -> None:
    path = study_of(tmp_path / "out")
    path.write_text("not a database, and longer than the header of one would be" * 10)
    with pytest.raises(TuningError, match=rf"{path} is no study of Optuna .*; remove it to start anew"):
        search_and_tune(HISTORY, tmp_path / "out", SETTINGS, 1, TINY)
    with pytest.raises(TuningError, match="trials 0: expected 1 or more"):
        search_and_tune(HISTORY, tmp_path / "other", SETTINGS, 0, TINY)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_without_optuna_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)  # what Python itself does for "not there"
    with pytest.raises(TuningError, match=r"needs Optuna, .*: pip install 'creative-bandit\[search\]'"):
        search_and_tune(HISTORY, tmp_path / "out", SETTINGS, 1, TINY)
