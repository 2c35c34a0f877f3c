"""Four processes serve one database, one is killed every second; then all that was answered is looked for."""

import multiprocessing
import random
import time
from collections import Counter
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bandit import Engine
from bandit.engine import utc_now
from bandit.replaying import replay
from tests.bandit.engines import TINY, add_campaign, wait_for
from tests.processes.worker import CAMPAIGN, serve
from tests.storage.sql import execute, fetch

N_WORKERS = 4
KILL_EVERY_S = 1.0
START_S = 120.0  # the first start of all may have to compile
GUARD = 1e-9  # of a posterior standard deviation
LEARNT = "SELECT decision_id, click FROM decisions WHERE learnt_batch IS NOT NULL"


class Figures(NamedTuple):
    """What a run did.

    Attributes:
        seed: Of who was killed when.
        seconds: How long it killed.
        kills: How many processes were killed, the last four at the end included.
        kills_serving: How many of those before the end had answered something since their start.
        decisions: Decisions that were answered.
        outcomes: Reports that were answered, those sent twice counted once.
        errors: Answers that were errors; what they answered was asked again.
        unanswered: Decisions that are stored, whose answer was killed with its process.
        left_to_learn: Settled decisions that were not learnt when all had been killed.
        learners: How often a process took the lease.
        steps: Learning steps.
        largest_difference: Of the posterior from a replay of its log, in posterior standard deviations.
    """

    seed: int
    seconds: float
    kills: int
    kills_serving: int
    decisions: int
    outcomes: int
    errors: int
    unanswered: int
    left_to_learn: int
    learners: int
    steps: int
    largest_difference: float


class Kills(NamedTuple):
    """How many processes were killed, and how many of them while they served, not in their start."""

    all: int
    serving: int


class Notes(NamedTuple):
    """What the workers were answered: creatives, clicks and conversions by decision, and errors."""

    creatives: dict[str, str]
    clicks: dict[str, int]
    conversions: dict[str, int]
    errors: list[str]


def kill_and_check(url: str, folder: Path, *, seconds: float, seed: int) -> Figures:
    """Run the workers, kill one of them every second, and check the database that they leave.

    Args:
        url: A migrated database.
        folder: For the workers' notes.
        seconds: How long.
        seed: Of who is killed when.

    Returns:
        What was done; anything lost, doubled or unlearnt is an AssertionError.
    """
    with Engine.open(url, encoder=TINY, learn="manual") as engine:
        add_campaign(engine, name=CAMPAIGN)
    notes = [folder / f"worker{number}" for number in range(N_WORKERS)]
    kills = run(url, notes, seconds=seconds, random=random.Random(seed))  # noqa: S311  nothing secret
    answered = read(notes)
    ((left,),) = fetch(
        url, "SELECT count(*) FROM decisions WHERE settled_at IS NOT NULL AND learnt_batch IS NULL"
    )
    n_stored, steps, difference = check(url, answered)
    ((learners,),) = fetch(url, "SELECT max(number) FROM leases")
    return Figures(
        seed=seed,
        seconds=seconds,
        kills=kills.all,
        kills_serving=kills.serving,
        decisions=len(answered.creatives),
        outcomes=len(answered.clicks) + sum(answered.conversions.values()),
        errors=len(answered.errors),
        unanswered=n_stored - len(answered.creatives),
        left_to_learn=left,
        learners=learners,
        steps=steps,
        largest_difference=difference,
    )


def run(url: str, notes: list[Path], *, seconds: float, random: random.Random) -> Kills:
    """Run a worker for each file, kill one of them every second, and all at the end; return how many."""
    # Forked from a process that has imported everything and has no threads, a worker answers soon.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.processes.worker"])

    def start(file: Path) -> ForkServerProcess:
        process = context.Process(target=serve, args=(url, file), daemon=True)
        process.start()
        return process

    for file in notes:
        file.touch()
    workers = [start(file) for file in notes]
    kills = Kills(0, 0)
    try:
        wait_for(lambda: all(file.stat().st_size for file in notes), at_most_s=START_S)
        ends_at = time.monotonic() + seconds
        began = [0] * len(notes)
        while time.monotonic() < ends_at:
            time.sleep(KILL_EVERY_S)
            chosen = random.randrange(len(workers))
            killed = kill(workers[chosen])
            size = notes[chosen].stat().st_size  # who is killed in its start has answered nothing since
            kills = Kills(kills.all + killed, kills.serving + (size > began[chosen]))
            began[chosen] = size
            workers[chosen] = start(notes[chosen])
    finally:
        at_end = sum(map(kill, workers))
    return Kills(kills.all + at_end, kills.serving)


def kill(worker: ForkServerProcess) -> int:
    """Kill a process that runs; one that ended by itself is a failure."""
    assert worker.exitcode is None, f"a worker ended by itself with exit code {worker.exitcode}"
    worker.kill()
    worker.join()
    return 1


def read(notes: list[Path]) -> Notes:
    """Read what the workers were answered; an answer that differs from an earlier one is a failure."""
    answered = Notes({}, {}, {}, [])
    for line in (line for file in notes for line in file.read_text().splitlines()):
        what, name, *rest = line.split()
        if what == "failed":
            answered.errors.append(line)
        elif what == "decided":
            assert answered.creatives.setdefault(name, rest[0]) == rest[0], f"{name} was decided anew"
        else:
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
        engine._learner.save()
        assert engine._store.check() == []
        proof = replay(engine._store, utc_now, encoder=TINY)
    assert proof.step == proof.replayed_step
    assert not np.isnan(proof.largest_difference)
    assert proof.largest_difference < GUARD

    stored = dict(
        fetch(
            url, "SELECT d.decision_id, c.external_id FROM decisions d JOIN creatives c USING (creative_id)"
        )
    )
    assert answered.creatives.items() <= stored.items(), "an answered decision is lost, or another one"
    assert len(stored) <= len(answered.creatives) + N_WORKERS, "more decisions than were asked for"
    learnt = dict(fetch(url, LEARNT))
    assert answered.clicks.items() <= learnt.items(), "an answered report is lost, or was not learnt"
    assert len(learnt) <= len(answered.clicks) + N_WORKERS
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
