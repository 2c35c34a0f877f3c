"""What plays: the engine with all that it includes, and what its rows cost the disk without it."""

import itertools
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Int

from bandit import Creative, Engine, Outcome, Request
from encoders import TextEncoder
from tests.benchmarks.one_campaign import OneCampaign

Contexts = Sequence[dict[str, str]]


class Contender(Protocol):
    """Whoever chooses and learns.

    Attributes:
        name: what the table calls it.
        told: what it is told beside the context.
        keeps: what is on disk when a call returns.
    """

    name: str
    told: str
    keeps: str

    def prepare(self) -> None:
        """Do what is in no one's time before a round."""

    def choose(self, contexts: Contexts) -> Int[np.ndarray, "contexts"]:
        """Choose an arm for each impression."""

    def learn(self, clicks: Bool[np.ndarray, "contexts"]) -> None:
        """Learn what became of the last choices."""

    def close(self) -> None:
        """Let go of everything."""


class CreativeBandit:
    """The engine on an SQLite file: decisions, propensities, outcomes and posterior are stored on return.

    Args:
        campaign: whose ads it shows; its length is the horizon.
        encoder: makes vectors of the texts.
        path: of a new database.
        seed: of the engine's draws.
        numbered: whether decisions have numbers for ids, so that a run can be repeated; looking for repeated
            ids costs a query.
    """

    name = "engine, SQLite file"
    told = "texts"
    keeps = "all"

    def __init__(
        self,
        campaign: OneCampaign,
        encoder: TextEncoder,
        path: Path,
        *,
        seed: int = 0,
        numbered: bool = False,
    ) -> None:
        self.path = path
        self.engine = Engine.open(path, learn="manual", seed=seed, encoder=encoder)
        self.engine.add_campaign("c", horizon=len(campaign.contexts), attribution_window=0)
        self.engine.add_creatives(
            "c",
            [
                Creative(ad.creative_id, headline=ad.headline, body=ad.body, call_to_action=ad.call_to_action)
                for ad in campaign.ads
            ],
        )
        self.engine.warm_up()
        self.stored: list[list[str]] = []  # ids of each call's decisions
        self._arm = {ad.creative_id: arm for arm, ad in enumerate(campaign.ads)}
        self._numbers = itertools.count() if numbered else None

    def prepare(self) -> None:
        pass

    def choose(self, contexts: Contexts) -> Int[np.ndarray, "contexts"]:
        decisions = self.engine.select_many(
            [Request(campaign="c", context=context, decision_id=self._next_id()) for context in contexts]
        )
        self.stored.append([decision.id for decision in decisions])
        return np.array([self._arm[decision.creative_id] for decision in decisions])

    def learn(self, clicks: Bool[np.ndarray, "contexts"]) -> None:
        self.engine.update_many(
            [
                Outcome(decision_id=i, click=bool(click))
                for i, click in zip(self.stored[-1], clicks, strict=True)
            ]
        )
        assert self.engine.settle().learnt == len(clicks)

    def close(self) -> None:
        self.engine.close()

    def _next_id(self) -> str | None:
        return None if self._numbers is None else f"impression-{next(self._numbers):06}"


class BareInserts:
    """The very rows that the engine has just stored, put by `executemany` into the same empty tables."""

    name = "bare executemany of its rows"
    told = "–"
    keeps = "the rows"

    def __init__(self, engine: CreativeBandit, path: Path) -> None:
        self._engine = engine
        self._source = sqlite3.connect(engine.path)
        self._target = sqlite3.connect(path)
        # As the engine's own connections and tables, indices included.
        self._target.execute("PRAGMA journal_mode=WAL")
        self._target.execute("PRAGMA synchronous=NORMAL")
        definitions = self._source.execute(
            "SELECT sql FROM sqlite_master WHERE tbl_name IN ('decisions', 'outcomes') AND sql IS NOT NULL"
            " AND type IN ('table', 'index') ORDER BY type DESC"
        )
        for (definition,) in definitions.fetchall():
            self._target.execute(definition)
        self._rows: dict[str, list[list[tuple[object, ...]]]] = {"decisions": [], "outcomes": []}

    def prepare(self) -> None:
        """Read what the engine has stored since the last time; this is in no one's time."""
        for ids in self._engine.stored:
            marks = ", ".join("?" * len(ids))
            for table, calls in self._rows.items():
                rows = self._source.execute(f"SELECT * FROM {table} WHERE decision_id IN ({marks})", ids)
                calls.append(rows.fetchall())
                assert len(calls[-1]) == len(ids)
        self._engine.stored.clear()

    def choose(self, contexts: Contexts) -> Int[np.ndarray, "contexts"]:
        self._insert("decisions")
        return np.zeros(len(contexts), int)

    def learn(self, clicks: Bool[np.ndarray, "contexts"]) -> None:
        self._insert("outcomes")

    def close(self) -> None:
        self._source.close()
        self._target.close()

    def _insert(self, table: str) -> None:
        rows = self._rows[table].pop(0)
        marks = ", ".join("?" * len(rows[0]))
        with self._target:
            self._target.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
