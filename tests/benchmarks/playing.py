"""How contenders are measured: regret on a world, time of a turn, programs compiled."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np

from tests.benchmarks.contenders import Contender
from tests.benchmarks.one_campaign import OneCampaign

BATCH = 256
_COMPILED = "/jax/core/compile/backend_compile_duration"  # recorded for programs taken from the cache, too


def regret(contender: Contender, campaign: OneCampaign) -> float:
    """Let a contender play a campaign in batches, each learnt before the next, and close it.

    Returns:
        Expected clicks lost against the best ad of each impression, by what showing all alike loses.
    """
    earned = np.empty(len(campaign.contexts))
    for start in range(0, len(campaign.contexts), BATCH):
        contexts = campaign.contexts[start : start + BATCH]
        batch = np.arange(start, start + len(contexts))
        earned[batch] = campaign.rates[batch, contender.choose(contexts)]
        contender.learn(campaign.uniforms[batch] < earned[batch])
    contender.close()
    best = campaign.rates.max(axis=1)
    return float((best - earned).sum() / (best - campaign.rates.mean(axis=1)).sum())


def timed_turn(contender: Contender, campaign: OneCampaign, impressions: range) -> tuple[float, float]:
    """Let a contender choose for some impressions and learn what became of them.

    Returns:
        How long it took to choose, and to learn, in seconds.
    """
    contexts = campaign.contexts[impressions.start : impressions.stop]
    began = time.perf_counter()
    chosen = contender.choose(contexts)
    choose_s = time.perf_counter() - began
    clicks = campaign.uniforms[impressions] < campaign.rates[impressions, chosen]
    began = time.perf_counter()
    contender.learn(clicks)
    return choose_s, time.perf_counter() - began


@contextmanager
def counting_compilations() -> Iterator[list[str]]:
    """Count the programs that JAX compiles or loads in this block, one entry each."""
    compiled: list[str] = []

    def listen(event: str, _: float, **about: str | int) -> None:
        if event == _COMPILED:
            compiled.append(str(about))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
