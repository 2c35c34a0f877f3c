"""Pruning a database: what it needs first, campaign by campaign, and one context field everywhere."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from bandit.errors import InvalidSettingError
from storage import CampaignRecord, Store
from storage.maintenance.pruning import START, Cursor

SHORTEST_AGE = timedelta(days=1)  # shares of traffic are those of the last 24 hours


class PrunedCampaign(NamedTuple):
    """What became of a campaign's old decisions: counts, or kept as they are not learnt or not refitted."""

    campaign: str
    pruned: int
    kept: int


def campaigns_to_prune(
    store: Store, *, older_than: timedelta, now: datetime, campaign: str | None = None
) -> list[tuple[CampaignRecord, datetime]]:
    """Return campaigns with the time before which their decisions are old.

    A decision whose conversion window is open is never old: its conversions would find nothing.

    Args:
        store: The database.
        older_than: How long ago; a day or more.
        now: The time.
        campaign: The name of one campaign; None is all.

    Raises:
        InvalidSettingError: The age is below a day.
        UnknownCampaignError: There is no such campaign.
    """
    if older_than < SHORTEST_AGE:
        raise InvalidSettingError(f"expected an age of at least a day to prune, got {older_than}")
    model_id = store.models.get().model_id
    campaigns = store.campaigns.all(model_id) if campaign is None else [store.campaigns.get(campaign)]
    ages = [max(older_than, timedelta(seconds=found.conversion_window_s)) for found in campaigns]
    return [(found, now - age) for found, age in zip(campaigns, ages, strict=True)]


def needs_refit(store: Store, campaigns: list[tuple[CampaignRecord, datetime]]) -> bool:
    """Return whether decisions are old that no refit has seen, which would be kept."""
    return any(store.pruning.needs_refit(c.campaign_id, before=before) for c, before in campaigns)


def prune_campaigns(
    store: Store,
    campaigns: list[tuple[CampaignRecord, datetime]],
    progress: Callable[[int], None] = lambda n: None,
) -> list[PrunedCampaign]:
    """Turn old decisions into counts, a few thousand in one transaction; a killed run is simply run again.

    Args:
        store: The database.
        campaigns: From `campaigns_to_prune`.
        progress: Called with the number of decisions that were newly looked at.
    """
    done = []
    for campaign, before in campaigns:
        pruned = kept = 0
        cursor: Cursor | None = START
        while cursor is not None:
            part = store.pruning.prune(campaign.campaign_id, before=before, after=cursor)
            pruned, kept, cursor = pruned + part.pruned, kept + part.kept, part.cursor
            progress(part.pruned + part.kept)
        done.append(PrunedCampaign(campaign.name, pruned, kept))
    store.pruning.finish()
    return done


def remove_context_field(store: Store, field: str, progress: Callable[[int], None] = lambda n: None) -> int:
    """Take a context field out of all that is stored; a refit becomes due, as it was learnt from.

    Args:
        store: The database.
        field: A field whose policy is "drop", or requests would bring it back.
        progress: Called with the number of contexts that newly lost it.

    Returns:
        How many decisions had it.

    Raises:
        InvalidSettingError: The field is not dropped, or was never seen.
    """
    model = store.models.get()
    if field not in store.models.context(model.model_id).fields:
        raise InvalidSettingError(f"no context has had a field {field!r}; nothing was removed")
    if model.settings.get("context_policy", {}).get(field) != "drop":
        raise InvalidSettingError(
            f"requests would bring the context field {field!r} back; first run: "
            f"creative-bandit configure --context {field}=drop"
        )
    # Before: a killed run leaves the note. After: a refit in between had seen a part.
    store.models.change_settings(model.model_id, {"refit_due": True})
    changed, cursor = 0, ""
    while True:
        part = store.pruning.remove_field(model.model_id, field, after=cursor)
        changed += part.changed
        progress(part.changed)
        if part.cursor is None:
            break
        cursor = part.cursor
    store.models.change_settings(model.model_id, {"refit_due": True})
    store.pruning.finish()
    return changed
