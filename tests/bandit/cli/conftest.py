"""The command line on a database of its own, with the tiny BERT as its encoder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bandit import Creative, Engine
from simulations.cli import main
from tests.paths import TINY

CREATIVES = [
    Creative("calm", headline="Free returns, always"),
    Creative("urgent", headline="48-hour flash sale", call_to_action="Buy now"),
]


class Answer(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line of an error."""
        assert (self.code, self.out) == (2, ""), self
        assert self.err.startswith("error: ")
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("error: ").rstrip("\n")

    @property
    def error_lines(self) -> list[str]:
        """The lines of an error with a list."""
        assert (self.code, self.out) == (2, ""), self
        return self.err.removeprefix("error: ").splitlines()


Run = Callable[..., Answer]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the campaigns spring-sale (window 0, two creatives) and empty."""
    path = tmp_path_factory.mktemp("cli") / "ads.db"
    with Engine.open(path, learn="manual", encoder=TINY) as engine:
        engine.add_campaign("spring-sale", attribution_window=0)
        engine.add_creatives("spring-sale", CREATIVES)
        engine.add_campaign("empty")
    return path


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREATIVE_BANDIT_ENCODER", str(TINY))
    monkeypatch.delenv("CREATIVE_BANDIT_DATABASE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ads(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the prepared database, where the commands look for it by default."""
    return Path(shutil.copy(prepared, tmp_path / "ads.db"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""

    def run(*argv: object) -> Answer:
        capsys.readouterr()
        code = main([str(argument) for argument in argv])
        return Answer(code, *capsys.readouterr())

    return run
