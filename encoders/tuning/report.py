"""What tuning did, to be shown and to be written beside its weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from .evaluation import Measure
from .settings import TuningSettings


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one pass over the training campaigns brought.

    Attributes:
        epoch: From 1; 0 is the encoder as it was.
        loss: Mean training loss, per click; None for epoch 0.
        stopping_gain: Log-likelihood gained over equal scores on the stopping part, in nats per campaign.
    """

    epoch: int
    loss: float | None
    stopping_gain: float


@dataclass(frozen=True, kw_only=True)
class TuningReport:
    """What tuning did.

    Attributes:
        campaigns: How many campaigns trained, stopped the training, and are reported on.
        epochs: What each epoch brought.
        kept: The epoch whose encoder was written.
        measures: Before and after, on the held-out campaigns.
        folder: The tuned encoder's.
        went_on_after: The epoch after which this went on where a stopped run had been; None for one piece.
    """

    campaigns: dict[str, int]
    epochs: list[Epoch]
    kept: int
    measures: list[Measure]
    folder: Path
    went_on_after: int | None


def epochs_table(report: TuningReport) -> str:
    """Return the epochs as csv."""
    lines = ["epoch,loss,stopping_gain,is_kept"]
    for epoch in report.epochs:
        loss = "" if epoch.loss is None else repr(epoch.loss)
        lines.append(
            f"{epoch.epoch},{loss},{epoch.stopping_gain!r},{str(epoch.epoch == report.kept).lower()}"
        )
    return "\n".join(lines) + "\n"


def provenance(
    tuned_from: Mapping[str, str],
    trained_on: tuple[str, str],
    settings: TuningSettings,
    report: TuningReport,
) -> dict[str, object]:
    """Return what says how an encoder was tuned.

    Args:
        tuned_from: Where the encoder was found, and its weights' hash.
        trained_on: The first and the last campaign that trained.
        settings: How.
        report: What came of it.
    """
    return {
        "tuned_from": tuned_from,
        "settings": asdict(settings),
        "campaigns": report.campaigns,
        "trained_on": trained_on,
        "epochs": [asdict(epoch) for epoch in report.epochs],
        "kept_epoch": report.kept,
        "held_out": [asdict(measure) | {"verdict": measure.verdict} for measure in report.measures],
    }
