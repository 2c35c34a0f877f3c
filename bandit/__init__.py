"""Chooses ad creatives by contextual Thompson sampling over BERT features, with its state in SQL."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bandit.engine import Engine
    from bandit.errors import (
        BanditError,
        CampaignInactiveError,
        ComponentsError,
        ContextError,
        DecisionConflictError,
        DuplicateCampaignError,
        DuplicateCreativeError,
        EncoderChangedError,
        EncoderError,
        EncoderSwappedError,
        HistoryError,
        InvalidCampaignError,
        InvalidCreativeError,
        InvalidIdError,
        InvalidLimitsError,
        InvalidListError,
        InvalidOutcomeError,
        InvalidSettingError,
        LearnerElsewhereError,
        MissingEncoderError,
        NoCandidatesError,
        StorageError,
        UnknownCampaignError,
        UnknownCreativeError,
        UnknownDecisionError,
        UnknownOutcomeError,
    )
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
        Word,
        Wording,
    )
    from storage.records import OutcomeRecord

__all__ = [
    "ArmReport",
    "BanditError",
    "CampaignInactiveError",
    "ComponentsError",
    "ContextError",
    "Creative",
    "Decision",
    "DecisionConflictError",
    "Draw",
    "DuplicateCampaignError",
    "DuplicateCreativeError",
    "EncoderChangedError",
    "EncoderError",
    "EncoderSwappedError",
    "Engine",
    "Explanation",
    "HistoryError",
    "HistoryRow",
    "Imported",
    "ImportedCounts",
    "InvalidCampaignError",
    "InvalidCreativeError",
    "InvalidIdError",
    "InvalidLimitsError",
    "InvalidListError",
    "InvalidOutcomeError",
    "InvalidSettingError",
    "LearnerElsewhereError",
    "MissingEncoderError",
    "NoCandidatesError",
    "Outcome",
    "OutcomeRecord",
    "Part",
    "Request",
    "Settled",
    "StorageError",
    "Swapped",
    "UnknownCampaignError",
    "UnknownCreativeError",
    "UnknownDecisionError",
    "UnknownOutcomeError",
    "Word",
    "Wording",
]

_HOMES = {
    "Engine": "bandit.engine",
    "OutcomeRecord": "storage.records",
}


if not TYPE_CHECKING:  # or a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        """Import a name when it is first asked for: JAX takes seconds, and `--help` needs none of it."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = _HOMES.get(name, "bandit.errors" if name.endswith("Error") else "bandit.types")
        value = getattr(import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
