"""The command `creative-bandit`: the engine's commands, and `simulate`, `evaluate` and `demo` beside them.

In: words of a shell.
Out: lines and files, and an exit code.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from bandit.cli import (
    campaigns,
    creatives,
    databases,
    decisions,
    doctor,
    encoding,
    explaining,
    importing,
    learning,
    models,
    swapping,
    tuning,
)
from bandit.cli.options import example, group, show_help
from bandit.cli.printing import print_error, print_line
from simulations.cli import evaluate, simulate, simulate_files

NAME = "creative-bandit"
# A package whose errors have not been imported has raised none of them.
ROOTS = (
    ("bandit.errors", "BanditError"),
    ("encoders.errors", "EncoderError"),
    ("simulations.errors", "SimulationError"),
    ("storage.errors", "StorageError"),
)
# What a mistyped path raises.
PATH_ERRORS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)

app = group(invoke_without_command=True, epilog=example("demo", "campaign add spring-sale", "doctor"))


@app.callback()
def start(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Choose ad creatives by a contextual bandit over BERT features, with its state in SQL.

    Errors are one line on standard error, and the exit code is 2.
    """
    if version:
        from importlib.metadata import version as version_of

        print_line(f"{NAME} {version_of(NAME)}")
        raise typer.Exit(0)
    show_help(context)


app.add_typer(simulate.demo_app)
app.add_typer(campaigns.app, name="campaign", help="Add, pause and resume campaigns.")
app.add_typer(creatives.app, name="creative", help="Add, pause, resume and retire creatives.")
app.add_typer(decisions.app)
app.add_typer(explaining.app)
app.add_typer(encoding.app)
app.add_typer(importing.app)
app.add_typer(learning.app)
app.add_typer(models.app)
simulate.app.add_typer(simulate_files.app)
app.add_typer(simulate.app, name="simulate", help="Try policies on simulated or past traffic.")
app.add_typer(evaluate.app)
app.add_typer(databases.app, name="storage", help="Upgrade and check a database.")
app.add_typer(tuning.app)
app.add_typer(swapping.app)
app.add_typer(doctor.app)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; None means those of the process.

    Returns:
        The exit code: 0, 1 when a check found something wrong, 2 for an error, 130 after Ctrl-C.
    """
    command = typer.main.get_command(app)
    try:
        code = command.main(args=None if argv is None else list(argv), prog_name=NAME, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        print_error(message)
        return 2
    return code if isinstance(code, int) else 0


def _message(error: Exception) -> str | None:
    """Return what to tell the user; None for an error that nobody expected."""
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        hint = f"; see {context.command_path} --help" if context is not None else ""
        return " ".join(error.format_message().rstrip(".").split()) + hint
    if isinstance(error, _roots()):
        return str(error)
    if isinstance(error, PATH_ERRORS) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or type(error).__name__).lower()}"
    return None


def _roots() -> tuple[type[Exception], ...]:
    return tuple(getattr(sys.modules[module], name) for module, name in ROOTS if module in sys.modules)
