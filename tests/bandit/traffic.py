"""A process that serves traffic until it is killed; it says each report that was acknowledged.

Run as: python -m tests.bandit.traffic URL MODE DURABILITY, with MODE one of the engine's modes of learning.
"""

import os
import sys
from typing import Any

from bandit import Engine
from tests.bandit.engines import add_campaign, creatives
from tests.paths import TINY


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main(url: str, mode: str, durability: str) -> None:
    settings: dict[str, Any] = {"learn": mode, "durability": durability}
    engine = Engine.open(url, encoder=TINY, **settings)
    add_campaign(engine)
    for i in range(100_000):
        decision = engine.select("spring", {"device": ("mobile", "desktop")[i % 2]})
        say("selected", decision.id, decision.creative_id)
        engine.update(decision.id, click=i % 3 == 0, conversion=i % 5 == 0, value=2.0)
        say("updated", decision.id, int(i % 3 == 0))
        if i == 20:
            engine.add_creatives("spring", creatives("later"))
        if i == 30:
            engine.refit()
        if i == 50 and mode == "inline":
            engine.update(engine.select("spring", decision_id="the-last-one").id, click=True)
            say("updated", "the-last-one", 1)
            os._exit(1)  # no handler, no flush, no close


if __name__ == "__main__":
    main(*sys.argv[1:])
