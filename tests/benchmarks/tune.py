"""Choose the peers' settings, twelve of each kind: `python -m tests.benchmarks.tune [GRID …]`.

They play worlds of other seeds than the benchmark's. The engine is not tuned.
"""

import sys
from typing import Final

import numpy as np
from rich.console import Console

from encoders import TextEncoder
from tests.benchmarks.one_campaign import open_campaign
from tests.benchmarks.peers import BayesianBandits, MabWiser, Peer, VowpalWabbit, peer
from tests.benchmarks.playing import regret

IMPRESSIONS: Final = 20_000
SEEDS: Final = range(100, 104)
LIMITS: Final = "--cb_min_cost -1 --cb_max_cost 0"  # the cost of a click is -1
SQUARECB: Final = "--squarecb --gamma_scale"
VW: Final = {
    "components": (
        f"{SQUARECB} 1000",
        f"{SQUARECB} 1000 -l 0.05",
        f"{SQUARECB} 100 -l 0.05",
        f"{SQUARECB} 1000 -l 0.05 --elim --mellowness 0.001 {LIMITS}",
    ),
    "words": (
        f"{SQUARECB} 1000",
        f"{SQUARECB} 1000 -l 0.05",
        f"{SQUARECB} 10000",
        f"{SQUARECB} 1000 --elim --mellowness 0.001 {LIMITS}",
        f"--regcb --mellowness 0.001 {LIMITS}",
        f"--regcbopt --mellowness 0.001 {LIMITS}",
        "--bag 5",
        "--epsilon 0.02",
    ),
}
BAYESIAN: Final = {
    "Thompson": (0.35, 0.5, 0.7),
    "UCB 0.85": (1.0, 2.0),
    "ε-greedy 0.02": (0.5, 1.0, 2.0),
    "IDS": (0.12, 0.25, 0.5, 1.0),
}
GRIDS: Final[dict[str, list[Peer]]] = {
    "vw": [
        peer(VowpalWabbit, options=options, texts=texts) for texts, every in VW.items() for options in every
    ],
    "lints": [
        peer(MabWiser, policy="LinTS", alpha=alpha, l2_lambda=l2_lambda)
        for alpha in (0.01, 0.02, 0.05, 0.1)
        for l2_lambda in (1.0, 5.0, 20.0)
    ],
    "linucb": [
        peer(MabWiser, policy="LinUCB", alpha=alpha, l2_lambda=l2_lambda)
        for alpha in (0.01, 0.02, 0.05, 0.1)
        for l2_lambda in (10.0, 50.0, 200.0)
    ],
    "bayesian": [
        peer(BayesianBandits, policy=policy, scale=scale)
        for policy, scales in BAYESIAN.items()
        for scale in scales
    ],
}


def main() -> None:
    """Play every setting of the named grids, or of all, and print them, each grid's best first."""
    console = Console()
    encoder = TextEncoder()
    campaigns = {seed: open_campaign(seed, IMPRESSIONS, encoder) for seed in SEEDS}
    for name in sys.argv[1:] or GRIDS:
        lost = [
            (
                np.mean([regret(one.make(campaign, seed), campaign) for seed, campaign in campaigns.items()]),
                one,
            )
            for one in GRIDS[name]
        ]
        console.print(name, style="bold")
        for mean, one in sorted(lost, key=lambda pair: pair[0]):
            console.print(f"  {mean:.3f}  {one.name}", highlight=False)


if __name__ == "__main__":
    main()
