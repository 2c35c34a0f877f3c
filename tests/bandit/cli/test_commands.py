"""The commands do what they say, and print nothing but the result."""

import csv
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from storage import Store, schema_status
from storage.maintenance.upgrade import head_revision
from tests.bandit.cli.conftest import Run
from tests.storage.sql import execute, fetch


def test_from_nothing_to_a_learnt_click(run: Run) -> None:
    assert run("campaign", "add", "spring-sale", "--horizon", "200000", "--attribution-window", "0").out == (
        "added campaign spring-sale\n"
    )
    assert run("creative", "add", "spring-sale", "calm", "--headline", "Free returns, always").out == (
        "added creative calm to campaign spring-sale\n"
    )
    assert run("creative", "add", "spring-sale", "urgent", "--body", "48-hour flash sale").code == 0
    shown = run("select", "spring-sale", "--context", "device=mobile", "-c", "new=true", "--id", "d1").out
    words = re.fullmatch(r"creative +(calm|urgent) *\npropensity +([\d.]+) % *\ndecision +d1 *\n", shown)
    assert words is not None, shown
    assert run("update", "d1", "--click").out == "recorded and learnt\n"
    arms = {arm["creative_id"]: arm for arm in run("arms", "spring-sale", "--json").json["arms"]}
    assert list(arms) == ["calm", "urgent"]
    assert (arms[words[1]]["impressions"], arms[words[1]]["clicks"]) == (1, 1)
    assert fetch("sqlite:///ads.db", "SELECT horizon, attribution_window_s FROM campaigns") == [
        (200_000, 0.0)
    ]
    assert fetch("sqlite:///ads.db", "SELECT context FROM decisions") == [('{"device":"mobile","new":true}',)]


def test_settings_of_a_campaign(run: Run) -> None:
    options = "--horizon none --attribution-window 2h --conversion-window 3d --uniform-share 0.05"
    times = "--control-share 0.1 --starts-at 2026-03-01T00:00:00+01:00 --ends-at 2026-04-01T00:00:00Z"
    assert run("campaign", "add", "autumn", *options.split(), *times.split()).code == 0
    with Store.open("ads.db") as store:
        record = store.campaigns.get("autumn")
    assert (record.horizon, record.attribution_window_s, record.conversion_window_s) == (None, 7200, 259_200)
    assert (record.uniform_share, record.control_share) == (0.05, 0.1)
    assert str(record.starts_at) == "2026-02-28 23:00:00+00:00"
    assert str(record.ends_at) == "2026-04-01 00:00:00+00:00"


def test_select_a_list(run: Run, ads: Path) -> None:
    places = run("select", "spring-sale", "--places", "2", "--id", "page-1", "--json").json["places"]
    assert [place["id"] for place in places] == ["page-1", "page-1~1"]
    assert len({place["creative_id"] for place in places}) == 2
    product = places[0]["propensity"] * places[1]["propensity"]
    assert [place["list_propensity"] for place in places] == [pytest.approx(product)] * 2
    shown = run("select", "spring-sale", "--places", "2", "--id", "page-1").out
    assert all(place["creative_id"] in shown for place in places)
    assert run("select", "spring-sale", "--places", "0").code == 2


def test_select_as_json(run: Run, ads: Path) -> None:
    decision = run("select", "spring-sale", "--json", "--eligible", "calm", "--eligible", "urgent").json
    assert set(decision) == {
        *("id", "campaign", "creative_id", "propensity", "propensities", "model_version", "decided_at"),
        *("place", "list_propensity", "is_control"),
    }
    assert sum(decision["propensities"].values()) == pytest.approx(1)
    assert decision["propensities"][decision["creative_id"]] == decision["propensity"]
    assert decision["decided_at"].endswith("+00:00")
    assert (
        run("select", "spring-sale", "--id", "x", "--exclude", "calm", "--json").json["creative_id"]
        == "urgent"
    )
    again = run("select", "spring-sale", "--id", "x", "--exclude", "calm", "--json").json
    assert fetch(f"sqlite:///{ads}", "SELECT count(*) FROM decisions") == [(2,)]
    assert again["id"] == "x"


def test_what_became_of_a_report(run: Run, ads: Path) -> None:
    run("select", "spring-sale", "--id", "d1")
    answer = run("update", "d1", "--no-click", "--json").json
    assert answer == {"decision_id": "d1", "status": "recorded", "has_settled": True, "n_learnt": 1}
    assert run("update", "d1", "--no-click").out == "already reported; nothing changed\n"
    conversion = ("update", "d1", "--conversion", "--value", "12.5", "--key", "order-7")
    assert run(*conversion).out == "recorded\n"
    assert run(*conversion).out == "already reported; nothing changed\n"
    assert run(*conversion[:-1], "order-8", "--json").json["status"] == "recorded"
    arms = run("arms", "spring-sale", "--json").json["arms"]
    assert sum(arm["value"] for arm in arms) == 25.0
    assert sum(arm["clicks"] for arm in arms) == 0


