"""How well scores tell which creative of a campaign is clicked more, before and after tuning."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from .campaigns import PastCampaign, tells
from .head import counts_of, gains

N_RESAMPLES = 2000
_SIGNIFICANT = 1.96  # standard errors: two-sided, 5 %


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One measure on the held-out campaigns, before and after.

    Attributes:
        name: What is measured.
        campaigns: How many campaigns it could be measured on.
        cases: Over how many pairs, or campaigns, the mean is.
        before: With the encoder as it was.
        before_error: Its standard error, by bootstrap over campaigns.
        after: With the tuned one.
        after_error: Its standard error.
        gain: After - before.
        gain_error: Its standard error, paired.
    """

    name: str
    campaigns: int
    cases: int
    before: float
    before_error: float
    after: float
    after_error: float
    gain: float
    gain_error: float

    @property
    def verdict(self) -> str:
        """What two standard errors allow to say."""
        if self.gain > _SIGNIFICANT * self.gain_error:
            return "better"
        return "worse" if self.gain < -_SIGNIFICANT * self.gain_error else "not established"


class _Tally(NamedTuple):
    """Sums by campaign: a measure is the ratio of their totals."""

    total: Float[np.ndarray, "campaigns"]
    cases: Float[np.ndarray, "campaigns"]


def compare(
    campaigns: Sequence[PastCampaign],
    before: Float[np.ndarray, "creatives"],
    after: Float[np.ndarray, "creatives"],
    seed: int = 0,
    prefix: str = "",
) -> list[Measure]:
    """Measure two scores of the same creatives.

    Args:
        campaigns: Held out.
        before: Score of each creative, campaign by campaign.
        after: Other scores.
        seed: Of the bootstrap.
        prefix: Of the measures' names.

    Returns:
        Log-likelihood gained over equal scores, in nats per campaign; share of pairs in the right order, of
        all that differ in their rates and of those that differ significantly (two proportions, pooled, 5 %);
        Spearman's correlation within a campaign. A measure without any case is left out, and so are
        campaigns whose counts tell nothing.
    """
    ends = np.cumsum([len(campaign.creatives) for campaign in campaigns])[:-1]
    told = [
        each
        for each in zip(campaigns, np.split(before, ends), np.split(after, ends), strict=True)
        if tells(each[0])
    ]
    if not told:
        return []
    campaigns, befores, afters = zip(*told, strict=True)
    weights = np.random.default_rng(seed).multinomial(
        len(campaigns), np.full(len(campaigns), 1 / len(campaigns)), N_RESAMPLES
    )
    old, new = _tallies(campaigns, befores), _tallies(campaigns, afters)
    return [
        _measure(prefix + name, old[name], new[name], weights) for name in old if old[name].cases.sum() > 0
    ]


def _tallies(campaigns: Sequence[PastCampaign], scores: Sequence[np.ndarray]) -> dict[str, _Tally]:
    rows = []
    for campaign, of_all in zip(campaigns, scores, strict=True):
        is_shown = campaign.impressions > 0
        own, impressions, clicks = (
            each[is_shown] for each in (of_all, campaign.impressions, campaign.clicks)
        )
        rate = clicks / impressions
        first, second = np.triu_indices(len(rate), k=1)
        differs = rate[first] != rate[second]
        first, second = first[differs], second[differs]
        shown = impressions[first], impressions[second]
        pooled = (clicks[first] + clicks[second]) / (shown[0] + shown[1])
        error = np.sqrt(pooled * (1 - pooled) * (1 / shown[0] + 1 / shown[1]))
        difference, guess = rate[first] - rate[second], own[first] - own[second]
        is_clear = np.abs(difference) > _SIGNIFICANT * error
        # A tie of scores is a coin's toss.
        right = np.where(guess == 0, 0.5, np.sign(guess) == np.sign(difference))
        is_ranked = bool(differs.any()) and np.ptp(own) > 0
        rank = float(spearmanr(own, rate).statistic) if is_ranked else 0.0
        rows.append((right.sum(), len(right), right[is_clear].sum(), is_clear.sum(), rank, differs.any()))
    right, pairs, clear_right, clear, rank, ranked = np.array(rows, float).T
    return {
        "log-likelihood": _Tally(
            gains(np.concatenate(scores), counts_of(campaigns)), np.ones(len(campaigns))
        ),
        "pairs in order": _Tally(right, pairs),
        "significant pairs in order": _Tally(clear_right, clear),
        "rank correlation": _Tally(rank, ranked),
    }


def _measure(name: str, old: _Tally, new: _Tally, weights: np.ndarray) -> Measure:
    def resampled(tally: _Tally) -> np.ndarray:
        return np.asarray((weights @ tally.total) / np.maximum(weights @ tally.cases, 1))

    before, after = (float(tally.total.sum() / tally.cases.sum()) for tally in (old, new))
    many_before, many_after = resampled(old), resampled(new)
    return Measure(
        name=name,
        campaigns=int((old.cases > 0).sum()),
        cases=int(old.cases.sum()),
        before=before,
        before_error=float(many_before.std(ddof=1)),
        after=after,
        after_error=float(many_after.std(ddof=1)),
        gain=after - before,
        gain_error=float((many_after - many_before).std(ddof=1)),
    )
