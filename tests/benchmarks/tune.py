"""Choose the peers' settings, twelve of each kind: `python -m tests.benchmarks.tune`.

They play worlds of other seeds than the benchmark's. The engine is not tuned.
"""

from typing import Final

import numpy as np
from rich.console import Console

from encoders import TextEncoder
from tests.benchmarks.one_campaign import open_campaign
from tests.benchmarks.peers import BayesianBandits, MabWiser, Peer, VowpalWabbit, peer
from tests.benchmarks.playing import regret

IMPRESSIONS: Final = 20_000
SEEDS: Final = range(100, 104)
CLICKS_COST: Final = "--cb_min_cost -1 --cb_max_cost 0"
GRIDS: Final[dict[str, list[Peer]]] = {
    "Vowpal Wabbit": [],
    "MABWiser LinTS": [
        peer(MabWiser, policy="LinTS", alpha=alpha, l2_lambda=l2_lambda)
        for alpha in (0.01, 0.02, 0.05, 0.1)
        for l2_lambda in (1.0, 5.0, 20.0)
    ],
    "MABWiser LinUCB": [
        peer(MabWiser, policy="LinUCB", alpha=alpha, l2_lambda=l2_lambda)
        for alpha in (0.01, 0.02, 0.05, 0.1)
        for l2_lambda in (10.0, 50.0, 200.0)
    ],
    "bayesianbandits": [
        *(
            peer(BayesianBandits, policy="Thompson", scale=scale)
            for scale in (0.25, 0.35, 0.5, 0.7, 1.0, 2.0)
        ),
        *(
            peer(BayesianBandits, policy=policy, scale=scale)
            for policy in ("UCB 0.55", "UCB 0.7", "ε-greedy 0.02")
            for scale in (0.5, 1.0)
        ),
    ],
}


def main() -> None:
    """Play every setting and print them, each grid's best first."""
    console = Console()
    encoder = TextEncoder()
    campaigns = {seed: open_campaign(seed, IMPRESSIONS, encoder) for seed in SEEDS}
    for name, grid in GRIDS.items():
        lost = [
            (
                np.mean([regret(one.make(campaign, seed), campaign) for seed, campaign in campaigns.items()]),
                one,
            )
            for one in grid
        ]
        console.print(name, style="bold")
        for mean, one in sorted(lost, key=lambda pair: pair[0]):
            console.print(f"  {mean:.3f}  {one.name}", highlight=False)


if __name__ == "__main__":
    main()
