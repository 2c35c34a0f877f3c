"""What selection, summaries and explanations read of the model at one moment."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from bandit.features.content_tables import ContentTables
from bandit.model.catalog import Catalog
from bandit.posterior import State


class PosteriorView(NamedTuple):
    """The posterior with its contents, replaced as a whole.

    Learning reuses the arrays of an old one: take it anew inside each block of double precision.

    Attributes:
        state: The posterior.
        tables: Contents on the device.
        catalog: The campaigns and creatives that the tables hold.
        step: The learning step at which the posterior stands.
        so_far: Decisions that each campaign had had by then, by campaign id.
        memo: What selection has computed from it; read and written in double precision only.
    """

    state: State
    tables: ContentTables
    catalog: Catalog
    step: int
    so_far: Mapping[int, int]
    memo: dict[str, Any]
