"""The settings of a model as they are stored, read once with their types."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from bandit.features.design import PriorScales


class ModelSettings(NamedTuple):
    """What a model is set to.

    Attributes:
        scales: the prior's, before any data.
        learns_scales: whether they are learnt.
        half_life_days: days after which what the data taught counts half; None never forgets.
        forgets_since: when forgetting was switched on.
        is_refit_due: whether contents or history have changed and the refit that must follow was never done.
        components: where the content components are from: they were shipped, fitted, or drawn at random.
        features_step: the learning step that brought encoder, components and mean contents.
    """

    scales: PriorScales
    learns_scales: bool
    half_life_days: float | None
    forgets_since: datetime | None
    is_refit_due: bool
    components: str | None
    features_step: int


def initial_settings() -> dict[str, object]:
    """Return the stored settings of a new model."""
    return {"scales": PriorScales()._asdict()}


def settings_of(stored: Mapping[str, Any]) -> ModelSettings:
    """Read stored settings; what an older version did not store has its default."""
    since = stored.get("forgets_since")
    return ModelSettings(
        scales=PriorScales(**stored["scales"]),
        learns_scales=bool(stored.get("learn_scales", True)),
        half_life_days=stored.get("half_life_days"),
        forgets_since=None if since is None else datetime.fromisoformat(since),
        is_refit_due=bool(stored.get("refit_due")),
        components=stored.get("components"),
        features_step=int(stored.get("features_step", 0)),
    )
