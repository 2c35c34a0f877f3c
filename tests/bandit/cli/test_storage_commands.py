"""`storage prune`, `export`, `import`, `backup` and `check --replay`, as an operator types them."""

import json
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bandit import Engine
from storage import Store
from tests.bandit.cli.conftest import TINY, Run
from tests.bandit.inspect import model_of
from tests.storage.sql import execute, fetch

DAYS_AGO = 100


@pytest.fixture
def learnt(ads: Path) -> Path:
    """The prepared database with 60 decisions of long ago, learnt and refitted, and 10 of after the refit."""
    then = datetime.now(UTC) - timedelta(days=DAYS_AGO)
    with Engine.open(ads, learn="manual", encoder=TINY, clock=lambda: then) as engine:
        for i in range(70):
            engine.select("spring-sale", {"device": ("mobile", "desktop")[i % 2]}, decision_id=f"d{i:02}")
            engine.update(f"d{i:02}", click=i % 5 == 0)
            if i == 59:
                engine.refit()
        engine.settle()
    return ads


def test_pruning_refits_first(run: Run, learnt: Path) -> None:
    before = run("arms", "spring-sale", "--json").json["arms"]
    answer = run("storage", "prune", learnt, "--older-than", "90d", "--json").json
    assert answer == {
        "campaigns": [
            {"campaign": "spring-sale", "pruned": 70, "kept": 0},
            {"campaign": "empty", "pruned": 0, "kept": 0},
        ],
        "refit_is_due": False,
    }
    after = run("arms", "spring-sale", "--json").json["arms"]
    counts = [[arm[name] for name in ("creative_id", "impressions", "clicks")] for arm in before]
    assert [[arm[name] for name in ("creative_id", "impressions", "clicks")] for arm in after] == counts
    assert "is sound" in run("storage", "check", learnt, "--replay").out
    answer = run("storage", "prune", learnt, "--older-than", "90d", "--campaign", "spring-sale")
    assert answer.out.split()[-3:] == ["spring-sale", "0", "0"]


def test_pruning_asks_the_process_that_learns(run: Run, learnt: Path) -> None:
    with Engine.open(learnt, learn="manual", encoder=TINY) as engine:
        answer = run("storage", "prune", learnt, "--older-than", "90d").out
        assert answer.split("\n")[2].split() == ["spring-sale", "60", "10"]
        assert "another process learns this database and was asked to refit" in answer
        model_of(engine).reread_settings()
        engine.settle()
        assert (
            run("storage", "prune", learnt, "--older-than", "90d", "--json").json["campaigns"][0]["pruned"]
            == 10
        )


