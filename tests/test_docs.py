"""What the documents show is run: Python, the command line, and SQL with its results on both databases.

After a change that moves the results in docs/sql.md, CREATIVE_BANDIT_WRITE_DOCS=1 writes them anew.
"""

import csv
import math
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from sqlalchemy import make_url

from bandit import Creative, Engine, HistoryRow, Outcome, Request
from simulations.cli import main
from storage.schema.tables import Base
from storage.schema.views import VIEWS
from tests.paths import ROOT, TINY

DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
)
SQL = "docs/sql.md"
FENCE = re.compile(r"^```([a-z]*)[ ]?([a-z]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = "creative-bandit"
TOO_LONG = ("demo", "evaluate", "simulate")  # these have tests of their own
MONDAY = datetime(2026, 3, 2, 8, tzinfo=UTC)
DECISIONS, ROUND, GAP = 2_400, 240, timedelta(minutes=144)


class Block(NamedTuple):
    """A fenced block: its language, the word after it, and what it holds."""

    language: str
    word: str
    text: str


class Question(NamedTuple):
    """A query of docs/sql.md for a database ("" for both), and the result that it shows there."""

    query: str
    dialect: str
    shown: str


def blocks(name: str) -> list[Block]:
    return [Block(*found) for found in FENCE.findall((ROOT / name).read_text())]


def questions() -> list[Question]:
    """Return queries with the result that follows each; two spellings of one query share it."""
    found: list[Question] = []
    waiting: list[Block] = []
    for block in blocks(SQL):
        if block.language == "sql":
            waiting.append(block)
        elif block.language == "text" and waiting:
            found += [Question(query.text, query.word, block.text) for query in waiting]
            waiting = []
    return found


def commands(name: str, program: str) -> list[list[str]]:
    lines = [
        line
        for block in blocks(name)
        if block.language in ("sh", "console")
        for line in block.text.splitlines()
    ]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith(f"{program} ")]


# The database of docs/sql.md


def draw(*parts: object) -> float:
    """Return a number in [0, 1) that depends on nothing but the parts."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=6).digest(), "big") / 2**48


def build(url: str) -> None:
    """Play two campaigns through the engine, on a clock of their own."""
    now = [MONDAY]
    with Engine.open(url, learn="manual", clock=lambda: now[0], encoder=TINY) as engine:
        engine.warm_start(
            [
                HistoryRow(
                    campaign="winter",
                    creative=Creative("coat", headline="Winter coat, half price"),
                    impressions=9_000,
                    clicks=171,
                )
            ]
        )
        engine.retire("winter", "coat")
        engine.add_campaign("spring-sale", horizon=50_000, attribution_window=0, control_share=0.1)
        engine.add_creatives("spring-sale", [
            Creative("calm", headline="Free returns, always"),
            Creative("urgent", headline="48 hour flash sale"),
            Creative("new", headline="New arrivals for you", call_to_action="Shop now"),
            Creative("gift", headline="Free gift wrap, only today"),
        ])  # fmt: skip
        engine.add_campaign("newsletter", attribution_window=timedelta(minutes=30))
        engine.add_creatives("newsletter", [
            Creative("shoes", headline="Shoes, run faster"),
            Creative("light", headline="Warm light, save half"),
        ])  # fmt: skip
        for start in range(0, DECISIONS, ROUND):
            play_round(engine, now, range(start, start + ROUND), is_last=start + ROUND == DECISIONS)
        late = engine.select("newsletter", {"device": "mobile"}, decision_id="visit-9001")
        now[0] += timedelta(hours=2)
        engine.settle()
        engine.update(late.id, click=True)
        engine.update("visit-2342", click=True, valid=False)
        engine.refit()
        engine.pause("spring-sale", "gift")
        engine.select("newsletter", {"device": "desktop"}, decision_id="visit-9002")
        engine.select("spring-sale", {"device": "mobile"}, decision_id="page", request_id="page-7", k=2)
        for campaign in ("spring-sale", "newsletter"):
            engine.arms(campaign)


def play_round(engine: Engine, now: list[datetime], numbers: range, *, is_last: bool) -> None:
    """Show a round of impressions, report what came of them, and learn it.

    In the last round each has a time of its own: rates are averaged over a campaign's 32 newest contexts, and
    of contexts with the same time the two databases may take others.
    """
    rates = {"calm": 0.04, "urgent": 0.09, "new": 0.05, "gift": 0.03, "shoes": 0.06, "light": 0.03}
    devices = {n: "mobile" if draw("device", n) < 0.6 else "desktop" for n in numbers}
    requests = [
        Request(
            campaign="newsletter" if n % 4 == 0 else "spring-sale",
            context={"device": devices[n], "new": draw("new", n) < 0.3},
            decision_id=f"visit-{n:04}",
        )
        for n in numbers
    ]
    decisions = []
    for part in [[request] for request in requests] if is_last else [requests]:
        decisions += engine.select_many(part)
        now[0] += timedelta(seconds=1)
    now[0] += timedelta(minutes=5)
    outcomes = []
    for n, decision in zip(numbers, decisions, strict=True):
        rate = rates[decision.creative_id] * (1.5 if devices[n] == "mobile" else 0.75)
        is_clicked = draw("click", n) < rate
        is_bought = is_clicked and draw("purchase", n) < 0.25
        if is_clicked or decision.campaign == "spring-sale":
            outcomes.append(Outcome(decision_id=decision.id, click=is_clicked))
        if is_bought:
            outcomes.append(Outcome(decision_id=decision.id, conversion=True, value=29.5, key=f"order-{n}"))
    engine.update_many(outcomes)
    now[0] += GAP - timedelta(minutes=5)
    engine.settle()


@pytest.fixture(scope="module")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("docs") / "ads.db"
    build(str(path))
    return path


# SQL


def ask_sqlite(path: Path, query: str) -> list[list[Any]]:
    """Return the names of the columns, then the rows."""
    with closing(sqlite3.connect(path)) as connection:
        cursor = connection.execute(query)
        return [[column[0] for column in cursor.description], *map(list, cursor)]


def ask_postgres(url: str, query: str) -> list[list[Any]]:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as connection:
        cursor = connection.execute(query)
        return [[column.name for column in cursor.description or ()], *map(list, cursor)]


def cell(value: Any) -> str:
    """Write a value as both databases mean it; PostgreSQL's numeric keeps trailing zeros."""
    if value is None:
        return ""
    return (
        str(value)
        if isinstance(value, int | str)
        else f"{float(value):.10g}"
        if is_number(value)
        else str(value)
    )


