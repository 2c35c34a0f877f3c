"""Past campaigns, and which of them train, stop the training, and are reported on."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

from encoders.errors import TextTypeError, TuningError
from encoders.fields import FIELD_WEIGHTS

Each = TypeVar("Each")
_STEPS = ("impressions", "clicks", "conversions")
_FEWEST = 3  # one campaign for each part


class PastCampaign(NamedTuple):
    """Counts of creatives that ran side by side.

    Args:
        name: For messages.
        creatives: Texts of each creative by field: headline, body, call_to_action.
        impressions: How often each was shown.
        clicks: Of these.
        conversions: Of the clicks, those that led to one; None where that is not known.
    """

    name: str
    creatives: tuple[Mapping[str, str], ...]
    impressions: Float[np.ndarray, "creatives"]
    clicks: Float[np.ndarray, "creatives"]
    conversions: Float[np.ndarray, "creatives"] | None = None


class Parts(NamedTuple, Generic[Each]):
    """Hold the campaigns of each use, in order of time."""

    training: list[Each]
    stopping: list[Each]
    held_out: list[Each]


def divide(campaigns: Sequence[PastCampaign], held_out: float, stopping: float) -> Parts[PastCampaign]:
    """Divide campaigns by time.

    Creatives with the same texts are pooled. Left out is what tells nothing: creatives that were never shown,
    and then campaigns with one creative, without a click, or with nothing but clicks. A text that an earlier
    part has too is not in a later one, where it would be remembered rather than understood.

    Args:
        campaigns: In order of time.
        held_out: Share of them, the latest, that are reported on.
        stopping: Share of the others, the latest, that stop the training.

    Returns:
        The parts, none empty.

    Raises:
        TuningError: Counts are impossible, or a part is empty; all bad campaigns are named.
        TextTypeError: A text is no string, or its field is unknown.
    """
    for campaign in campaigns:
        _check(campaign)
    known = [campaign for each in campaigns if tells(campaign := _pooled(each))]
    if len(known) < _FEWEST:
        raise TuningError(
            f"of {len(campaigns)} campaigns, {len(known)} have two creatives with different texts, and both "
            f"clicks and impressions without; tuning needs {_FEWEST} at the very least, and hundreds to gain"
        )
    n_held_out = max(1, round(held_out * len(known)))
    n_stopping = max(1, round(stopping * (len(known) - n_held_out)))
    cut = len(known) - n_held_out
    training = known[: max(cut - n_stopping, 0)]
    later = _unseen(known[max(cut - n_stopping, 0) : cut], training)
    last = _unseen(known[cut:], known[:cut])
    if not (training and later and last):
        raise TuningError(
            f"of {len(known)} campaigns, {len(training)} are left to train, {len(later)} to stop it "
            f"and {len(last)} to report on; each needs one at least whose texts did not run before"
        )
    return Parts(training, later, last)


def discounted(campaign: PastCampaign, own_effect: float) -> PastCampaign:
    """Discount counts for what no text explains.

    A creative's logit has an effect of its own, of standard deviation τ. What n impressions at rate p tell
    about the text is then 1 / (1 / np + τ²) and not np: as much as n / (1 + τ² np) impressions would tell
    without it. Undiscounted, the largest campaigns drown the others.

    Args:
        campaign: Its counts.
        own_effect: τ.

    Returns:
        The campaign with fewer impressions and clicks, at the same rates.
    """
    rate = campaign.clicks.sum() / (campaign.impressions.sum() or 1.0)
    kept = 1 / (1 + own_effect**2 * campaign.impressions * rate)
    return campaign._replace(impressions=campaign.impressions * kept, clicks=campaign.clicks * kept)


def visits(campaign: PastCampaign) -> PastCampaign:
    """Return the same campaign one step later, where clicks are what is shown, and conversions are clicks.

    Where conversions are not known, nothing was shown.
    """
    nothing = np.zeros_like(campaign.clicks)
    if campaign.conversions is None:
        return campaign._replace(impressions=nothing, clicks=nothing)
    return campaign._replace(impressions=campaign.clicks, clicks=campaign.conversions, conversions=None)


def tells(campaign: PastCampaign) -> bool:
    """Say whether creatives can be told apart by their clicks at all."""
    has_two = (campaign.impressions > 0).sum() > 1
    return bool(has_two and 0 < campaign.clicks.sum() < campaign.impressions.sum())


def _check(campaign: PastCampaign) -> None:
    where = f"campaign {campaign.name!r}"
    n_creatives = len(campaign.creatives)
    steps = ("impressions", "clicks") if campaign.conversions is None else _STEPS
    counts = [np.asarray(getattr(campaign, step)) for step in steps]
    if any(count.shape != (n_creatives,) for count in counts):
        shapes = (f"{step} of shape {count.shape}" for step, count in zip(steps, counts, strict=True))
        raise TuningError(f"{where}: {n_creatives} creatives, but {' and '.join(shapes)}")
    for (of, step), (most, count) in zip(pairwise(steps), pairwise(counts), strict=True):
        is_right = (count >= 0) & (count <= most) & np.isfinite(most)  # False for NaN too
        if not is_right.all():
            row = int(np.argmin(is_right))
            raise TuningError(
                f"{where}, creative {row}: {count[row]:g} {step} on {most[row]:g} {of}; "
                f"expected 0 ≤ {step} ≤ {of}"
            )
    for row, texts in enumerate(campaign.creatives):
        for field, text in texts.items():
            if field not in FIELD_WEIGHTS or not isinstance(text, str):
                raise TextTypeError(
                    f"{where}, creative {row}: expected strings in {', '.join(FIELD_WEIGHTS)}; "
                    f"got {field} = {text!r} of type {type(text).__name__}"
                )


def _pooled(campaign: PastCampaign) -> PastCampaign:
    """Pool the counts of creatives with the same texts; the never shown are left out."""
    places: dict[tuple[tuple[str, str], ...], int] = {}
    shown = [row for row in range(len(campaign.creatives)) if campaign.impressions[row] > 0]
    place = [places.setdefault(_key(campaign.creatives[row]), len(places)) for row in shown]

    def pooled(counts: Float[np.ndarray, "creatives"]) -> Float[np.ndarray, "pooled"]:
        return np.bincount(np.array(place, np.intp), counts[shown], len(places))

    return PastCampaign(
        campaign.name,
        tuple(dict(key) for key in places),
        pooled(campaign.impressions),
        pooled(campaign.clicks),
        None if campaign.conversions is None else pooled(campaign.conversions),
    )


def _unseen(campaigns: Sequence[PastCampaign], earlier: Sequence[PastCampaign]) -> list[PastCampaign]:
    seen = {_key(texts) for campaign in earlier for texts in campaign.creatives}
    left = []
    for campaign in campaigns:
        keep = [row for row, texts in enumerate(campaign.creatives) if _key(texts) not in seen]
        fresh = PastCampaign(
            campaign.name,
            tuple(campaign.creatives[row] for row in keep),
            campaign.impressions[keep],
            campaign.clicks[keep],
            None if campaign.conversions is None else campaign.conversions[keep],
        )
        if tells(fresh):
            left.append(fresh)
    return left


def _key(texts: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((field, texts[field]) for field in FIELD_WEIGHTS if texts.get(field))