def test_a_field_is_removed(run: Run, learnt: Path) -> None:
    error = run("storage", "prune", learnt, "--context-field", "device").error
    assert error.endswith("first run: creative-bandit configure --context device=drop")
    assert run("configure", "--context", "device=drop").out == "context: device drop\n"
    answer = run("storage", "prune", learnt, "--context-field", "device")
    assert answer.out == "removed 'device' from 70 decisions, and from all counts by context\n"
    assert fetch(f"sqlite:///{learnt}", "SELECT DISTINCT context FROM decisions") == [("{}",)]
    assert "is sound" in run("storage", "check", learnt, "--replay").out
    assert "device drop" in run("model").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either --older-than or --context-field"),
        (("--older-than", "90d", "--context-field", "x"), "give either --older-than or --context-field"),
        (("--context-field", "device", "--campaign", "empty"), "a field is removed from all campaigns"),
        (("--older-than", "soon"), "expected seconds, or a time such as 30m, 2h or 7d, got 'soon'"),
        (("--older-than", "2h"), "expected an age of at least a day to prune, got 2:00:00"),
        (("--older-than", "90d", "--campaign", "sprung"), "there is no campaign 'sprung'"),
        (("--context-field", "age"), "no context has had a field 'age'; nothing was removed"),
    ],
)
def test_what_cannot_be_pruned(run: Run, learnt: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in run("storage", "prune", learnt, *arguments).error
    assert fetch(f"sqlite:///{learnt}", "SELECT count(*) FROM decisions") == [(70,)]


def test_export_and_import(run: Run, learnt: Path, tmp_path: Path) -> None:
    file = tmp_path / "log.csv.gz"
    assert run("storage", "export", learnt, file).out == f"wrote 70 decisions to {file}\n"
    assert run("storage", "import", "next.db", file).out == "imported 70 decisions\n"
    assert run("storage", "import", "next.db", file, "--json").json["imported"] == 0
    assert run("storage", "import", "next.db", file).out == "imported 0 decisions; 70 were there\n"
    assert run("settle", "-d", "next.db").out == "settled 0 decisions, learnt 70\n"
    assert "is sound" in run("storage", "check", "next.db", "--replay").out
    counted = "SELECT creative, impressions, clicks FROM arm_report ORDER BY creative"
    assert fetch("sqlite:///next.db", counted) == fetch(f"sqlite:///{learnt}", counted)
    # The same file is history too.
    assert run("storage", "export", learnt, tmp_path / "log.csv").code == 0
    assert (
        run("import", tmp_path / "log.csv", "-d", "past.db", "--json").json["campaigns"][0]["impressions"]
        == 70
    )


def test_other_formats(run: Run, learnt: Path, tmp_path: Path) -> None:
    file = tmp_path / "log.dsjson"
    answer = run("storage", "export", learnt, file, "--format", "dsjson", "--json").json
    assert answer == {"file": str(file), "format": "dsjson", "decisions": 70}
    assert len([json.loads(line) for line in file.read_text().splitlines()]) == 70
    error = run("storage", "export", learnt, tmp_path / "a.csv", "--format", "open-bandit").error
    assert error.endswith("the database has: spring-sale, empty; give --campaign")
    for campaign, n in (("spring-sale", 70), ("empty", 0)):
        options = ("--format", "open-bandit", "--campaign", campaign)
        assert run("storage", "export", learnt, tmp_path / "a.csv", *options).code == 0
        assert len((tmp_path / "a.csv").read_text().splitlines()) == n + 1
    assert "there is no campaign 'x'" in run("storage", "export", learnt, file, "--campaign", "x").error
    assert "no such file or directory" in run("storage", "export", learnt, tmp_path / "no" / "a.csv").error
    assert not list(tmp_path.glob("*.partial"))


def test_a_backup_of_a_database_in_use(run: Run, learnt: Path, tmp_path: Path) -> None:
    """A writer that never rests neither spoils the copy nor keeps it from ending."""
    is_done = threading.Event()
    with Store.open(learnt) as store:
        model_id = store.models.get().model_id

        def write() -> None:
            n = 0
            while not is_done.is_set():
                store.models.change_settings(model_id, {"n": n})
                n += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            copy = tmp_path / "copy.db"
            answer = run("storage", "backup", learnt, copy)
        finally:
            is_done.set()
            writer.join()
    assert answer.out.startswith(f"copied {learnt} to {copy}, ")
    assert "is sound" in run("storage", "check", copy).out
    assert fetch(f"sqlite:///{copy}", "SELECT count(*) FROM decisions") == [(70,)]
    assert (
        run("storage", "backup", learnt, copy).error
        == f"{copy} exists already; give another name, or remove it first"
    )
    assert "there is no database at" in run("storage", "backup", "nowhere.db", tmp_path / "b.db").error
    (tmp_path / "text.db").write_text("not a database" * 100)
    assert "text.db" in run("storage", "backup", tmp_path / "text.db", tmp_path / "b.db").error
    assert not list(tmp_path.glob("b.db*"))


def test_the_backup_holds_what_is_only_in_the_log(run: Run, learnt: Path, tmp_path: Path) -> None:
    with sqlite3.connect(learnt) as connection:  # the newest row stays in the write-ahead log
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("UPDATE campaigns SET objective = 'in the log' WHERE name = 'empty'")
        connection.commit()
        assert b"in the log" not in learnt.read_bytes()
        assert run("storage", "backup", learnt, tmp_path / "copy.db").code == 0
    connection.close()
    objective = "SELECT objective FROM campaigns WHERE name = 'empty'"
    assert fetch(f"sqlite:///{tmp_path / 'copy.db'}", objective) == [("in the log",)]


def test_postgres_has_a_program_for_it(run: Run, tmp_path: Path) -> None:
    error = run("storage", "backup", "postgresql://ann:secret@db.example/ads", tmp_path / "copy.db").error
    assert "make the copy by: pg_dump" in error
    assert "secret" not in error


def test_a_posterior_that_is_not_the_log_s_is_found(run: Run, learnt: Path) -> None:
    url = f"sqlite:///{learnt}"
    assert "is sound" in run("storage", "check", learnt, "--replay").out
    execute(url, "UPDATE arm_states SET k = k + 0.5 WHERE creative_id = 1")
    assert "is sound" in run("storage", "check", learnt).out
    answer = run("storage", "check", learnt, "--replay", "--json")
    assert answer.code == 1
    (finding,) = json.loads(answer.out)["findings"]
    assert finding["check"] == "replay"
    assert "the log gives another posterior, by" in finding["message"]


def test_what_nobody_learns_is_found(run: Run, learnt: Path) -> None:
    then = datetime.now(UTC) - timedelta(hours=2)
    with Engine.open(learnt, role="select", learn="manual", encoder=TINY, clock=lambda: then) as engine:
        for name in ("late-1", "late-2"):
            engine.select("spring-sale", decision_id=name)
            engine.update(name, click=False)
        answer = run("storage", "check", learnt)
        assert answer.code == 1
        assert "2 settled decisions are not learnt, the oldest since" in answer.out
        assert "no process learns it" in answer.out
    assert run("settle").code == 0
    assert "is sound" in run("storage", "check", learnt).out