def test_a_report_waits_for_its_window(run: Run, ads: Path) -> None:
    run("campaign", "add", "slow")
    run("creative", "add", "slow", "calm", "--headline", "Free returns")
    run("select", "slow", "--id", "d1")
    assert (
        run("update", "d1", "--click").out == "recorded; it is learnt when its attribution window is over\n"
    )
    assert run("arms", "slow", "--json").json["arms"][0]["pending_impressions"] == 1


def test_a_click_after_its_window(run: Run, ads: Path) -> None:
    run("campaign", "add", "quick", "--attribution-window", "0.1s", "--conversion-window", "0.1")
    run("creative", "add", "quick", "calm", "--headline", "Free returns")
    run("select", "quick", "--id", "d1")
    time.sleep(0.15)
    assert run("update", "d1", "--click").out == "kept, but its attribution window was over: not learnt\n"
    assert run("update", "d1", "--conversion").out == "kept, but its conversion window was over: not learnt\n"
    arm = run("arms", "quick", "--json").json["arms"][0]
    assert (arm["impressions"], arm["clicks"], arm["conversions"]) == (1, 0, 0)


def test_the_table_of_arms(run: Run, ads: Path) -> None:
    table = run("arms", "spring-sale").out.splitlines()
    heading = "creative status impressions clicks pending imported CTR 95 % interval P(best) share of 24 h"
    assert table[0].split() == heading.split()
    assert table[2].split()[:4] == ["calm", "active", "0", "0"]
    assert re.search(r"\d\.\d\d % +\d\.\d\d to \d+\.\d\d % +\d+\.\d %$", table[2].rstrip())


def test_pausing(run: Run, ads: Path) -> None:
    assert (
        run("creative", "pause", "spring-sale", "calm").out
        == "paused creative calm of campaign spring-sale\n"
    )
    assert run("select", "spring-sale", "--json").json["propensities"] == {"urgent": 1.0}
    assert run("creative", "resume", "spring-sale", "calm").code == 0
    assert len(run("select", "spring-sale", "--json").json["propensities"]) == 2
    assert run("creative", "retire", "spring-sale", "urgent").code == 0
    assert "is retired and cannot become active" in run("creative", "resume", "spring-sale", "urgent").error
    assert run("campaign", "pause", "spring-sale").out == "paused campaign spring-sale\n"
    assert "'spring-sale' is paused" in run("select", "spring-sale").error
    assert run("campaign", "resume", "spring-sale").code == 0
    assert run("select", "spring-sale").code == 0


def test_creatives_of_a_file(run: Run, ads: Path) -> None:
    Path("more.csv").write_text(
        "creative,headline,body,picture,note,cap\nwarm,Warm shoes,,https://shop.example/1.png,x,0.25\n"
        '\ncosy,"Cosy, and ""soft""","two\nlines",,,\n',
        encoding="utf-8-sig",
    )
    assert run("creative", "add", "spring-sale", "--csv", "more.csv").out == (
        "added 2 creatives to campaign spring-sale\n"
    )
    with Store.open(ads) as store:
        added = {creative.external_id: creative for creative in store.campaigns.creatives("spring-sale")}
    assert added["warm"].picture == "https://shop.example/1.png"
    assert (added["warm"].cap, added["cosy"].cap) == (0.25, 1.0)
    assert added["cosy"].content == {"headline": 'Cosy, and "soft"', "body": "two\nlines"}


def test_explaining_a_decision(run: Run, ads: Path) -> None:
    chosen = run("select", "spring-sale", "--id", "d1", "--json").json["creative_id"]
    explanation = run("explain", "--decision", "d1", "--json").json
    assert (explanation["creative_id"], explanation["draw"]["decision_id"]) == (chosen, "d1")
    assert run("explain", "--decision", "d1").out.splitlines()[-1] == explanation["sentence"]


def test_limits(run: Run, ads: Path) -> None:
    added = ("creative", "add", "spring-sale", "warm", "--headline", "Warm", "--floor", "0.1", "--cap", "0.5")
    assert run(*added).code == 0
    assert run("creative", "limit", "spring-sale", "calm", "--floor", "0.2").out == (
        "creative calm of campaign spring-sale has floor 0.2\n"
    )
    assert run("creative", "limit", "spring-sale", "warm", "--floor", "0", "--cap", "0.4").code == 0
    with Store.open(ads) as store:
        known = store.campaigns.creatives("spring-sale")
    assert {creative.external_id: (creative.floor, creative.cap) for creative in known} == {
        "calm": (0.2, 1.0),
        "urgent": (0.0, 1.0),
        "warm": (0.0, 0.4),
    }


