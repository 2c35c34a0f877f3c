"""An archive's run from file to results: every row is there, and tuning chooses what was best."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from encoders import TextEncoder
from simulations.errors import ResultsExistError
from simulations.experiments.archive_run import run_archive
from simulations.experiments.archive_tuning import run_tuning
from simulations.policies.registry import ON_LOGITS, grid_of
from simulations.policies.settings import engine_setting, setting
from simulations.sweep import Workers
from tests.paths import TINY

POLICIES = (engine_setting(kappa=0.3), setting("ucb1", scale=0.03))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty tests of three headlines, most of them in the weeks of faulty randomisation."""
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("archive") / "packages.csv.gz"
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("test_id", "week", "headline", "impressions", "clicks"))
        for test in range(30):
            for variant in range(3):
                clicks = random.binomial(3_000, 0.02 + 0.02 * variant)
                row = (
                    f"t{test:02d}",
                    201322 + test if test < 27 else 201410,
                    f"shoes {test} in colour {variant}",
                    3_000,
                    clicks,
                )
                writer.writerow(row)
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_rows_for_policies_ablations_and_cold_start(archive: Path, tmp_path: Path) -> None:
    scores = run_archive(
        archive,
        tmp_path,
        settings=POLICIES,
        has_ablations=True,
        has_cold_start=True,
        encoder=TextEncoder(TINY),
    )
    rows = read(tmp_path / "results.csv")
    assert len(rows) == len(scores)
    assert (tmp_path / "report.html").stat().st_size > 10_000
    of_all = [row for row in rows if row["weeks"] == "all"]
    of_engine = {row["setting"] for row in of_all if row["policy"] == "engine"}
    labels = {
        "without text",
        "without arm effects",
        "without campaign effects",
        "32 components",
        "128 components",
        "cold start",
        "cold start, scales learnt",
    }
    expected = {engine_setting(one).setting_id for one in labels}
    expected |= {engine_setting("ablation", kappa=kappa).setting_id for kappa in (0.3, 3.0)}
    expected |= {engine_setting("lookahead sampling", kappa=0.3, optimism=0, noise=1).setting_id}
    assert of_engine == expected | {POLICIES[0].setting_id}
    # Each at three lengths of a test; two more rows are the uniform policy and the oracle.
    assert len(of_all) == 3 * (len(of_engine) + 1 + 2)
    assert {row["tests"] for row in of_all} == {"18"}
    assert all(np.isfinite(float(row["share_of_lift"])) for row in rows)
    assert {row["policy"] for row in rows if row["weeks"] == "sound"} == {
        "engine",
        "ucb1",
        "uniform",
        "oracle",
    }


@pytest.mark.slow
def test_tuning_marks_the_setting_that_is_best_over_all_lengths(archive: Path, tmp_path: Path) -> None:
    tried = run_tuning(archive, tmp_path, policies=("ucb1",), encoder=TextEncoder(TINY))
    rows = read(tmp_path / "tuning.csv")
    assert [row["setting"] for row in rows[::3]] == [one.setting_id for one in grid_of("ucb1", ON_LOGITS)]
    assert [row["T"] for row in rows[:3]] == ["100", "400", "1000"]
    means = {
        one.setting: np.mean([row.share_of_lift for row in tried if row.setting == one.setting])
        for one in tried
    }
    assert {row.setting for row in tried if row.is_chosen} == {max(means, key=means.__getitem__)}
    for row in tried:
        assert row.mean_share == pytest.approx(means[row.setting])
        assert row.tests == 6


@pytest.mark.slow
def test_two_processes_give_the_same_results_and_nothing_is_played_twice(
    archive: Path, tmp_path: Path
) -> None:
    encoder = TextEncoder(TINY)
    scores = run_archive(archive, tmp_path / "here", settings=POLICIES, encoder=encoder)
    workers = Workers(engine="local", n_workers=2)
    # The cells of a run that was stopped after it had played one policy.
    run_archive(archive, tmp_path / "local", settings=POLICIES[:1], encoder=encoder)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "local" / "cells").iterdir()}
    with pytest.raises(ResultsExistError, match=r"has results\.csv, report\.html already"):
        run_archive(archive, tmp_path / "local", settings=POLICIES, encoder=encoder)
    again = run_archive(
        *(archive, tmp_path / "local"), settings=POLICIES, encoder=encoder, workers=workers, overwrite=True
    )
    assert again == scores
    assert len(kept) == 6, "one policy, three lengths, both choices of weeks"
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
