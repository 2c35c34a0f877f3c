"""Whole campaigns -> batches of fixed shapes."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from encoders.fields import FIELD_WEIGHTS

from .campaigns import PastCampaign

BATCH_TEXTS = 64
# Coarser than those of inference: every width is one more program to compile, forward and backward.
_WIDTHS = (16, 32, 64, 128, 256, 512)


class Packed(NamedTuple):
    """Hold whole campaigns as arrays; what is padding has weight 0 and no trials.

    Args:
        ids: Token ids.
        n_tokens: Tokens of each text.
        creative: Whose text it is.
        weight: Of the text in the creative's vector.
        campaign: Which campaign each creative is of, counted in the batch.
        trials: Of each creative, for each outcome that is learnt: its impressions; its clicks.
        successes: Of these: its clicks; its conversions.
    """

    ids: Int[np.ndarray, "texts tokens"]
    n_tokens: Int[np.ndarray, "texts"]
    creative: Int[np.ndarray, "texts"]
    weight: Float[np.ndarray, "texts"]
    campaign: Int[np.ndarray, "texts"]
    trials: Float[np.ndarray, "outcomes texts"]
    successes: Float[np.ndarray, "outcomes texts"]


class Tokens(NamedTuple):
    """Hold a campaign's texts as tokens, and its counts.

    Args:
        texts: Ids, the creative's row and the field's weight of each text.
        outcomes: The campaign as it counts for each outcome that is learnt: clicks; conversions.
    """

    texts: list[tuple[list[int], int, float]]
    outcomes: tuple[PastCampaign, ...]


def texts_of(campaign: PastCampaign) -> list[tuple[str, int, float]]:
    """List a campaign's texts, with the creative's row and the field's weight; at least one per creative."""
    found = []
    for row, creative in enumerate(campaign.creatives):
        parts = [(creative[f], row, weight) for f, weight in FIELD_WEIGHTS.items() if creative.get(f)]
        found += parts or [("", row, 1.0)]
    return found


def pack(campaigns: Sequence[Tokens], max_tokens: int) -> Iterator[Packed]:
    """Pack campaigns into batches, in the given order.

    Args:
        campaigns: Their tokens and counts.
        max_tokens: Longest text that the model takes.

    Yields:
        Batches of whole campaigns, of 64 texts or, where one campaign has more, a multiple of that.
    """
    waiting: list[Tokens] = []
    for campaign in campaigns:
        if waiting and sum(len(each.texts) for each in [*waiting, campaign]) > BATCH_TEXTS:
            yield _packed(waiting, max_tokens)
            waiting = []
        waiting.append(campaign)
    if waiting:
        yield _packed(waiting, max_tokens)


def _packed(campaigns: Sequence[Tokens], max_tokens: int) -> Packed:
    n_texts = sum(len(each.texts) for each in campaigns)
    size = -(-n_texts // BATCH_TEXTS) * BATCH_TEXTS
    longest = max(len(ids) for each in campaigns for ids, _, _ in each.texts)
    width = next(width for width in (*(w for w in _WIDTHS if w < max_tokens), max_tokens) if width >= longest)
    n_outcomes = len(campaigns[0].outcomes)
    batch = Packed(
        ids=np.zeros((size, width), np.int32),
        n_tokens=np.ones(size, np.int32),
        creative=np.zeros(size, np.int32),
        weight=np.zeros(size, np.float32),
        campaign=np.zeros(size, np.int32),
        trials=np.zeros((n_outcomes, size), np.float32),
        successes=np.zeros((n_outcomes, size), np.float32),
    )
    text = creative = 0
    for index, (texts, outcomes) in enumerate(campaigns):
        for ids, row, weight in texts:
            batch.ids[text, : len(ids)] = ids
            batch.n_tokens[text], batch.creative[text], batch.weight[text] = len(ids), creative + row, weight
            text += 1
        rows = slice(creative, creative + len(outcomes[0].creatives))
        batch.campaign[rows] = index
        for outcome, campaign in enumerate(outcomes):
            batch.trials[outcome, rows] = campaign.impressions
            batch.successes[outcome, rows] = campaign.clicks
        creative = rows.stop
    return batch
