"""What tests of the engine share: a clock that is set by hand, ways to open engines, posteriors compared."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.testing import assert_allclose

from bandit import Creative, Engine
from encoders import Encoder
from tests.bandit.inspect import replica_of
from tests.bandit.posterior.small import named_arrays
from tests.storage.sql import execute, fetch

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
WORDS = ("free", "returns", "flash", "sale", "warm", "winter", "shoes", "buy", "now", "new")
TABLES = (
    *("models", "context_fields", "context_slots", "context_counts", "campaigns", "creatives", "embeddings"),
    *("candidate_sets", "decisions", "outcomes", "learn_log", "model_log", "posteriors", "arm_states"),
    *("arm_statistics", "history_counts", "history_imports", "pruned_counts"),
)


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, span: timedelta) -> None:
        self.now += span


class Engines:
    """Opens engines on one database, all with the same encoder, and closes what a test left open."""

    def __init__(self, url: str, encoder: Encoder | Path, clock: Clock) -> None:
        self.url = url
        self.clock = clock
        self.encoder = encoder
        self.opened: list[Engine] = []

    def open(self, **settings: Any) -> Engine:
        defaults: dict[str, Any] = {"learn": "manual", "clock": self.clock, "encoder": self.encoder}
        engine = Engine.open(self.url, **{**defaults, **settings})
        self.opened.append(engine)
        return engine

    def fetch(self, query: str) -> list[tuple[Any, ...]]:
        return fetch(self.url, query)

    def execute(self, *statements: str) -> None:
        execute(self.url, *statements)

    def close(self) -> None:
        for engine in self.opened:
            engine.close()

    def row_counts(self) -> dict[str, int]:
        """Count the rows of all tables but the leases."""
        query = " UNION ALL ".join(f"SELECT '{table}', count(*) FROM {table}" for table in TABLES)
        return dict(self.fetch(query))

    def forget_states(self) -> None:
        """Delete all from which a posterior could be resumed, but not the log."""
        self.execute("DELETE FROM posteriors", "DELETE FROM arm_states")


def creatives(*names: str) -> list[Creative]:
    """Make creatives whose texts differ."""
    return [Creative(name, headline=f"{WORDS[i % len(WORDS)]} {name}") for i, name in enumerate(names)]


def add_campaign(engine: Engine, *names: str, name: str = "spring", **settings: Any) -> None:
    """Add a campaign in which every outcome is reported, with its creatives."""
    engine.add_campaign(name, **{"attribution_window": 0, "horizon": 10_000, **settings})
    engine.add_creatives(name, creatives(*names or ("calm", "urgent", "plain")))


def play(engine: Engine, n: int, *, campaign: str = "spring", start: int = 0, learn_every: int = 0) -> None:
    """Make decisions with contexts of all kinds and report an outcome of each, every third a click."""
    for i in range(start, start + n):
        context = {
            "device": ("mobile", "desktop", "tablet")[i % 3],
            "age": 20.0 + i % 7,
            "is_new": i % 2 == 0,
        }
        decision = engine.select(campaign, context, decision_id=f"{campaign}-{i}")
        engine.update(decision.id, click=i % 3 == 0)
        if learn_every and i % learn_every == learn_every - 1:
            engine.settle()
    engine.settle()


def posterior(engine: Engine) -> dict[str, np.ndarray]:
    """Return the posterior in an order that does not depend on how rows were read."""
    view = replica_of(engine).view
    arms = [view.catalog.arm[creative_id] for creative_id in sorted(view.catalog.arm)]
    entries = sorted(view.catalog.campaigns.values(), key=lambda entry: entry.record.campaign_id)
    campaigns = [entry.index for entry in entries]
    state = named_arrays(view.state)
    for name in ("arm_cross", "arm_precision", "arm_information"):
        state[name] = state[name][arms]
    for name in ("campaign_cross", "campaign_precision", "campaign_information"):
        state[name] = state[name][campaigns]
    return {**state, "step": np.array(view.step)}


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], tolerance: float = 1e-9) -> None:
    """Compare posteriors: means by the posterior's own sd, information by its scale."""
    assert ours["step"] == theirs["step"]
    inverse = np.linalg.inv(theirs["factor"])
    sd = np.sqrt((inverse**2).sum(axis=0))
    assert np.max(np.abs(ours["weights"] - theirs["weights"]) / sd) < tolerance
    scale = np.sqrt(np.diag(theirs["precision"]))
    assert_allclose(
        ours["precision"] / np.outer(scale, scale),
        theirs["precision"] / np.outer(scale, scale),
        atol=tolerance,
    )
    for name, expected in theirs.items():
        largest = np.max(np.abs(expected))
        assert_allclose(ours[name], expected, rtol=0, atol=tolerance * max(largest, 1.0), err_msg=name)


def wait_for(condition: Callable[[], bool], *, at_most_s: float = 120.0) -> float:
    """Wait until something holds, and return how long it took; the limit is for what never happens."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < at_most_s, f"did not happen within {at_most_s} s"
        time.sleep(0.02)
    return time.monotonic() - began


def happens_within(limit_s: float, happen: Callable[[int], Callable[[], bool]], tries: int = 8) -> bool:
    """Return whether something takes no longer than a limit, once in a few tries: a host may be busy.

    Args:
        limit_s: In seconds.
        happen: (number of the try) -> whether that has happened; it starts it.
        tries: At most.
    """
    return any(wait_for(happen(number)) < limit_s for number in range(tries))


def learnt(engines: Engines) -> Sequence[tuple[str, int, int]]:
    """Return the learnt decisions with their clicks and steps."""
    query = "SELECT decision_id, click, learnt_batch FROM decisions WHERE learnt_batch IS NOT NULL"
    return engines.fetch(f"{query} ORDER BY decision_id")
