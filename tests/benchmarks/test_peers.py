"""The engine beside other libraries, in one table: speed, latency, and regret on the same worlds.

Run it with `make bench`; docs/benchmarks.md says what can be compared, and what cannot. Machines are shared:
the contenders take turns, and each ratio is the median of the rounds' own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from jaxtyping import Float
from rich.console import Console
from rich.table import Table

from encoders import TextEncoder
from tests.benchmarks.contenders import BareInserts, Contender, CreativeBandit
from tests.benchmarks.one_campaign import ARMS, OneCampaign, open_campaign
from tests.benchmarks.peers import PEERS, Peer
from tests.benchmarks.playing import BATCH, counting_compilations, regret, timed_turn

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3_600)]

IMPRESSIONS, SEEDS = 20_000, range(10)
ROUNDS, SINGLES = 25, 40  # 1,000 single calls in all: ten of them lie beyond the 99th percentile
COLUMNS = (
    *("contender", "is told", "on disk", "decisions/s", "× engine", "learnt/s", "× engine"),
    *("select ms", "p99", "learn ms", "p99", "regret", "less the engine's"),
)


class Times(NamedTuple):
    """Seconds to choose and to learn: of each round's batch, and of its single calls."""

    batches: Float[np.ndarray, "rounds 2"]
    singles: Float[np.ndarray, "calls 2"]


def test_side_by_side(tmp_path: Path) -> None:
    encoder = TextEncoder()
    campaigns = [open_campaign(seed, IMPRESSIONS, encoder) for seed in SEEDS]
    peers, missing = _installed(PEERS, campaigns[0])
    engine = CreativeBandit(campaigns[0], encoder, tmp_path / "timed.db")
    bare = BareInserts(engine, tmp_path / "bare.db")
    timed = [engine, bare, *(peer.make(campaigns[0], 0) for peer in peers)]
    with counting_compilations() as compiled:
        times = _take_turns(timed, campaigns[0], compiled)
    for contender in timed:
        contender.close()
    lost = np.array(
        [
            [
                regret(
                    CreativeBandit(campaign, encoder, tmp_path / f"{seed}.db", seed=seed, numbered=True),
                    campaign,
                ),
                *(regret(peer.make(campaign, seed), campaign) for peer in peers),
            ]
            for seed, campaign in zip(SEEDS, campaigns, strict=True)
        ]
    )
    _print(timed, times, lost, missing, compiled)
    assert not compiled, "programs were compiled after the warm-up"


def _installed(peers: Sequence[Peer], campaign: OneCampaign) -> tuple[list[Peer], list[str]]:
    """Return the peers that can be made, and why the others cannot."""
    installed, missing = [], []
    for peer in peers:
        try:
            peer.make(campaign, 0).close()
            installed.append(peer)
        except ImportError as error:
            missing.append(f"{peer.name} is left out: {error}; `make bench` installs it")
    return installed, missing


def _take_turns(contenders: Sequence[Contender], campaign: OneCampaign, compiled: list[str]) -> list[Times]:
    """Time the contenders in rounds; the first is a warm-up, after which compilations count."""
    batches = np.empty((len(contenders), 1 + ROUNDS, 2))
    singles = np.empty((len(contenders), 1 + ROUNDS, SINGLES, 2))
    for number in range(1 + ROUNDS):
        first = number * (BATCH + SINGLES)
        after = first + BATCH
        for who, contender in enumerate(contenders):
            contender.prepare()
            batches[who, number] = timed_turn(contender, campaign, range(first, after))
            for i in range(SINGLES):
                singles[who, number, i] = timed_turn(contender, campaign, range(after + i, after + i + 1))
        if number == 0:
            compiled.clear()
    return [Times(many[1:], one[1:].reshape(-1, 2)) for many, one in zip(batches, singles, strict=True)]


def _print(
    contenders: Sequence[Contender],
    times: Sequence[Times],
    lost: Float[np.ndarray, "seeds players"],
    missing: Sequence[str],
    compiled: Sequence[str],
) -> None:
    table = Table(
        title=f"{ARMS} ads, contexts of two fields; {ROUNDS} rounds, batches of {BATCH}; "
        f"regret of {IMPRESSIONS:,} impressions in {len(SEEDS)} worlds"
    )
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:3] else "right")
    regrets = iter(lost.T)
    for contender, time in zip(contenders, times, strict=True):
        choose_s, learn_s = np.median(time.batches, axis=0)
        faster = np.median(times[0].batches / time.batches, axis=0)
        middle, slow = (1_000 * np.percentile(time.singles, percent, axis=0) for percent in (50, 99))
        is_bare = isinstance(contender, BareInserts)
        table.add_row(
            *(contender.name, contender.told, contender.keeps),
            *(f"{BATCH / choose_s:,.0f}", f"{faster[0]:.2f}", f"{BATCH / learn_s:,.0f}", f"{faster[1]:.2f}"),
            *(f"{ms:.3f}" for ms in (middle[0], slow[0], middle[1], slow[1])),
            *(("–", "–") if is_bare else _regrets(next(regrets), lost[:, 0])),
        )
    console = Console(width=180)
    console.print(table)
    console.print(f"programs compiled or loaded after the warm-up: {len(compiled)}", *missing, sep="\n")


def _regrets(own: Float[np.ndarray, "seeds"], engine: Float[np.ndarray, "seeds"]) -> tuple[str, str]:
    """Return a player's regret, and the paired difference to the engine's, with standard errors."""
    regret_, less = (
        f"{of.mean():+.3f} ± {of.std(ddof=1) / len(of) ** 0.5:.3f}" for of in (own, own - engine)
    )
    return regret_.removeprefix("+"), "–" if np.array_equal(own, engine) else less
