"""What workers were answered, and whether the database that they leave holds exactly that."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bandit import Engine
from bandit.engine import utc_now
from bandit.learning.verify import replay
from tests.bandit.inspect import learner_of, store_of
from tests.paths import TINY
from tests.processes.worker import CAMPAIGN
from tests.storage.sql import execute, fetch

GUARD = 1e-9  # of a posterior standard deviation
LEARNT = "SELECT decision_id, click FROM decisions WHERE learnt_batch IS NOT NULL"


class Notes(NamedTuple):
    """What the workers were answered: creatives, clicks and conversions by decision, and errors."""

    n_workers: int
    creatives: dict[str, str]
    clicks: dict[str, int]
    conversions: dict[str, int]
    errors: list[str]


def read(notes: Sequence[Path]) -> Notes:
    """Read what the workers were answered; an answer that differs from an earlier one is a failure."""
    answered = Notes(len(notes), {}, {}, {}, [])
    for line in (line for file in notes for line in file.read_text().splitlines()):
        what, name, *rest = line.split()
        if what == "failed":
            answered.errors.append(line)
        elif what == "decided":
            assert answered.creatives.setdefault(name, rest[0]) == rest[0], f"{name} was decided anew"
        elif what == "reported":
            assert name not in answered.clicks
            answered.clicks[name], answered.conversions[name] = map(int, rest)
    return answered


def check(url: str, answered: Notes) -> tuple[int, int, float]:
    """Let a last engine learn what is left, and compare what was answered with what is there.

    Returns:
        How many decisions are stored, how many steps were learnt, and how far the posterior is from a replay.
    """
    # The killed learner's lease ends by the database's clock, which a test need not wait for.
    execute(url, "UPDATE leases SET expires_at = '2000-01-01T00:00:00.000000Z'")
    with Engine.open(url, encoder=TINY, learn="manual") as engine:
        engine.settle()
        arms = engine.arms(CAMPAIGN)
        learner_of(engine).save()
        assert store_of(engine).check() == []
        proof = replay(store_of(engine), utc_now, encoder=TINY)
    assert proof.step == proof.replayed_step
    assert not np.isnan(proof.largest_difference)
    assert proof.largest_difference < GUARD

    stored = dict(
        fetch(
            url, "SELECT d.decision_id, c.external_id FROM decisions d JOIN creatives c USING (creative_id)"
        )
    )
    assert answered.creatives.items() <= stored.items(), "an answered decision is lost, or another one"
    assert len(stored) <= len(answered.creatives) + answered.n_workers, "more decisions than were asked for"
    learnt = dict(fetch(url, LEARNT))
    assert answered.clicks.items() <= learnt.items(), "an answered report is lost, or was not learnt"
    assert len(learnt) <= len(answered.clicks) + answered.n_workers
    conversions = Counter(
        dict(fetch(url, "SELECT decision_id, count(*) FROM outcomes WHERE kind = 'conversion' GROUP BY 1"))
    )
    for name, count in answered.conversions.items():
        assert conversions[name] == count, f"{name} has {conversions[name]} conversions, not {count}"
    ((settled,),) = fetch(url, "SELECT count(*) FROM decisions WHERE settled_at IS NOT NULL")
    assert settled == len(learnt)
    assert sum(arm.impressions for arm in arms) == len(learnt)
    assert sum(arm.clicks for arm in arms) == sum(learnt.values())
    assert sum(arm.conversions for arm in arms) == conversions.total()
    return len(stored), proof.step, proof.largest_difference
