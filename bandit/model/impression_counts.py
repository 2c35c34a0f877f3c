"""How many decisions each campaign has had: what its horizon is counted against."""

import threading

from storage import Store


class ImpressionCounts:
    """Counts of one process, counted anew in SQL now and then.

    Args:
        store: The database.
        model_id: Whose campaigns.
    """

    def __init__(self, store: Store, model_id: int) -> None:
        self._store = store
        self._model_id = model_id
        self._lock = threading.Lock()  # of its own: a model's is held while texts are encoded
        self._counts = store.learning.impressions(model_id)

    def recount(self) -> None:
        """Count anew, with the decisions of other processes and those activated since."""
        counted = self._store.learning.impressions(self._model_id)
        with self._lock:
            self._counts = counted

    def add(self, campaign_id: int) -> None:
        """Count a decision that was shown."""
        with self._lock:
            self._counts[campaign_id] = self._counts.get(campaign_id, 0) + 1

    def by_campaign(self) -> dict[int, int]:
        """Return a copy of the counts, by campaign id."""
        return dict(self._counts)
