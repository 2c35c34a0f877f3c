"""Every command explains itself; the program as a process: its exit codes, streams and speed."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

from simulations.cli import NAME, app, main
from tests.bandit.cli.conftest import Run
from tests.paths import ROOT

PROGRAM = [sys.executable, "-c", "import sys; from simulations.cli import main; sys.exit(main())"]


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands below one, with the words that name them."""
    for name, below in getattr(command, "commands", {}).items():
        if hasattr(below, "commands"):
            yield from commands(below, (*words, name))
        else:
            yield (*words, name), below


COMMANDS = dict(commands(typer.main.get_command(app)))


def start(*argv: str, **settings: Any) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*PROGRAM, *argv], env=environment, text=True, **pipes, **settings)


def test_all_commands_are_there() -> None:
    assert {" ".join(words) for words in COMMANDS} == {
        *("demo", "select", "update", "settle", "arms", "encode", "import", "doctor", "simulate archive"),
        *("simulate classification", "simulate log", "simulate synthetic", "explain", "model"),
        *("configure", "learn", "evaluate", "tune", "swap-encoder"),
        *("campaign add", "campaign pause", "campaign resume", "storage upgrade", "storage check"),
        *("storage prune", "storage export", "storage import", "storage backup"),
        *("creative add", "creative limit", "creative pause", "creative resume", "creative retire"),
    }


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_examples_can_be_typed(words: tuple[str, ...], run: Run) -> None:
    answer = run(*words, "--help")
    assert answer.code == 0
    assert f"{NAME} {' '.join(words)}" in answer.out.split("Example")[-1]
    examples = COMMANDS[words].epilog.splitlines()[1:]
    for example in examples:
        name, *typed = shlex.split(example)
        assert (name, tuple(typed[: len(words)])) == (NAME, words)
        COMMANDS[words].make_context(NAME, typed[len(words) :])


@pytest.mark.parametrize("words", [(), ("campaign",), ("creative",), ("storage",), ("simulate",)])
def test_a_group_without_a_command_shows_its_help(words: tuple[str, ...], run: Run) -> None:
    answer = run(*words)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == run(*words, "--help").out
    assert f"Usage: {' '.join([NAME, *words])}" in answer.out


def test_version(run: Run) -> None:
    assert run("--version").out == f"{NAME} {version(NAME)}\n"


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from simulations.cli import main; main(['--help']); "
        "heavy = {'jax', 'sqlalchemy', 'numpy'} & set(sys.modules); "
        "heavy |= {name for name in sys.modules if name.startswith('simulations.') and '.cli' not in name}; "
        "sys.exit(str(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr == "set()\n"


def test_the_public_names_are_all_there() -> None:
    import bandit

    assert set(bandit.__all__) <= set(dir(bandit))
    for name in bandit.__all__:
        assert getattr(bandit, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Enigne'"):
        _ = bandit.Enigne


def test_an_error_of_a_process() -> None:
    with start("arms", "spring-sale", "-d", "no.db") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("error: there is no creative-bandit database at sqlite:///no.db;")
    assert err.count("\n") == 1


def test_nobody_expected_this_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its traceback is what a report of the fault needs."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr("storage.Store.open", fail)
    with pytest.raises(ZeroDivisionError, match="a fault of ours"):
        main(["storage", "check"])
    assert capsys.readouterr().err == ""


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c(tmp_path: Path) -> None:
    """It arrives while the command waits to open a pipe that nobody writes."""
    pipe = tmp_path / "history.csv"
    os.mkfifo(pipe)
    # Opening the other end returns once the command has opened its own; then it is inside.
    # A shell's background job ignores interrupts, and so would its children.
    with start("import", str(pipe), preexec_fn=_heed_interrupts) as process, pipe.open("w"):
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "")
