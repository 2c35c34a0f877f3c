"""Every error that the engine raises: its own, and those of storage and encoders that come through it.

    try:
        engine.select("sprnig")
    except UnknownCampaignError as error:
        ...

`BanditError`, `StorageError` and `EncoderError` are the roots; each class also inherits the fitting builtin.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encoders.errors import *  # noqa: F403  all of them
    from storage.errors import *  # noqa: F403  all of them

BELOW = ("storage.errors", "encoders.errors")

MOST_LISTED = 20  # problems; a file with a wrong separator has nothing else


def listed(problems: Sequence[str]) -> str:
    r"""Return problems one a line, each line begun and indented; the first twenty, and how many more.

    Example:
        >>> listed(["line 2: no id", "line 5: no id"])
        '\n  line 2: no id\n  line 5: no id'
    """
    more = [f"and {len(problems) - MOST_LISTED} more"] if len(problems) > MOST_LISTED else []
    return "".join(f"\n  {problem}" for problem in [*problems[:MOST_LISTED], *more])


class BanditError(Exception):
    """Root of all errors of this package."""


class InvalidCreativeError(BanditError, ValueError):
    """A creative whose texts cannot be used."""


class InvalidCampaignError(BanditError, ValueError):
    """Settings of a campaign that cannot be right."""


class InvalidOutcomeError(BanditError, ValueError):
    """A report that says nothing, or something impossible."""


class InvalidListError(BanditError, ValueError):
    """A list of creatives asked for in a way that cannot be answered."""


class ContextError(BanditError, ValueError):
    """A context that cannot be used."""


class NoCandidatesError(BanditError, LookupError):
    """A campaign has no creative that may be shown."""


class CampaignInactiveError(BanditError, RuntimeError):
    """A campaign is paused or has ended."""


class InvalidSettingError(BanditError, ValueError):
    """A setting of the model that cannot be."""


class PosteriorError(BanditError, ArithmeticError):
    """A learning step that would leave the posterior unusable."""


class HistoryError(BanditError, ValueError):
    """History that cannot be imported; names every bad line."""


class LogFileError(BanditError, ValueError):
    """A file of a decision log that cannot be read or written; names every bad line."""


class LogError(BanditError, ValueError):
    """A log that cannot be evaluated; names every bad line."""


class PageError(BanditError, ValueError):
    """A page without a title or a part, or a table whose rows do not fit its header."""


class ComponentsError(BanditError, ValueError):
    """Components in an encoder's folder that cannot be used."""


class EncoderChangedError(BanditError, RuntimeError):
    """The database's vectors were made by another encoder."""


class ForkedEngineError(BanditError, RuntimeError):
    """An engine was used in a process forked from the one that opened it."""


class EngineClosedError(BanditError, RuntimeError):
    """An engine was used after it was closed."""


class LearnerElsewhereError(BanditError, RuntimeError):
    """Another process learns this model."""


if not TYPE_CHECKING:  # or a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        """Find an error of a package below when it is first asked for: `--help` needs no SQLAlchemy."""
        for module in BELOW if name.endswith("Error") else ():
            found = getattr(import_module(module), name, None)
            if found is not None:
                globals()[name] = found
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
