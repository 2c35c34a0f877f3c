"""A tuning that is killed goes on from its last whole epoch, and ends as if it had not been."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from encoders.errors import TuningError
from encoders.tuning import PastCampaign, TuningReport, TuningSettings, tune
from encoders.tuning.unfinished import Unfinished, place_of, read_unfinished, write_unfinished
from tests.encoders.tuning.worlds import planted

ROOT = Path(__file__).parents[3]
TINY = Path(__file__).parents[1] / "tiny-bert"
SCRIPT = """
import sys
from pathlib import Path
from encoders.tuning import TuningSettings, tune
from tests.encoders.tuning.test_unfinished import HISTORY, SETTINGS, TINY
def told(epoch):
    print(epoch.epoch, flush=True)
tune(HISTORY, Path(sys.argv[1]), SETTINGS[sys.argv[2]], TINY, told)
"""
HISTORY = planted(60, seed=0)
SETTINGS = {
    name: TuningSettings(method=name, rank=4, epochs=5, learning_rate=3e-3, held_out=0.25)
    for name in ("last", "lora")
}
TASK = {"settings": "a", "campaigns": "b"}


def _tune(out: Path, method: str, told: list[int] | None = None) -> TuningReport:
    notes = [] if told is None else told
    return tune(HISTORY, out, SETTINGS[method], TINY, lambda epoch: notes.append(epoch.epoch))


@pytest.mark.parametrize("method", ["last", "lora"])
def test_a_killed_tuning_ends_with_the_same_bytes(method: str, tmp_path: Path) -> None:
    out, whole = tmp_path / "killed" / "tuned", tmp_path / "whole"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(out), method], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "2\n":
            process.kill()
            break
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    assert place_of(out).is_file()
    told: list[int] = []
    report = _tune(out, method, told)
    assert report.went_on_after in (2, 3)  # whatever was whole when the signal came
    assert told == [0, 1, 2, 3, 4, 5]
    assert _tune(whole, method).went_on_after is None
    names = {path.name for path in whole.iterdir()}
    assert {"model.safetensors", "tuning.json", "epochs.csv"} < names
    assert {path.name for path in out.iterdir()} == names
    for name in names:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert [path.name for path in out.parent.iterdir()] == ["tuned"]  # what was kept is gone
    lines = (whole / "epochs.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,stopping_gain,is_kept"
    assert len(lines) == 1 + 6
    assert [line.split(",")[0] for line in lines if line.endswith("true")] == [str(report.kept)]


def _stopped(out: Path) -> None:
    def stop(epoch: object) -> None:
        if getattr(epoch, "epoch", 0) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(HISTORY, out, SETTINGS["last"], TINY, stop)


def test_another_tuning_does_not_go_on(tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    _stopped(out)
    other = TuningSettings(method="last", epochs=5, learning_rate=1e-3, held_out=0.25)
    with pytest.raises(
        TuningError, match=r"tuned\.unfinished is an unfinished tuning with settings that differ"
    ):
        tune(HISTORY, out, other, TINY)
    with pytest.raises(TuningError, match="with campaigns that differ; repeat its command"):
        tune(
            [*HISTORY, PastCampaign("x", ({"headline": "x"},), np.ones(1), np.ones(1))],
            out,
            SETTINGS["last"],
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
