"""All that was learnt, as the rows of a refit."""

from bandit.learning.aggregation import Counted, pool
from bandit.learning.kernels import CountedRows
from bandit.learning.schedule import kept_after, stretches
from bandit.model.model import Model
from bandit.policy.kernels import padded_size, room_for
from storage import Store

ROWS = (1_024, 4_096, 16_384, 65_536)


def count_learnt(store: Store, model: Model, up_to_step: int) -> CountedRows:
    """Count what was learnt up to a step, and the history, weighed by what was forgotten since.

    Args:
        store: The database.
        model: Campaigns and context schema.
        up_to_step: The last learning step whose decisions count.

    Returns:
        One row for each arm and context vector.
    """
    model_id = model.record.model_id
    forgets = store.learning.forgets(model_id, up_to_step=up_to_step)
    counted = []
    for after, up_to, kept in stretches(forgets, up_to_step):
        for row in store.learning.counts(model_id, after_step=after, up_to_step=up_to):
            counts = (kept * row.impressions, kept * row.clicks)
            counted.append(Counted(row.creative_id, row.context, row.slots_version, *counts))
    for past in store.learning.history_counts(model_id):
        kept = kept_after(past.imported_at, forgets)
        counts = (kept * past.impressions, kept * past.clicks)
        counted.append(Counted(past.creative_id, past.context, past.slots_version, *counts))
    return pool(counted, model.schema, model.roster.arm, model.roster.arm_campaign, room_to_fit)


def room_to_fit(n: int) -> int:
    """Return how many rows a refit of n computes with: few sizes, for each has programs of its own.

    Example:
        >>> room_to_fit(3), room_to_fit(5_000), room_to_fit(200_000)
        (1024, 16384, 212992)
    """
    return padded_size(n, ROWS) if n <= ROWS[-1] else room_for(n, 0)
