"""Options that several commands share, and how their values are read."""

import json
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

import typer

ENVIRONMENT_VARIABLE = "CREATIVE_BANDIT_DATABASE"
DEFAULT_DATABASE = "ads.db"
_KINDS = "an SQLite file, or a URL such as postgresql://user@host/database"
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

Database = Annotated[
    str,
    typer.Option(
        "--database", "-d", metavar="URL", envvar=ENVIRONMENT_VARIABLE, help=f"The database: {_KINDS}."
    ),
]
DatabaseArgument = Annotated[
    str, typer.Argument(metavar="URL", envvar=ENVIRONMENT_VARIABLE, help=f"The database: {_KINDS}.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Campaign = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="The campaign's name.")]


def example(*commands: str) -> str:
    """Return the end of a command's help: how it is typed."""
    plural = "Example" if len(commands) == 1 else "Examples"
    return "\n".join([f"{plural}:", *(f"  creative-bandit {command}" for command in commands)])


def show_help(context: typer.Context) -> None:
    """Show the help of a group that was called without a command."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(0)


def group(**settings: Any) -> typer.Typer:
    """Return a group of commands."""
    return typer.Typer(
        rich_markup_mode="rich", add_completion=False, pretty_exceptions_enable=False, **settings
    )


def parse_context(items: Iterable[str]) -> dict[str, Any]:
    """Read `--context NAME=VALUE` items.

    A value that is JSON means what JSON says, so that numbers and booleans need no further syntax; all else
    is a string. The engine checks what may be in a context.

    Raises:
        typer.BadParameter: An item has no name or no value, or a name comes twice.

    Example:
        >>> parse_context(["device=mobile", "age=31", "new=true", 'zip="02134"'])
        {'device': 'mobile', 'age': 31, 'new': True, 'zip': '02134'}
    """
    context: dict[str, Any] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise typer.BadParameter(
                f"expected NAME=VALUE, such as device=mobile, got {item!r}", param_hint="--context"
            )
        if name in context:
            raise typer.BadParameter(
                f"the field {name!r} is given twice: {context[name]!r} and {value!r}", param_hint="--context"
            )
        context[name] = _json_or_text(value)
    return context


def parse_horizon(text: str) -> int | Literal["auto"] | None:
    """Read a horizon: a whole number, "auto", or "none" for a campaign without an end.

    Raises:
        typer.BadParameter: It is none of these.
    """
    if text == "auto":
        return "auto"
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"expected a whole number of impressions, 'auto' or 'none', got {text!r}", param_hint="--horizon"
        ) from error


def parse_number(text: str, option: str) -> float:
    """Read a number; what it may be is the engine's to say.

    Args:
        text: The number.
        option: Where it was given, for the error.

    Raises:
        typer.BadParameter: It is none; unlike typer's own message, this one says what came.
    """
    try:
        return float(text)
    except ValueError as error:
        raise typer.BadParameter(f"expected a number, got {text!r}", param_hint=option) from error


def parse_fraction(text: str, option: str) -> float:
    """Read a fraction from 0 to 1, likewise.

    Args:
        text: The number.
        option: Where it was given, for the error.

    Raises:
        typer.BadParameter: It is none.
    """
    number = parse_number(text, option)
    if not 0 <= number <= 1:  # NaN fails too
        raise typer.BadParameter(f"expected a fraction from 0 to 1, got {text!r}", param_hint=option)
    return number


def parse_integer(text: str, option: str) -> int:
    """Read a whole number from 0, likewise.

    Args:
        text: The number.
        option: Where it was given, for the error.

    Raises:
        typer.BadParameter: It is none, or negative.
    """
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise typer.BadParameter(f"expected a whole number from 0, got {text!r}", param_hint=option)
    return number


def parse_duration(text: str, option: str) -> float:
    """Read a duration in seconds.

    Args:
        text: A number, with a unit (s, m, h or d) or without.
        option: Where it was given, for the error.

    Raises:
        typer.BadParameter: It is none.

    Example:
        >>> [parse_duration(text, "--window") for text in ("90", "30m", "7d")]
        [90.0, 1800.0, 604800.0]
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text)
    if match is None:
        raise typer.BadParameter(
            f"expected seconds, or a time such as 30m, 2h or 7d, got {text!r}", param_hint=option
        )
    return float(match[1]) * _UNITS[match[2]]


def parse_time(text: str | None, option: str) -> datetime | None:
    """Read an ISO 8601 time with its zone; None stays None.

    Args:
        text: The time.
        option: Where it was given, for the error.

    Raises:
        typer.BadParameter: It is none, or has no zone.
    """
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise typer.BadParameter(
            f"expected a time with its zone, such as 2026-11-23T18:00:00+01:00, got {text!r}",
            param_hint=option,
        )
    return at


def _json_or_text(value: str) -> Any:
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
