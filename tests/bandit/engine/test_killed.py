"""Killed in the middle of traffic: nothing acknowledged is lost, nothing is counted twice."""

import subprocess
import sys

import pytest

from tests.bandit.engines import Engines, add_campaign, assert_same, play, posterior
from tests.bandit.inspect import store_of
from tests.paths import ROOT

KILLED_AFTER = 60  # updates; far enough for a snapshot, a refit and a creative that came later


def serve(url: str, mode: str, *, kill_after: int | None, durability: str = "normal") -> list[list[str]]:
    """Run traffic in a process of its own until it ends or is killed, and return what it said."""
    said: list[list[str]] = []
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bandit.traffic", url, mode, durability],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process, process.stdout as lines:
        for line in lines:
            said.append(line.split())
            if kill_after is not None and len(said) == 2 * kill_after:
                process.kill()
    assert process.returncode == (1 if kill_after is None else -9)
    return said


@pytest.mark.kills
@pytest.mark.slow
@pytest.mark.parametrize("durability", ["normal", "full"])
def test_nothing_is_lost_or_counted_twice_after_sigkill(engines: Engines, durability: str) -> None:
    check_after(engines, serve(engines.url, "background", kill_after=KILLED_AFTER, durability=durability))


@pytest.mark.kills
@pytest.mark.slow
@pytest.mark.postgres
def test_nothing_is_lost_or_counted_twice_after_exit(postgres_engines: Engines) -> None:
    check_after(postgres_engines, serve(postgres_engines.url, "inline", kill_after=None))


def check_after(engines: Engines, said: list[list[str]]) -> None:
    """Compare what was acknowledged with what is stored, and the posterior with the log."""
    selected = {line[1]: line[2] for line in said if line[0] == "selected"}
    updated = {line[1]: int(line[2]) for line in said if line[0] == "updated"}
    assert len(updated) > 50

    # The killed one's lease is waited for by the database's clock; a test need not.
    engines.execute("UPDATE leases SET expires_at = '2000-01-01T00:00:00.000000Z'")
    engine = engines.open()
    stored = dict(engines.fetch("SELECT decision_id, creative_id FROM decisions"))
    names = dict(engines.fetch("SELECT creative_id, external_id FROM creatives"))
    assert selected.items() <= {key: names[creative] for key, creative in stored.items()}.items()
    # At most the last report was written without its acknowledgement being read.
    engine.settle()
    learnt = dict(engines.fetch("SELECT decision_id, click FROM decisions WHERE learnt_batch IS NOT NULL"))
    assert updated.items() <= learnt.items()
    ((conversions,),) = engines.fetch("SELECT sum(conversions) FROM arm_statistics")
    ((reported,),) = engines.fetch("SELECT count(*) FROM outcomes WHERE kind = 'conversion'")
    assert conversions == reported
    arms = engine.arms("spring")
    assert sum(arm.impressions for arm in arms) == len(learnt)
    assert sum(arm.clicks for arm in arms) == sum(learnt.values())
    assert store_of(engine).check() == []

    before = posterior(engine)
    engine.close()
    engines.forget_states()
    assert_same(posterior(engines.open(role="select")), before)


@pytest.mark.kills
def test_a_repeat_after_a_crash_changes_nothing(engines: Engines) -> None:
    """A caller who never got its answer asks again, and gets the first one."""
    engine = engines.open()
    add_campaign(engine)
    play(engine, 5)
    first = engine.select("spring", {"device": "mobile"}, decision_id="asked")
    engine.update("asked", click=True)
    # No close: what a killed process leaves is what it had committed.
    again = engines.open(role="select")
    assert again.select("spring", {"device": "mobile"}, decision_id="asked") == first
    assert again.update("asked", click=True).status == "repeated"
