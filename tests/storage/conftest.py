"""A world to test in: one model, one campaign with three creatives, and a store on each database."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import storage
from storage import NewCreative, NewDecision, NewOutcome, StepRecord, Store

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class World:
    """The ids that tests need, and short ways to make decisions and steps."""

    store: Store
    model_id: int
    campaign_id: int
    creative_ids: tuple[int, ...]

    def decision(self, decision_id: str, **changes: Any) -> NewDecision:
        """Make a decision of the first creative, activated at NOW."""
        new = NewDecision(
            decision_id=decision_id,
            campaign_id=self.campaign_id,
            creative_id=self.creative_ids[0],
            candidate_creative_ids=self.creative_ids,
            propensities=(0.5, 0.3, 0.2),
            propensity=0.5,
            context={"device": "mobile", "age": 33.5, "is_new": True},
            model_version=0,
            slots_version=0,
            horizon=1000.0,
            kappa=0.3,
            point_set=7,
            decided_at=NOW,
            activated_at=NOW,
        )
        return replace(new, **changes)

    def record(self, *decision_ids: str, **changes: Any) -> None:
        """Store decisions that differ in their ids only."""
        self.store.decisions.record([self.decision(name, **changes) for name in decision_ids])

    def click(self, decision_id: str, value: float = 1.0, *, at: datetime = NOW, **changes: Any) -> str:
        """Report a click, and return what became of the report."""
        new = NewOutcome(decision_id=decision_id, kind="click", value=value, **changes)
        return self.store.outcomes.record([new], received_at=at)[0].status

    def settled(self, decision_id: str) -> int | None:
        """Return the settled click."""
        return self.store.decisions.get([decision_id])[decision_id].click

    def step(self, lease: int, step: int, *decision_ids: str, **changes: Any) -> StepRecord:
        """Make a learning step."""
        new = StepRecord(
            model_id=self.model_id,
            lease=lease,
            step=step,
            kind="batch",
            parameters={},
            logged_at=NOW,
            decision_ids=decision_ids,
        )
        return replace(new, **changes)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An open store on a fresh database, SQLite and PostgreSQL in turn."""
    with storage.Store.open(url) as opened:
        yield opened


@pytest.fixture
def world(store: Store) -> World:
    """A world in which every outcome is reported (window 0)."""
    return make_world(store, attribution_window_s=0.0)


@pytest.fixture
def waiting_world(store: Store) -> World:
    """A world with an attribution window of 30 minutes."""
    return make_world(store, attribution_window_s=1800.0)


@pytest.fixture
def sqlite_world(migrated_sqlite_url: str) -> Iterator[World]:
    """A world with window 0 for what does not depend on the database."""
    with storage.Store.open(migrated_sqlite_url) as opened:
        yield make_world(opened, attribution_window_s=0.0)


def make_world(store: Store, *, attribution_window_s: float) -> World:
    """Make a model, a campaign and its three creatives."""
    model = store.models.get_or_create(seed=1, encoder_fingerprint="encoder", settings={})
    campaign = store.campaigns.add(
        model.model_id, "spring", attribution_window_s=attribution_window_s, created_at=NOW
    )
    creatives = store.campaigns.add_creatives(
        campaign.campaign_id,
        [
            NewCreative(external_id=name, content={"headline": f"The {name} one"}, content_hash=name)
            for name in ("calm", "urgent", "plain")
        ],
        created_at=NOW,
    )
    return World(
        store=store,
        model_id=model.model_id,
        campaign_id=campaign.campaign_id,
        creative_ids=tuple(creative.creative_id for creative in creatives),
    )