def is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def written(rows: Sequence[Sequence[Any]]) -> str:
    """Write rows under their header, in columns."""
    texts = [[cell(value) for value in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(*texts, strict=True)]
    numeric = [all(is_number(text) for text in column[1:] if text) for column in zip(*texts, strict=True)]
    lines = [
        [text.rjust(w) if n else text.ljust(w) for text, w, n in zip(row, widths, numeric, strict=True)]
        for row in texts
    ]
    lines.insert(1, ["-" * width for width in widths])
    return "".join("  ".join(line).rstrip() + "\n" for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    "question", [q for q in questions() if q.dialect != "postgresql"], ids=lambda q: q.query[:50]
)
def test_sqlite_answers_what_the_page_shows(question: Question, sqlite_file: Path) -> None:
    answer = written(ask_sqlite(sqlite_file, question.query))
    if os.environ.get("CREATIVE_BANDIT_WRITE_DOCS"):
        write_answer(question, answer)
    else:
        assert answer == question.shown


@pytest.mark.postgres
def test_postgres_gives_the_same_answers(postgres_url: str) -> None:
    build(postgres_url)
    for question in questions():
        if question.dialect != "sqlite":
            assert written(ask_postgres(postgres_url, question.query)) == question.shown


def write_answer(question: Question, answer: str) -> None:
    page = ROOT / SQL
    before = f"{question.query}```\n"
    text = page.read_text()
    start = text.index("```text\n", text.index(before)) + len("```text\n")
    page.write_text(text[:start] + answer + text[text.index("```", start) :])


# Python


@pytest.mark.slow
def test_the_readme_s_python_runs_with_the_default_encoder(tmp_path: Path) -> None:
    """It runs as a reader runs it: in a process of its own, in an empty folder."""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", python_of("README.md")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^show (calm|urgent) chosen with probability 0\.\d+$", done.stdout, re.MULTILINE)
    assert (tmp_path / "ads.db").exists()


def test_the_python_of_concepts_prints_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CREATIVE_BANDIT_ENCODER", str(TINY))
    exec(compile(python_of("docs/concepts.md"), "docs/concepts.md", "exec"), {})  # noqa: S102  our own page
    shown = "".join(block.text for block in blocks("docs/concepts.md") if block.language == "text")
    assert capsys.readouterr().out == shown


def test_no_other_page_has_python() -> None:
    assert {name for name in DOCUMENTS if python_of(name)} == {"README.md", "docs/concepts.md"}


def python_of(name: str) -> str:
    return "\n".join(block.text for block in blocks(name) if block.language == "python")


# The command line


def test_the_readme_s_commands_run_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CREATIVE_BANDIT_ENCODER", str(TINY))
    monkeypatch.delenv("CREATIVE_BANDIT_DATABASE", raising=False)
    run = [arguments for arguments in commands("README.md", PROGRAM) if arguments[0] not in TOO_LONG]
    assert {"campaign", "creative", "select", "update", "arms"} <= {arguments[0] for arguments in run}
    for arguments in run:
        assert main(arguments) == 0, (arguments, capfd.readouterr())
    assert "urgent" in capfd.readouterr().out