def test_importing_history(run: Run) -> None:
    Path("history.csv").write_text(
        "campaign,creative,headline,impressions,clicks\n"
        "spring-sale,calm,Free returns,4000,80\nspring-sale,urgent,Flash sale,1000,30\n"
        "autumn,calm,Boots,10,0\n"
    )
    totals = run("import", "history.csv", "--json").json["campaigns"]
    assert run("import", "history.csv", "--json").json["is_new"] is False
    assert run("import", "history.csv").out == "imported before; nothing was added\n"
    assert totals == [
        {"campaign": "spring-sale", "creatives": 2, "impressions": 5000, "clicks": 110},
        {"campaign": "autumn", "creatives": 1, "impressions": 10, "clicks": 0},
    ]
    arms = run("arms", "spring-sale", "--json").json["arms"]
    assert [(arm["history_clicks"], arm["history_impressions"]) for arm in arms] == [(80, 4000), (30, 1000)]
    assert arms[0]["ctr"] == pytest.approx(0.02, rel=0.2)
    assert "80 of 4,000" in run("arms", "spring-sale").out


def test_importing_a_decision_log_and_a_database(run: Run, ads: Path) -> None:
    for i in range(4):
        run("select", "spring-sale", "-c", "device=mobile", "--id", f"d{i}")
    for i in range(3):
        run("update", f"d{i}", "--click" if i == 1 else "--no-click")
    with closing(sqlite3.connect(ads)) as connection, Path("decisions.csv").open("w", newline="") as file:
        log = connection.execute("SELECT * FROM decision_log")
        writer = csv.writer(file)
        writer.writerow(column[0] for column in log.description)
        writer.writerows(log)
    for source, database in (("decisions.csv", "log.db"), ("--from-database=ads.db", "all.db")):
        (told,) = run("import", source, "-d", database, "--json").json["campaigns"]
        assert (told["campaign"], told["impressions"], told["clicks"]) == ("spring-sale", 3, 1)
        rows = fetch(
            f"sqlite:///{database}",
            "SELECT context, sum(impressions), sum(clicks) FROM history_counts WHERE impressions GROUP BY 1",
        )
        assert rows == [('{"device":"mobile"}', 3, 1)]
    texts = "SELECT external_id, content FROM creatives ORDER BY external_id"
    theirs = fetch("sqlite:///ads.db", texts)
    assert fetch("sqlite:///all.db", texts) == theirs
    assert set(fetch("sqlite:///log.db", texts)) <= set(theirs)


def test_a_database_by_option_and_by_environment(
    run: Run, ads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = ads.rename(tmp_path / "elsewhere.db")
    assert run("arms", "spring-sale", "-d", f"sqlite:///{elsewhere}").code == 0
    monkeypatch.setenv("CREATIVE_BANDIT_DATABASE", str(elsewhere))
    assert run("arms", "spring-sale").code == 0
    assert run("storage", "check").out == f"sqlite:///{elsewhere} is sound\n"


def test_names_that_look_like_markup(run: Run, ads: Path) -> None:
    name = "[red]50 % :smile:[/red]"
    assert run("campaign", "add", name).out == f"added campaign {name}\n"
    assert run("creative", "add", name, "[bold]a", "--headline", "Free").code == 0
    assert "[bold]a " in run("arms", name).out
    assert run("campaign", "add", name).error == f"campaign {name!r} exists; choose another name"


def test_upgrading(run: Run, ads: Path) -> None:
    head = head_revision()
    place = f"sqlite:///{ads}"
    assert run("storage", "upgrade", ads).out == f"{place} has the newest schema already ({head})\n"
    new = ads.with_name("old.db")
    sqlite3.connect(new).close()
    # As a database from before the first stamp: our version table, and nothing in it.
    execute(f"sqlite:///{new}", "CREATE TABLE creative_bandit_version (version_num VARCHAR(32) NOT NULL)")
    assert run("storage", "upgrade", new).out == f"upgraded sqlite:///{new} from schema none to {head}\n"
    assert schema_status(new).state == "current"


def test_checking(run: Run, ads: Path) -> None:
    assert run("storage", "check", ads, "--json").json["findings"] == []
    execute(f"sqlite:///{ads}", "UPDATE arm_statistics SET impressions = 7, clicks = 3 WHERE creative_id = 1")
    answer = run("storage", "check", ads)
    assert answer.code == 1
    assert "statistics say 3 clicks of 7 impressions" in answer.out
    assert answer.out.splitlines()[-1] == f"1 finding in sqlite:///{ads}"
    assert run("storage", "check", ads, "--json").code == 1


def test_settle_needs_no_report(run: Run, ads: Path) -> None:
    assert run("campaign", "add", "timed", "--attribution-window", "0.2").code == 0
    assert run("creative", "add", "timed", "calm", "--headline", "Free returns").code == 0
    assert run("select", "timed").code == 0
    time.sleep(0.3)
    assert run("settle", "--json").json == {"settled": 1, "learnt": 1}
    assert run("settle").out == "settled 0 decisions, learnt 0\n"
