"""Chooses ad creatives by contextual Thompson sampling over BERT features, with its state in SQL."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bandit.engine import Engine
    from bandit.errors import BanditError
    from bandit.types import (
        ArmReport,
        Creative,
        Decision,
        Draw,
        Explanation,
        HistoryRow,
        Imported,
        ImportedCounts,
        Outcome,
        Part,
        Request,
        Settled,
        Swapped,
    )
    from encoders.errors import EncoderError
    from storage.errors import StorageError

__all__ = [
    "ArmReport",
    "BanditError",
    "Creative",
    "Decision",
    "Draw",
    "EncoderError",
    "Engine",
    "Explanation",
    "HistoryRow",
    "Imported",
    "ImportedCounts",
    "Outcome",
    "Part",
    "Request",
    "Settled",
    "StorageError",
    "Swapped",
]

_PLACES = {
    "BanditError": "bandit.errors",
    "EncoderError": "encoders.errors",
    "Engine": "bandit.engine",
    "StorageError": "storage.errors",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: JAX takes seconds, and `--help` needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_PLACES.get(name, "bandit.types")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
