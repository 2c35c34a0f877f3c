from dataclasses import replace

import numpy as np

from bandit.model.catalog import Catalog, build_catalog
from storage import CampaignRecord, CreativeRecord
from tests.bandit.policy.test_horizon import CAMPAIGN, START

CREATIVE = CreativeRecord(
    creative_id=0,
    campaign_id=1,
    external_id="",
    content={},
    content_hash="",
    picture=None,
    status="active",
    created_at=START,
)
CAMPAIGNS = [CAMPAIGN, replace(CAMPAIGN, campaign_id=2, name="summer")]


def creative(creative_id: int, campaign_id: int = 1, status: str = "active") -> CreativeRecord:
    return replace(
        CREATIVE,
        creative_id=creative_id,
        campaign_id=campaign_id,
        external_id=f"c{creative_id}",
        status=status,  # type: ignore[arg-type]  a literal
    )


def catalog(
    creatives: list[CreativeRecord],
    campaigns: list[CampaignRecord] = CAMPAIGNS,
    before: Catalog | None = None,
) -> Catalog:
    contents = {c.creative_id: np.full(64, c.creative_id, np.float32) for c in creatives}
    return build_catalog(campaigns, creatives, contents, before)


def test_places_are_kept_in_whatever_order_rows_become_visible() -> None:
    first = catalog([creative(5), creative(9, 2)])
    later = catalog([creative(3), creative(5), creative(7, 2), creative(9, 2)], before=first)
    assert later.arm == {5: 0, 9: 1, 3: 2, 7: 3}
    assert later.arm_campaign.tolist() == [0, 1, 0, 1]
    assert later.content[:, 0].tolist() == [5, 9, 3, 7]
    new = replace(CAMPAIGN, campaign_id=0, name="early")
    third = catalog([creative(3), creative(5), creative(7, 2), creative(9, 2)], [new, *CAMPAIGNS], later)
    assert {name: entry.index for name, entry in third.campaigns.items()} == {
        "spring": 0,
        "summer": 1,
        "early": 2,
    }
    assert third.arm == later.arm


def test_who_may_be_shown() -> None:
    built = catalog(
        [creative(1), creative(2, status="paused"), creative(3, status="retired"), creative(4, 2)]
    )
    spring = built.campaigns["spring"]
    assert [c.external_id for c in spring.creatives] == ["c1", "c2", "c3"]
    assert [c.external_id for c in spring.active] == ["c1"]
    assert built.names == {1: "c1", 2: "c2", 3: "c3", 4: "c4"}


def test_the_mean_content_is_what_was_stored_and_else_zero() -> None:
    mean = np.arange(64, dtype="<f4")
    built = catalog([creative(1)], [replace(CAMPAIGN, mean_content=mean.tobytes()), CAMPAIGNS[1]])
    np.testing.assert_array_equal(built.mean_content, [mean, np.zeros(64)])


def test_the_current_mean_is_of_the_active_or_else_of_all() -> None:
    built = catalog([creative(1), creative(3), creative(8, status="paused"), creative(4, 2, "paused")])
    assert built.current_mean(built.campaigns["spring"])[0] == 2.0
    assert built.current_mean(built.campaigns["summer"])[0] == 4.0