def test_the_commands_of_the_sql_page_find_a_sound_database(
    sqlite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(sqlite_file, tmp_path / "ads.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CREATIVE_BANDIT_ENCODER", str(TINY))
    ((*_, query, _, exported),) = commands(SQL, "sqlite3")
    with closing(sqlite3.connect("ads.db")) as connection, Path(exported).open("w", newline="") as file:
        log = connection.execute(query)
        csv.writer(file).writerows([[column[0] for column in log.description], *log])
    run = commands(SQL, PROGRAM)
    assert [arguments[:2] for arguments in run] == [
        *[["storage", "export"], ["storage", "import"], ["storage", "export"], ["storage", "export"]],
        *[["import", exported], ["import", "--from-database"]],
        *[["storage", "check"], ["storage", "check"], ["storage", "backup"], ["storage", "upgrade"]],
        *[["storage", "prune"], ["configure", "--context"]],
    ]
    for arguments in run:
        assert main(arguments) == 0, capfd.readouterr()
    out = capfd.readouterr().out
    assert out.count("sound") == 2
    # The settled decisions of spring-sale: in the log of one campaign, in both imports of counts, pruned.
    assert out.count("1,800") == 4


LONG = [arguments for name in DOCUMENTS for arguments in commands(name, PROGRAM) if arguments[0] in TOO_LONG]


@pytest.mark.parametrize("arguments", LONG, ids=" ".join)
def test_commands_that_take_long_have_the_options_that_are_shown(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in arguments if re.fullmatch("[a-z]+", word)][
        : 2 if arguments[0] == "simulate" else 1
    ]
    assert main([*words, "--help"]) == 0
    help_text = capfd.readouterr().out
    for option in (word for word in arguments if word.startswith("--")):
        assert option in help_text


def test_every_command_named_in_a_sentence_exists(capfd: pytest.CaptureFixture[str]) -> None:
    for name in DOCUMENTS:
        for line in re.findall(
            rf"`{PROGRAM} ([a-z ]+?)(?: --[^`]*| [A-Z./][^`]*)?`", (ROOT / name).read_text()
        ):
            assert main([*line.split(), "--help"]) == 0, (name, line, capfd.readouterr())


def test_the_readme_s_sql_runs(sqlite_file: Path) -> None:
    asked = commands("README.md", "sqlite3")
    assert asked
    for arguments in asked:
        assert len(ask_sqlite(sqlite_file, arguments[-1])) > 1


# What a page lists is complete, and what it points to is there


def test_the_sql_page_lists_every_view_and_table() -> None:
    listed = re.findall(r"^\| `([a-z_]+)` \|", (ROOT / SQL).read_text(), re.MULTILINE)
    expected = {view.name for view in VIEWS} | set(Base.metadata.tables) | {"creative_bandit_version"}
    assert sorted(listed) == sorted(expected)


def test_every_dependency_has_a_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *requirements("requirements-dev.in")]
    names = {re.split(r"[<>=~ ]", line)[0] for line in lines}
    section = (ROOT / "docs/decisions.md").read_text().split("\n## ")[1]
    assert section.startswith("Dependencies")
    listed = set(re.findall(r"^\| ([a-z0-9\[\]-]+) \|", section, re.MULTILINE))
    assert listed - {"package"} == names


def requirements(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_files(name: str) -> None:
    text = FENCE.sub("", (ROOT / name).read_text())
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith("https://")]
    missing = [target for target in targets if not ((ROOT / name).parent / target.split("#")[0]).exists()]
    assert missing == []


PATH = re.compile(
    r"`((?:bandit|docs|encoders|simulations|storage|tests|tools)/[^`\s]*|[^`\s]+/[^`\s/]+\.py)`"
)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_are_there(name: str) -> None:
    paths = PATH.findall(FENCE.sub("", (ROOT / name).read_text()))
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_what_the_page_of_the_architecture_finds_in_a_file_is_in_it() -> None:
    """Functions follow their file, or come before it with "of"; the last table has names and a file."""
    page = (ROOT / "docs/architecture.md").read_text()
    named = [(name, path) for path, name in re.findall(r"`([a-z]\w*/[\w/]+\.py)` `(\w+)`", page)]
    named += re.findall(r"`(\w+)` of `([a-z]\w*/[\w/]+\.py)`", page)
    words = page[page.index("## Words of the code") :]
    for names, path in re.findall(r"^\| (`.*?) \|.*\| `(.*?)` \|$", words, re.MULTILINE):
        named += [(name, path) for name in re.findall(r"`(\w+)`", names)]
    assert len(named) > 60, "nothing was found to check"
    missing = [
        f"{path}: {name}"
        for name, path in named
        if not re.search(rf"^\s*(def|class) {name}\b", (ROOT / path).read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target for name in DOCUMENTS for target in re.findall(r"`make ([a-z]+)`", (ROOT / name).read_text())
    }
    assert named >= {"demo", "test", "lint", "bench", "lock"}
    assert named <= targets


def test_the_changelog_and_the_readme_name_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## {version}\n" in (ROOT / "CHANGELOG.md").read_text()
    assert f"creative_bandit-{version}-" in (ROOT / "README.md").read_text()
