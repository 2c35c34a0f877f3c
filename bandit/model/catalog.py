"""Campaigns and creatives in memory, as numerical code needs them: indices, contents, who may be shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from bandit.features.design import N_CONTENT
from storage import CampaignRecord, CreativeRecord


@dataclass(frozen=True, kw_only=True)
class CampaignEntry:
    """One campaign.

    Attributes:
        record: Its settings.
        index: Its place in the posterior's arrays.
        creatives: Its creatives, in the order of their ids.
    """

    record: CampaignRecord
    index: int
    creatives: tuple[CreativeRecord, ...]

    @cached_property
    def active(self) -> tuple[CreativeRecord, ...]:
        """The creatives that may be shown."""
        return tuple(creative for creative in self.creatives if creative.status == "active")


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """All campaigns of a model at one moment; replaced, never changed.

    Attributes:
        campaigns: By name.
        arm: A creative's place in the posterior's arrays, by our id.
        arm_campaign: The campaign's index of each arm, [arms].
        content: Content features of each arm, float32 [arms, 64].
        mean_content: Mean content of each campaign, float32 [campaigns, 64]; before its first decision that
            of the creatives it has now.
        names: The caller's id of each creative, by our id.
    """

    campaigns: Mapping[str, CampaignEntry]
    arm: Mapping[int, int]
    arm_campaign: np.ndarray
    content: Float[np.ndarray, "arms content"]
    mean_content: Float[np.ndarray, "campaigns content"]
    names: Mapping[int, str]

    def current_mean(self, entry: CampaignEntry) -> Float[np.ndarray, "content"]:
        """Return the mean content of the creatives that a campaign has now; of the active ones if any."""
        return current_mean(entry, self.arm, self.content)


def current_mean(
    entry: CampaignEntry, arm: Mapping[int, int], content: Float[np.ndarray, "arms content"]
) -> Float[np.ndarray, "content"]:
    """Return the mean content of a campaign's active creatives, or of all when none is active."""
    arms = [arm[creative.creative_id] for creative in entry.active or entry.creatives]
    mean: np.ndarray = content[arms].mean(axis=0)
    return mean


def build_catalog(
    campaigns: Sequence[CampaignRecord],
    creatives: Sequence[CreativeRecord],
    contents: Mapping[int, np.ndarray],
    before: Catalog | None = None,
) -> Catalog:
    """Build the catalog from rows.

    Args:
        campaigns: All campaigns of the model.
        creatives: All their creatives.
        contents: Content features by creative id.
        before: The last catalog: what it knows keeps its index, whatever order rows became visible in.

    Returns:
        The catalog.
    """
    arm = dict(before.arm) if before else {}
    for creative in creatives:
        arm.setdefault(creative.creative_id, len(arm))
    index = {entry.record.campaign_id: entry.index for entry in before.campaigns.values()} if before else {}
    for campaign in campaigns:
        index.setdefault(campaign.campaign_id, len(index))

    members: dict[int, list[CreativeRecord]] = {campaign.campaign_id: [] for campaign in campaigns}
    content = np.zeros((len(arm), N_CONTENT), np.float32)
    arm_campaign = np.zeros(len(arm), np.int64)
    for creative in creatives:
        members[creative.campaign_id].append(creative)
        content[arm[creative.creative_id]] = contents[creative.creative_id]
        arm_campaign[arm[creative.creative_id]] = index[creative.campaign_id]
    mean_content = np.zeros((len(index), N_CONTENT), np.float32)
    entries = {
        campaign.name: CampaignEntry(
            record=campaign,
            index=index[campaign.campaign_id],
            creatives=tuple(members[campaign.campaign_id]),
        )
        for campaign in campaigns
    }
    for entry in entries.values():
        if entry.record.mean_content is not None:
            mean_content[entry.index] = np.frombuffer(entry.record.mean_content, "<f4")
        elif entry.creatives:
            mean_content[entry.index] = current_mean(entry, arm, content)
    names = {creative.creative_id: creative.external_id for creative in creatives}
    return Catalog(
        campaigns=entries,
        arm=arm,
        arm_campaign=arm_campaign,
        content=content,
        mean_content=mean_content,
        names=names,
    )
