"""The posterior of a campaign's arms as people read it, over the contexts that it has had lately."""

from collections import Counter
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jaxtyping import Float

from bandit.features.context import context_vector
from bandit.features.design import N_CONTEXT
from bandit.jax_runtime import double_precision
from bandit.learning.kernels import summarise_campaign
from bandit.learning.view import PosteriorView
from bandit.model.catalog import CampaignEntry
from bandit.model.model import Model
from bandit.padding import padded_size
from bandit.posterior import Summary
from bandit.types import ArmReport
from storage import ArmRow, ArmSummary, Store

ARMS = (4, 8, 16, 32)
CONTEXTS = (1, 8, 64)
N_RECENT = 256  # contexts that a campaign's click rates are averaged over
N_CONTEXTS = CONTEXTS[-1]  # distinct ones at most, the newest: what people read costs one pass for each


class ArmSummaries:
    """Reads out campaigns.

    Args:
        store: Has the recent contexts.
        model: Their schema.
        newest: Gives the newest view.
    """

    def __init__(self, store: Store, model: Model, newest: Callable[[], PosteriorView]) -> None:
        self._store = store
        self._model = model
        self._newest = newest

    def of(self, entry: CampaignEntry) -> list[ArmSummary]:
        """Return the posterior of a campaign's arms; none of a campaign without creatives."""
        if not entry.creatives:
            return []
        summary, step = self._summary(entry, *self._recent_contexts(entry))
        columns = [column[: len(entry.creatives)].tolist() for column in summary]
        return [
            ArmSummary(
                creative_id=creative.creative_id,
                ctr=ctr,
                ctr_low=low,
                ctr_high=high,
                p_best=p_best,
                expected_loss=max(loss, 0.0),
                value_remaining=max(left, 0.0),
                version=step,
            )
            for creative, ctr, low, high, p_best, loss, left in zip(entry.creatives, *columns, strict=True)
        ]

    def warm_up(self) -> Iterator[None]:
        """Compile, or load, the programs for the sizes of the campaigns; stop after each."""
        entries = self._model.catalog.campaigns.values()
        for entry in {padded_size(len(e.creatives), ARMS): e for e in entries if e.creatives}.values():
            for n in CONTEXTS:
                self._summary(entry, np.zeros((n, N_CONTEXT)), np.full(n, 1 / n))
                yield

    def _summary(
        self, entry: CampaignEntry, contexts: np.ndarray, weights: np.ndarray
    ) -> tuple[Summary, int]:
        """Return the summary of a campaign's arms over some contexts, padded, and its learning step."""
        arms = np.array([self._model.catalog.arm[creative.creative_id] for creative in entry.creatives])
        eligible = np.array([creative.status == "active" for creative in entry.creatives])
        padding = padded_size(len(arms), ARMS) - len(arms)
        with double_precision():
            view = self._newest()
            summary = summarise_campaign(
                view.state,
                view.tables,
                contexts,
                weights,
                np.pad(arms, (0, padding)),
                np.int64(entry.index),
                # A campaign without an active creative is read as if all were.
                np.pad(eligible if eligible.any() else ~eligible, (0, padding)),
                np.int64(self._model.record.seed),
            )
            return jax.device_get(summary), view.step

    def _recent_contexts(
        self, entry: CampaignEntry
    ) -> tuple[Float[np.ndarray, "contexts 16"], Float[np.ndarray, "contexts"]]:
        """Return the distinct vectors of a campaign's recent contexts, and their weights; padded."""
        recent = self._store.learning.recent_contexts(entry.record.campaign_id, limit=N_RECENT)
        vectors = [context_vector(context, self._model.schema) for context in recent] or [np.zeros(N_CONTEXT)]
        distinct = Counter(vector.tobytes() for vector in vectors)  # in order of appearance
        kept = list(distinct)[:N_CONTEXTS]
        counts = np.array([distinct[key] for key in kept], float)
        padding = padded_size(len(kept), CONTEXTS) - len(kept)
        stacked = np.stack([np.frombuffer(key) for key in kept])
        return np.pad(stacked, ((0, padding), (0, 0))), np.pad(counts / counts.sum(), (0, padding))


def arm_report(row: ArmRow) -> ArmReport:
    """Return what people read of an arm; its statistics have just been refreshed."""
    return ArmReport(
        creative_id=row.external_id,
        status=row.status,
        impressions=row.impressions,
        clicks=row.clicks,
        conversions=row.conversions,
        value=row.value,
        pending_impressions=row.pending_impressions,
        history_impressions=row.history_impressions,
        history_clicks=row.history_clicks,
        ctr=row.ctr or 0.0,
        ctr_low=row.ctr_low or 0.0,
        ctr_high=row.ctr_high or 0.0,
        p_best=row.p_best or 0.0,
        expected_loss=row.expected_loss or 0.0,
        value_remaining=row.value_remaining or 0.0,
        share=row.share,
        version=row.version or 0,
    )
