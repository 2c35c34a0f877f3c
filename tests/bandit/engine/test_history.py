"""Warm starts: history with contexts, from another database, and safe to repeat."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bandit import Creative, Engine, HistoryRow
from bandit.errors import HistoryError
from bandit.retention import campaigns_to_prune, prune_campaigns
from bandit.warm_start.database import read_database
from bandit.warm_start.importer import History, import_history
from encoders import TextEncoder
from storage import DatabaseNotFoundError, Store
from tests.bandit.engines import MINUTE, Clock, Engines, add_campaign, assert_same, play, posterior
from tests.bandit.inspect import model_of, replica_of, store_of


def rows(*counts: tuple[str, dict[str, str | float | bool], int, int]) -> list[HistoryRow]:
    return [
        HistoryRow(
            campaign="old",
            creative=Creative(name, headline=f"warm {name}"),
            context=context,
            impressions=impressions,
            clicks=clicks,
        )
        for name, context, impressions, clicks in counts
    ]


PAST = rows(
    ("a", {"device": "mobile", "age": 20.0}, 300, 30),
    ("a", {"device": "desktop", "age": 40.0}, 300, 3),
    ("b", {"device": "mobile", "age": 20.0}, 200, 18),
    ("b", {"device": "tablet", "age": 30.0}, 20, 0),
    ("b", {}, 100, 2),
)


def test_contexts_of_the_history_are_learnt(engines_on_both: Engines) -> None:
    engine = engines_on_both.open()
    imported = engine.warm_start(PAST)
    assert imported.is_new
    ((name, counts),) = imported.campaigns.items()
    assert (name, counts.creatives, counts.impressions, counts.clicks) == ("old", 2, 920, 53)
    slots = engines_on_both.fetch("SELECT field, level FROM context_slots ORDER BY slot")
    assert slots == [("device", None), ("age", None), ("device", "mobile"), ("device", "desktop")]
    # What has no slot yet is counted on by those who come.
    assert engines_on_both.fetch("SELECT level, decisions FROM context_counts") == [("tablet", 20)]
    ages = np.repeat([20.0, 40.0, 30.0], [500, 300, 20])
    ((mean, sd),) = engines_on_both.fetch(
        "SELECT mean, sd FROM context_slots WHERE field = 'age' AND slot = 1"
    )
    assert (mean, sd) == pytest.approx((ages.mean(), ages.std()))
    mobile, desktop = (
        {"device": device, "age": age} for device, age in (("mobile", 20.0), ("desktop", 40.0))
    )
    assert engine.explain("old", "a", mobile).ctr > 3 * engine.explain("old", "a", desktop).ctr
    new = Creative("new", headline="another one")
    engine.add_creatives("old", [new])
    assert engine.explain("old", "new", mobile).ctr > 2 * engine.explain("old", "new", desktop).ctr
    arms = {arm.creative_id: arm for arm in engine.arms("old")}
    assert (arms["a"].history_impressions, arms["a"].history_clicks) == (600, 33)


def test_a_slot_given_later_changes_nothing_of_the_history(engines: Engines) -> None:
    engine = engines.open()
    engine.warm_start(PAST)
    before = posterior(engine)
    store_of(engine).models.give_context_slot(1, "device", "tablet")
    engine.close()
    engines.forget_states()
    assert_same(posterior(engines.open()), before, 1e-9)


def test_the_same_import_again_adds_nothing(engines: Engines) -> None:
    engine = engines.open()
    first = engine.warm_start(PAST)
    before, n_rows = posterior(engine), engines.row_counts()
    again = engine.warm_start(reversed(PAST))
    assert (again.is_new, again.import_id, again.campaigns) == (False, first.import_id, first.campaigns)
    assert engines.row_counts() == n_rows
    assert_same(posterior(engine), before)
    assert engine.warm_start(PAST, import_id="the same once more").is_new
    assert [arm.history_impressions for arm in engine.arms("old")] == [1200, 640]
    assert not engine.warm_start([*PAST, *PAST], import_id="the same once more").is_new


def test_an_import_whose_fit_was_never_finished(engines: Engines, clock: Clock) -> None:
    """As a process leaves it that is killed after the counts are stored."""
    engine = engines.open()
    import_history(store_of(engine), model_of(engine), History(rows=PAST), now=clock())
    assert replica_of(engine).view.step == 0
    assert not engine.warm_start(PAST).is_new
    assert engines.fetch("SELECT kind FROM learn_log") == [("refit",)]
    assert [arm.history_impressions for arm in engine.arms("old")] == [600, 320]
    other = engines.open(role="select")
    assert_same(posterior(other), posterior(engine))


@pytest.fixture
def source(sqlite_template: Path, tmp_path: Path, tiny_encoder: TextEncoder) -> Engines:
    """A database that has learnt: decisions with contexts, its own history, pruned counts."""
    path = tmp_path / "source.db"
    path.write_bytes(sqlite_template.read_bytes())
    engines = Engines(f"sqlite:///{path}", tiny_encoder, Clock())
    engine = engines.open()
    add_campaign(engine, "calm", "urgent", "plain", "new", horizon=7_000, control_share=0.1)
    engine.set_traffic("spring", "calm", floor=0.1, cap=0.9)
    engine.retire("spring", "new")
    engine.retire("spring", "plain")
    play(engine, 150, learn_every=50)
    engine.warm_start(PAST)
    engine.pause("old")
    engine.add_campaign("slow")
    engine.add_creatives("slow", [Creative("s", headline="slow")])
    engine.select("slow", decision_id="pending")
    engine.close()
    engines.execute(
        "INSERT INTO pruned_counts (creative_id, day, slots_version, forgotten_step, is_control, "
        "context_hash, context, impressions, clicks) "
        "VALUES (1, '2026-02-01', 0, 0, false, 'a', '{\"device\":\"mobile\"}', 40, 4)"
    )
    return engines


def test_another_database_is_taken_over(source: Engines, engines_on_both: Engines, clock: Clock) -> None:
    engines, url = engines_on_both, source.url
    clock.pass_(MINUTE)
    engine = engines.open()
    imported = engine.warm_start_from(url)
    learnt = source.fetch("SELECT count(*), sum(click) FROM decisions WHERE learnt_batch IS NOT NULL")[0]
    counts = {name: (c.creatives, c.impressions, c.clicks) for name, c in imported.campaigns.items()}
    assert counts == {"spring": (4, learnt[0] + 40, learnt[1] + 4), "old": (2, 920, 53), "slow": (1, 0, 0)}
    # The same numbers, creative by creative and context by context.
    by_context = (
        "SELECT external_id, context, sum(n), sum(clicks) FROM ({}) AS past "
        "JOIN creatives ON creatives.creative_id = past.creative_id "
        "GROUP BY external_id, context ORDER BY external_id, context"
    )
    told = [
        f"SELECT creative_id, context, impressions AS n, clicks FROM {t}"
        for t in ("history_counts", "pruned_counts")
    ]
    told.append("SELECT creative_id, context, 1, click FROM decisions WHERE learnt_batch IS NOT NULL")
    theirs = source.fetch(by_context.format(" UNION ALL ".join(told)))
    assert len(theirs) > 20
    ours = engines.fetch(by_context.format(told[0] + " WHERE impressions > 0"))
    assert [(*row[:2], int(row[2]), int(row[3])) for row in ours] == theirs
    settings = (
        "SELECT name, horizon, attribution_window_s, control_share, status FROM campaigns ORDER BY name"
    )
    assert engines.fetch(settings) == source.fetch(settings)
    creatives = "SELECT external_id, content, floor, cap, status FROM creatives ORDER BY external_id"
    assert engines.fetch(creatives) == source.fetch(creatives)
    assert engines.fetch("SELECT count(*) FROM decisions") == [(0,)]
    # And what they teach: there, only mobile was ever clicked.
    mobile, desktop = (engine.explain("spring", "calm", {"device": d}).ctr for d in ("mobile", "desktop"))
    assert mobile > 3 * desktop
    assert not engine.warm_start_from(url).is_new
    assert store_of(engine).check() == []


def test_conversions_of_clicks_are_counted_once(engines_on_both: Engines, clock: Clock) -> None:
    engine = engines_on_both.open()
    add_campaign(engine, "only", conversion_window=0)
    for name in ("two orders", "none", "invalid", "no click"):
        engine.select("spring", decision_id=name)
    for key in "ab":
        engine.update("two orders", click=True, conversion=True, value=1.0, key=key)
    engine.update("none", click=True)
    engine.update("invalid", click=True, conversion=True, value=1.0)
    engine.update("invalid", conversion=True, valid=False)
    engine.update("no click", click=False, conversion=True, value=1.0)
    engine.settle()
    engine.refit()
    engine.close()
    (row,) = read_database(engines_on_both.url, with_conversions=True).rows
    assert (row.impressions, row.clicks, row.conversions) == (4, 3, 1)
    assert read_database(engines_on_both.url).rows[0].conversions is None
    clock.pass_(timedelta(days=3))
    with Store.open(engines_on_both.url) as store:
        campaigns = campaigns_to_prune(store, older_than=timedelta(days=1), now=clock())
        assert sum(done.pruned for done in prune_campaigns(store, campaigns)) == 4
    # Of what was pruned it is only known how many there were, of any impression.
    (row,) = read_database(engines_on_both.url, with_conversions=True).rows
    assert (row.impressions, row.clicks, row.conversions) == (4, 3, 3)
    with engines_on_both.open() as engine:
        engine.add_campaign("old")
        engine.warm_start(
            [HistoryRow(campaign="old", creative=Creative("x", headline="Free"), impressions=9, clicks=3)]
        )
    rows = read_database(engines_on_both.url, with_conversions=True).rows
    assert {row.creative.id: row.conversions for row in rows} == {"only": 3, "x": None}


def test_a_database_that_cannot_be_taken_over(
    source: Engines, engines: Engines, clock: Clock, sqlite_template: Path, tmp_path: Path
) -> None:
    clock.pass_(MINUTE)
    engine = engines.open()
    add_campaign(engine, "calm")
    before = engines.row_counts()
    with pytest.raises(DatabaseNotFoundError, match=r"nowhere\.db"):
        engine.warm_start_from(tmp_path / "nowhere.db")
    with pytest.raises(HistoryError, match=r"ads\.db is this database itself"):
        engine.warm_start_from(engines.url)
    empty = tmp_path / "empty.db"
    empty.write_bytes(sqlite_template.read_bytes())
    Engine.open(empty).close()
    with pytest.raises(HistoryError, match=r"empty\.db has no creatives"):
        engine.warm_start_from(empty)
    source.execute("""UPDATE creatives SET content = '{"headline":"other"}' WHERE external_id = 'calm'""")
    with pytest.raises(HistoryError, match="'calm' of campaign 'spring' is there already with other texts"):
        engine.warm_start_from(source.url)
    source.execute("UPDATE creatives SET external_id = 'c' WHERE external_id = 'calm'")
    assert engines.row_counts() == before
    engine.select("spring", {"device": 7})
    before = engines.row_counts()
    with pytest.raises(HistoryError) as raised:
        engine.warm_start_from(source.url)
    summary, first, *_ = str(raised.value).splitlines()
    assert re.search(r"source\.db: \d+ problems; nothing was imported", summary)
    assert "'c' of campaign 'spring': context field 'device': expected a number" in first
    assert engines.row_counts() == before


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 201, 7])
def test_a_name_that_cannot_be_an_imports(engines: Engines, name: Any) -> None:
    engine = engines.open()
    before = engines.row_counts()
    with pytest.raises(
        HistoryError, match="expected import_id to be a string of 1 to 200 printable characters"
    ):
        engine.warm_start(PAST, import_id=name)
    assert engines.row_counts() == before


def test_a_context_that_cannot_be_used(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine)
    engine.select("spring", {"device": "mobile"})
    before = engines.row_counts()
    with pytest.raises(HistoryError) as raised:
        engine.warm_start(rows(("a", {"device": "x"}, 1, 0), ("a", {"device": 7}, 1, 0), ("a", json, 1, 0)))  # type: ignore[arg-type]  # wrong on purpose
    assert str(raised.value).splitlines()[1:] == [
        "  row 2: creative 'a' of campaign 'old': context field 'device': expected a string, as in all "
        "requests before, got the number 7",
        "  row 3: creative 'a' of campaign 'old': expected the context to be a mapping, got module",
    ]
    assert engines.row_counts() == before
