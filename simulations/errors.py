"""What can go wrong in a simulation."""

import difflib
from collections.abc import Sequence


class SimulationError(Exception):
    """Root of all errors of this package."""


class ArchiveError(SimulationError, ValueError):
    """A file of past A/B tests that cannot be used; names every bad line."""


class PolicyError(SimulationError, ValueError):
    """A policy that nobody knows, or a setting with numbers that it does not read."""


class ResultsExistError(SimulationError, FileExistsError):
    """A folder that has results already."""


def unknown(what: str, name: str, known: Sequence[str]) -> str:
    """Say that a name is unknown, and offer the nearest ones, or all when none is near.

    Example:
        >>> unknown("policy", "lin-ubc", ["lin-ucb", "greedy"])
        "unknown policy 'lin-ubc'; nearest: lin-ucb"
    """
    near = difflib.get_close_matches(name, known)
    return f"unknown {what} {name!r}; " + ("nearest" if near else "known") + f": {', '.join(near or known)}"
