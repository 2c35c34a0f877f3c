"""Four processes serve one database, one is killed every second; then all that was answered is looked for."""

import random
import time
from pathlib import Path
from typing import NamedTuple

from tests.processes.answers import check, read
from tests.processes.workers import Workers
from tests.storage.sql import fetch

N_WORKERS = 4
KILL_EVERY_S = 1.0


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
    with Workers(url, folder, [""] * N_WORKERS) as workers:
        kills = run(workers, seconds=seconds, random=random.Random(seed))  # noqa: S311  nothing secret
    answered = read(workers.notes)
    ((left,),) = fetch(
        url, "SELECT count(*) FROM decisions WHERE settled_at IS NOT NULL AND learnt_batch IS NULL"
    )
    n_stored, steps, difference = check(url, answered)
    ((learners,),) = fetch(url, "SELECT max(number) FROM leases")
    return Figures(
        seed=seed,
        seconds=seconds,
        kills=kills.all + N_WORKERS,
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


def run(workers: Workers, *, seconds: float, random: random.Random) -> Kills:
    """Kill a worker every second and start another one in its place."""
    kills = Kills(0, 0)
    ends_at = time.monotonic() + seconds
    began = [0] * N_WORKERS
    while time.monotonic() < ends_at:
        time.sleep(KILL_EVERY_S)
        chosen = random.randrange(N_WORKERS)
        workers.replace(chosen)
        size = workers.size(chosen)  # who is killed in its start has answered nothing since
        kills = Kills(kills.all + 1, kills.serving + (size > began[chosen]))
        began[chosen] = size
    return kills
