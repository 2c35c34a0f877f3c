"""Chooses ad creatives by contextual Thompson sampling over BERT features, with its state in SQL."""

from bandit.engine import Engine
from bandit.errors import BanditError
from bandit.records import ArmReport, Creative, Decision, HistoryRow, Outcome, Request, Settled
from encoders.errors import EncoderError
from storage.errors import StorageError

__all__ = [
    "ArmReport",
    "BanditError",
    "Creative",
    "Decision",
    "EncoderError",
    "Engine",
    "HistoryRow",
    "Outcome",
    "Request",
    "Settled",
    "StorageError",
]
