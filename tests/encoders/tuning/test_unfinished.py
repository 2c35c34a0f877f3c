"""A tuning that is killed goes on from its last whole epoch, and ends as if it had not been."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encoders.errors import TuningError
from encoders.tuning import PastCampaign, TuningReport, TuningSettings, tune
from encoders.tuning.fitting import Progress
from encoders.tuning.head import Head
from encoders.tuning.model import Tunable
from encoders.tuning.parameters import low_rank
from encoders.tuning.report import Epoch
from encoders.tuning.training import Stage
from encoders.tuning.unfinished import (
    Unfinished,
    collected,
    place_of,
    read_unfinished,
    restored,
    write_unfinished,
)
from tests.encoders.tuning.worlds import planted
from tests.paths import ROOT, TINY

SCRIPT = """
import os, signal, sys, threading
from pathlib import Path
from bandit.jax_runtime import keep_compiled_programs
from encoders.tuning import tune
from tests.encoders.tuning.test_unfinished import HISTORY, SETTINGS, TINY
keep_compiled_programs()
def told(epoch):
    if epoch.epoch == 2:
        threading.Timer(0.002, os.kill, (os.getpid(), signal.SIGKILL)).start()
tune(HISTORY, Path(sys.argv[1]), SETTINGS, TINY, told)
"""
N_EPOCHS = 12
HISTORY = planted(60, seed=0)
# Half a step is left after an epoch of three batches.
SETTINGS = TuningSettings(epochs=N_EPOCHS, learning_rate=3e-3, held_out=0.25, accumulate=2, mask=0.1)
TASK = {"settings": "a", "campaigns": "b"}


def _tune(out: Path, told: list[int]) -> TuningReport:
    return tune(HISTORY, out, SETTINGS, TINY, lambda epoch: told.append(epoch.epoch))


@pytest.mark.kills
@pytest.mark.slow
def test_a_killed_tuning_ends_with_the_same_bytes(tmp_path: Path) -> None:
    out, whole = tmp_path / "killed" / "tuned", tmp_path / "whole"
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(out)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    assert place_of(out).is_file()
    told: list[int] = []
    report = _tune(out, told)
    assert report.went_on_after in range(2, N_EPOCHS)  # whatever was whole when the signal came
    assert told == list(range(N_EPOCHS + 1))
    assert _tune(whole, []).went_on_after is None
    names = {path.name for path in whole.iterdir()}
    assert {"model.safetensors", "tuning.json", "epochs.csv"} < names
    assert {path.name for path in out.iterdir()} == names
    for name in names:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert [path.name for path in out.parent.iterdir()] == ["tuned"]  # what was kept is gone
    lines = (whole / "epochs.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,stopping_gain,is_kept"
    assert len(lines) == 1 + N_EPOCHS + 1
    assert [line.split(",")[0] for line in lines if line.endswith("true")] == [str(report.kept)]


def _stopped(out: Path) -> None:
    def stop(epoch: object) -> None:
        if getattr(epoch, "epoch", 0) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(HISTORY, out, SETTINGS, TINY, stop)


def test_another_tuning_does_not_go_on(tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    _stopped(out)
    other = TuningSettings(epochs=N_EPOCHS, learning_rate=1e-3, held_out=0.25)
    with pytest.raises(
        TuningError, match=r"tuned\.unfinished is an unfinished tuning with settings that differ"
    ):
        tune(HISTORY, out, other, TINY)
    with pytest.raises(TuningError, match="with campaigns that differ; repeat its command"):
        tune(
            [*HISTORY, PastCampaign("x", ({"headline": "x"},), np.ones(1), np.ones(1))],
            out,
            SETTINGS,
            TINY,
        )


def test_what_is_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.unfinished"
    assert read_unfinished(path, TASK) is None
    arrays = {
        "many": [np.full(i, i, np.float32) for i in range(1, 13)],
        "count": [np.array(7, np.int32)],
        "no": [],
    }
    write_unfinished(path, TASK, Unfinished({"scale": 0.1}, arrays))
    found = read_unfinished(path, TASK)
    assert found is not None
    assert found.notes == {"scale": 0.1}
    for name, leaves in found.arrays.items():
        assert len(leaves) == len(arrays[name])
        for ours, theirs in zip(leaves, arrays[name], strict=True):
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
            np.testing.assert_array_equal(ours, theirs)


def test_low_rank_additions_come_back_as_they_were() -> None:
    parameters = {f"layers.{i}.a.kernel": jnp.ones((6, 4)) for i in range(12)}
    trained = low_rank(parameters, 2, jax.random.key(0))
    tunable = Tunable(trained.initial, jnp.arange(6.0).reshape(2, 3))
    best = jax.tree.map(lambda leaf: leaf + 1, tunable)
    stage = Stage(1, tunable, [np.zeros(2)])
    epochs = (Epoch(epoch=0, loss=None, stopping_gain=0.1), Epoch(epoch=1, loss=0.3, stopping_gain=0.2))
    heads = [Head(np.arange(3.0), 0.4), Head(np.arange(3.0, 6.0), 0.2)]
    found = restored(collected(Progress(heads, stage, best, epochs)), trained)
    assert [head.scale for head in found.heads] == [0.4, 0.2]
    np.testing.assert_array_equal(found.heads[1].weights, heads[1].weights)
    assert (found.stage.epoch, found.epochs) == (1, epochs)
    for ours, theirs in ((found.stage.tunable, tunable), (found.best, best)):
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.unfinished"
    path.write_bytes(content)
    with pytest.raises(TuningError, match=rf"{path} is no unfinished tuning .*; remove it to start anew"):
        read_unfinished(path, TASK)


def test_a_full_disk_leaves_the_epochs_before(tmp_path: Path) -> None:
    path = tmp_path / "a.unfinished"
    write_unfinished(path, TASK, Unfinished({"epoch": 1}, {"a": [np.zeros(3)]}))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    try:
        with pytest.raises(TuningError, match=r"cannot be written: .*; the epochs before are kept there"):
            write_unfinished(path, TASK, Unfinished({"epoch": 2}, {"a": [np.zeros(3_000)]}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    found = read_unfinished(path, TASK)
    assert found is not None
    assert found.notes == {"epoch": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["a.unfinished"]
