"""Tables with labels: what is read, what is refused, and that policies with contexts learn what is there."""

import csv
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from bandit.jax_runtime import double_precision
from simulations.cli import main
from simulations.experiments.classification import GRIDS, SETTINGS, play_labelled
from simulations.experiments.classification_run import run_classification, score_of
from simulations.policies.engine import design_of_labels
from simulations.worlds.labelled import LabelError, Labelled, read_labelled

N = 600


def some_table(n_labels: int = 3, n_rows: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Labels that are the largest of some linear scores."""
    rng = np.random.default_rng(5)
    table = rng.normal(size=(n_rows, 4))
    return table, np.argmax(table @ rng.normal(size=(4, n_labels)), axis=1)


def written(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def test_a_table_is_standardised_and_its_labels_named(tmp_path: Path) -> None:
    table, label = some_table()
    table = np.column_stack([5 + 2 * table, np.full(N, 3.0)])
    table[0, 0] = 1e6  # an absurd value
    names = np.array(["shoes", "hats", "gloves"])
    found = read_labelled(written(tmp_path / "table.npz", X=table, y=names[label], more=np.zeros(2)))
    assert found.labels == ("gloves", "hats", "shoes")
    assert [found.labels[i] for i in found.label[:5]] == names[label[:5]].tolist()
    assert found.features.shape == (N, 4)  # the one that never varies is gone
    assert found.features[0, 0] == 4
    expected = (table[:, 1] - table[:, 1].mean()) / table[:, 1].std()
    assert_allclose(found.features[:, 1], expected.clip(-4, 4))
    for kind in (int, bool, np.uint8, np.float32):
        typed = read_labelled(
            written(tmp_path / "typed.npz", X=table.astype(kind), y=(label > 0).astype(kind))
        )
        assert len(typed.labels) == 2


TABLE, LABEL = some_table()


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (lambda path: path.write_bytes(b""), "expected an .npz with numbers X and labels y"),
        (lambda path: path.write_text("a,b\n"), "expected an .npz with numbers X and labels y"),
        (lambda path: path.write_bytes(b"PK\x03\x04 cut"), "expected an .npz with numbers X and labels y"),
        (lambda path: np.save(path.open("wb"), TABLE), "expected an .npz with numbers X and labels y"),
        (lambda path: np.savez(path, X=TABLE), "these arrays are missing: y; it has X"),
        (lambda path: np.savez(path, data=TABLE), "these arrays are missing: X, y; it has data"),
        (lambda path: np.savez(path, X=TABLE, y=np.array([{}] * N)), "expected an .npz with numbers X"),
        (
            lambda path: np.savez(path, X=TABLE[0], y=LABEL),
            "expected X to be [rows, features], got the shape (4,)",
        ),
        (lambda path: np.savez(path, X=TABLE[:0], y=LABEL[:0]), "got the shape (0, 4)"),
        (lambda path: np.savez(path, X=TABLE.astype(str), y=LABEL), "expected X to be numbers, got <U"),
        (
            lambda path: np.savez(path, X=np.where(TABLE > 1, np.nan, TABLE), y=LABEL),
            "rows of X have a number",
        ),
        (lambda path: np.savez(path, X=TABLE, y=LABEL[:9]), "X has 600 rows and y has 9"),
        (lambda path: np.savez(path, X=TABLE, y=LABEL[:, None]), "got int64 of shape (600, 1)"),
        (lambda path: np.savez(path, X=TABLE, y=np.zeros(N)), "expected at least 2 labels in y, got 1"),
        (lambda path: np.savez(path, X=TABLE, y=np.where(LABEL, np.inf, 1)), "labels are not finite"),
        (
            lambda path: np.savez(path, X=np.tile(TABLE, 100), y=np.arange(N)),
            "600 labels and 400 columns that vary make a model of 241,001 weights, at most 1,600",
        ),
    ],
)
def test_bad_files(tmp_path: Path, write: Callable[[Path], object], problem: str) -> None:
    path = tmp_path / "table.npz"
    write(path)
    with pytest.raises(LabelError) as raised:
        read_labelled(path)
    assert problem in str(raised.value)


def test_all_problems_at_once(tmp_path: Path) -> None:
    with pytest.raises(LabelError) as raised:
        read_labelled(written(tmp_path / "table.npz", X=TABLE[0], y=np.zeros((2, 2))))
    assert str(raised.value).count("\n  ") == 3


def test_a_label_has_its_own_place_in_its_row() -> None:
    with double_precision():
        rows = np.asarray(jnp.array([1.0, 2.0, 3.0]) @ design_of_labels(2, 3).loading)
    assert rows.tolist() == [[1, 2, 3, 1, 2, 3, 0, 0, 0], [1, 2, 3, 0, 0, 0, 1, 2, 3]]


def played(name: str, table: Labelled, seeds: range = range(2)) -> np.ndarray:
    return play_labelled(table, SETTINGS[name], N, seeds=seeds, batch=50).earned.sum(axis=1) / N


@pytest.mark.slow
def test_policies_with_contexts_learn_the_labels_and_others_cannot() -> None:
    table = Labelled(TABLE, LABEL, ("a", "b", "c"))
    most = np.bincount(LABEL).max() / N
    for name in ("engine", "lin-ucb", "lin-ts", "logistic-ts"):
        assert played(name, table).mean() > most + 0.15, name
    assert played("beta-thompson", table).mean() < most + 0.05
    assert abs(played("uniform", table).mean() - 1 / 3) < 0.06


def test_seeds_are_orders_of_the_same_rows() -> None:
    table = Labelled(TABLE, LABEL, ("a", "b", "c"))
    both = play_labelled(table, SETTINGS["uniform"], N, seeds=(3, 4), batch=50)
    alone = play_labelled(table, SETTINGS["uniform"], N, seeds=(4,), batch=50)
    assert np.array_equal(both.earned[1], alone.earned[0])
    assert not np.array_equal(both.earned[0], both.earned[1])
    assert np.all(both.best == 50)
    assert_allclose(both.uniform, 50 / 3)


@pytest.mark.slow
def test_labels_without_anything_to_learn_from() -> None:
    """Columns that never vary leave the engine with the labels' shares alone."""
    table = Labelled(np.zeros((N, 0)), np.arange(N) % 4 // 3, ("often", "rare"))
    assert played("engine", table).mean() > 0.68  # three of four


def test_the_row_of_results_is_paired() -> None:
    table = Labelled(TABLE, LABEL, ("a", "b", "c"))
    one, other = (
        play_labelled(table, SETTINGS[name], N, seeds=range(2), batch=50) for name in ("uniform", "lin-ucb")
    )
    found = score_of(one, other)
    right = [played.earned.sum(axis=1) / N for played in (one, other)]
    assert found.behind_engine == pytest.approx((right[1] - right[0]).mean())
    assert found.behind_engine_error == pytest.approx((right[1] - right[0]).std(ddof=1) / 2**0.5)
    assert found.late == pytest.approx(one.earned[:, 9:].sum(axis=1).mean() / 150)


@pytest.mark.slow
def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = str(written(tmp_path / "table.npz", X=TABLE, y=LABEL))
    command = ["simulate", "classification", file, "--out", str(tmp_path / "out"), "--policies", "uniform"]
    assert main([*command, "--seeds", "2", "--impressions", "200"]) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    assert [(row["policy"], row["rows"]) for row in rows] == [("engine", "200"), ("uniform", "200")]
    assert "points" in capfd.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "How often each policy was right" in page
    assert {"regret", "lift", "traffic", "calibration", "probabilities"} == {
        picture.stem for picture in (tmp_path / "out" / "report-figures").iterdir()
    }
    for more, problem in (
        (["--policies", "ucb7"], "unknown policy 'ucb7'; nearest: "),
        (["--seeds", "0"], "expected 1 to 1,000 seeds, got 0"),
        (["--seeds", "1"], "has results.csv, report.html already"),
        (
            ["--impressions", "601", "--overwrite"],
            "expected 1 <= batch <= impressions <= 600, the rows of the table",
        ),
        (["--batch", "0", "--overwrite"], "got batch=0"),
    ):
        assert main([*command, *more]) == 2
        assert problem in capfd.readouterr().err
    assert main(["simulate", "classification", "no.npz", "--out", str(tmp_path)]) == 2
    assert "no.npz: no such file or directory" in capfd.readouterr().err


@pytest.mark.slow
def test_a_baseline_is_tuned_on_other_orders_of_the_rows(tmp_path: Path) -> None:
    scores = run_classification(
        written(tmp_path / "table.npz", X=TABLE, y=LABEL),
        tmp_path / "out",
        policies=["ucb1", "beta-thompson"],
        seeds=2,
        impressions=200,
        batch=50,
        is_tuned=True,
    )
    trials = list(csv.DictReader((tmp_path / "out" / "tuning.csv").open()))
    assert [trial["setting"] for trial in trials] == [one.setting_id for one in GRIDS["ucb1"]]
    best = min(trials, key=lambda trial: float(trial["of_uniform"]))
    assert scores[1].setting == best["setting"]
    assert scores[0].setting == SETTINGS["engine"].setting_id, "the engine plays as it is shipped"
    assert {len(one) for one in GRIDS.values()} == {16}
