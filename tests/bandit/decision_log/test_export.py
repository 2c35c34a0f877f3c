"""The decision log out of one database and into another: nothing is lost, added twice or learnt otherwise."""

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from bandit import Creative, Engine
from bandit.decision_log.csv_format import read_csv, read_setup, setup_of, write_csv
from bandit.decision_log.dsjson import write_dsjson
from bandit.decision_log.importer import import_log
from bandit.decision_log.open_bandit import items_of, write_open_bandit
from bandit.errors import LogFileError
from encoders import TextEncoder
from storage import DecisionConflictError, SetupConflictError, Store
from tests.bandit.engines import Clock, Engines, add_campaign, assert_same, play, posterior
from tests.bandit.inspect import store_of


@pytest.fixture(scope="module")
def source(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: TextEncoder
) -> Iterator[Engines]:
    """A database with decisions and outcomes of all kinds, refitted at the end."""
    path = tmp_path_factory.mktemp("source") / "ads.db"
    path.write_bytes(sqlite_template.read_bytes())
    engines = Engines(f"sqlite:///{path}", tiny_encoder, Clock())
    engine = engines.open(seed=5)
    add_campaign(engine, "calm", "urgent", "plain", control_share=0.2)
    play(engine, 210, learn_every=30)
    engine.add_campaign("slow", attribution_window=1800)
    engine.add_creatives("slow", [Creative('a, "b"\n😀', headline="warm, winter"), Creative("c", body="new")])
    for i in range(30):
        engine.select(
            "slow", {"device": "mobile", "word": "=1+1, 'x'"}, decision_id=f"slow-{i}", request_id="r;1"
        )
    engine.update("slow-0", click=True)
    engine.update("slow-1", click=True, final=True)
    engine.update("slow-1", conversion=True, value=12.5, key="order, 1")
    engine.update("slow-1", conversion=True, value=7.5, key="order, 2")
    engine.update("slow-1", conversion=True, key="order, 2", valid=False)
    engines.clock.pass_(timedelta(hours=1))
    engine.settle()
    engine.update("slow-2", click=True)  # late
    engine.update("spring-3", click=True, valid=False)
    engine.select("spring", {"device": "watch"}, k=2, decision_id="list")
    engine.select("slow", decision_id="pending")
    engine.select("slow", decision_id="deferred", defer_activation=True)
    engine.pause("slow", "c")
    engine.refit()
    yield engines
    engines.close()


def exported(engines: Engines, path: Path, campaign: str | None = None) -> Path:
    with Store.open(engines.url) as store:
        setup = store.exports.setup(store.models.get().model_id, campaign=campaign)
        store.exports.decisions(setup, lambda decisions: write_csv(decisions, setup, path, lambda n: None))
    return path


def imported(engines: Engines, path: Path) -> tuple[int, int]:
    with Store.open(engines.url) as store:
        return import_log(store, read_setup(path), lambda: read_csv(path))


LOG = (
    "SELECT decision_id, campaign, creative, decided_at, context, propensity, is_control, click, "
    "conversions, value, place, list_propensity, request_id, slots_version, horizon, kappa, point_set, "
    "activated_at, settled_at, propensities FROM decision_log ORDER BY decision_id"
)
REPORTS = (
    "SELECT decision_id, kind, key, value, occurred_at, received_at, late, valid, corrects IS NULL "
    "FROM outcomes ORDER BY decision_id, kind, key"
)


def rows(engines: Engines, query: str) -> list[tuple[str, ...]]:
    def plain(value: object) -> str:
        text = value.isoformat() if hasattr(value, "isoformat") else value
        if isinstance(text, bool):
            text = int(text)
        if isinstance(text, str):
            return text.replace("+00:00", "").replace(".000000", "").removesuffix("Z")
        return str(text) if text is None else f"{float(text):.12g}"  # type: ignore[arg-type]

    return [tuple(map(plain, row)) for row in engines.fetch(query)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_a_refit_there_gives_the_same_posterior(
    source: Engines, engines_on_both: Engines, tmp_path: Path, name: str
) -> None:
    path = exported(source, tmp_path / name)
    n = source.fetch("SELECT count(*) FROM decisions")[0][0]
    engines_on_both.clock.now = source.clock.now
    assert imported(engines_on_both, path) == (n, 0)
    assert rows(engines_on_both, LOG) == rows(source, LOG)
    assert rows(engines_on_both, REPORTS) == rows(source, REPORTS)
    before = engines_on_both.row_counts()
    assert imported(engines_on_both, path) == (0, n)
    assert engines_on_both.row_counts() == before
    with Store.open(engines_on_both.url) as store:
        assert store.check() == []
    engine = engines_on_both.open()
    assert (
        engine.settle().learnt == source.fetch("SELECT count(*) FROM decisions WHERE learnt_batch > 0")[0][0]
    )
    engine.refit()
    theirs = posterior(source.opened[0])
    ours = posterior(engine)
    assert_same({**ours, "step": theirs["step"]}, theirs)
    counted = (
        "SELECT creative, impressions, clicks, conversions, value, status FROM arm_report ORDER BY creative"
    )
    assert rows(engines_on_both, counted) == rows(source, counted)
    assert store_of(engine).check() == []
    assert np.isfinite(ours["weights"]).all()
    engines_on_both.close()


def test_one_campaign_only(source: Engines, engines: Engines, tmp_path: Path) -> None:
    path = exported(source, tmp_path / "slow.csv", "slow")
    assert imported(engines, path) == (32, 0)
    assert engines.fetch("SELECT name FROM campaigns") == [("slow",)]


def test_another_database_counts_by_its_own_slots(source: Engines, engines: Engines, tmp_path: Path) -> None:
    engine = engines.open(seed=5)
    add_campaign(engine, name="other")
    for i in range(60):
        engine.select("other", {"country": "no"}, decision_id=f"o{i}")
        engine.update(f"o{i}", click=False)
    engine.settle()
    engine.close()
    version = engines.fetch("SELECT max(version) FROM context_slots")[0][0]
    n, _ = imported(engines, exported(source, tmp_path / "log.csv"))
    assert engines.fetch("SELECT DISTINCT slots_version FROM decisions WHERE campaign_id > 1") == [(version,)]
    engine = engines.open()
    assert engine.settle().learnt > 200
    assert store_of(engine).check() == []
    assert n > 200


def test_the_policy_of_the_other_database_holds(source: Engines, engines: Engines, tmp_path: Path) -> None:
    engine = engines.open()
    engine.set_context_policy({"device": "drop", "word": "hash"})
    engine.close()
    imported(engines, exported(source, tmp_path / "log.csv"))
    stored = str(engines.fetch("SELECT context FROM decisions"))
    assert "mobile" not in stored
    assert "=1+1" not in stored
    assert "hash:" in stored
    n = engines.fetch("SELECT count(*) FROM decisions")[0][0]
    assert imported(engines, tmp_path / "log.csv") == (0, n)


def test_what_does_not_fit(source: Engines, engines: Engines, tmp_path: Path) -> None:
    path = exported(source, tmp_path / "log.csv")
    engine = engines.open(seed=5)
    add_campaign(engine, name="other")
    engine.add_campaign("spring")
    engine.add_creatives("spring", [Creative("calm", headline="another text")])
    engine.select("other", decision_id="spring-7")
    engine.close()
    before = engines.row_counts()
    with pytest.raises(SetupConflictError, match="creatives are here with other texts: 'calm' of 'spring'"):
        imported(engines, path)
    assert engines.row_counts() == before
    slow = exported(source, tmp_path / "slow.csv", "slow")
    lines = slow.read_text().replace("slow-7,", "spring-7,")
    slow.write_text(lines)
    with pytest.raises(DecisionConflictError, match="'spring-7' is here with another campaign"):
        imported(engines, slow)
    setup = read_setup(path)
    other = replace(setup, model=replace(setup.model, encoder_fingerprint="another"))
    with (
        Store.open(engines.url) as store,
        pytest.raises(SetupConflictError, match="with the encoder another"),
    ):
        store.imports.setup(other)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("spring-7,", "spring-8,", "decision 'spring-8' is there twice"),
        (
            "spring-7,spring,",
            "spring-7,autumn,",
            "'spring-7': its campaign or a creative is none of the setup's",
        ),
        (",click,", ",clicked,", "these columns are missing: click"),
        ('""is_new"":', '""unknown"":', "'spring-0': context fields that the setup does not know: unknown"),
        (
            "2026-03-01T12:00:00+00:00",
            "2026-03-01T12:00:00",
            "line 7: expected a time with its zone, got '2026",
        ),
        ('"{""age""', '"[""age""', "line 52: Expecting ',' delimiter"),
    ],
)
def test_a_bad_file_imports_nothing(
    source: Engines, engines: Engines, tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = exported(source, tmp_path / "log.csv")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    before = engines.row_counts()
    with pytest.raises(LogFileError, match=message):
        imported(engines, path)
    assert engines.row_counts() == before


def test_files_that_are_not_ours(source: Engines, engines: Engines, tmp_path: Path) -> None:
    path = exported(source, tmp_path / "log.csv.gz")
    setup = setup_of(path)
    document = json.loads(setup.read_text())
    assert "context_secret" not in setup.read_text()
    for text, message in (
        (json.dumps({**document, "format": 2}), "has format 2, this version reads 1"),
        ("[]", "is no setup of a decision log"),
        ("{", "is no setup of a decision log"),
        (json.dumps({**document, "campaigns": [{"name": "x"}]}), "is no setup of a decision log"),
    ):
        setup.write_text(text)
        with pytest.raises(LogFileError, match=message):
            read_setup(path)
    setup.unlink()
    with pytest.raises(LogFileError, match=r"log\.csv\.gz\.setup\.json is missing"):
        read_setup(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(LogFileError, match=r"expected a CSV in UTF-8: .*export it again"):
        list(read_csv(path))
    assert not list(tmp_path.glob("*.partial"))
    assert engines.row_counts()["decisions"] == 0


def test_open_bandit_columns(source: Engines, tmp_path: Path) -> None:
    path = tmp_path / "spring.csv"
    with Store.open(source.url) as store:
        model_id = store.models.get().model_id
        everything = store.exports.setup(model_id)
        with pytest.raises(
            LogFileError, match="of one campaign, and the database has: spring, slow; give --camp"
        ):
            write_open_bandit(iter(()), everything, path, lambda n: None)
        setup = store.exports.setup(model_id, campaign="spring")
        n = store.exports.decisions(setup, lambda log: write_open_bandit(log, setup, path, lambda n: None))
    with path.open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == [
        *("", "timestamp", "item_id", "position", "click", "propensity_score"),
        *("user_feature_0", "user_feature_1", "user_feature_2", "user_feature_3"),
    ]
    assert n == len(lines) - 1 == 210
    with items_of(path).open(newline="") as file:
        items = {int(line["item_id"]): line["item_feature_1"] for line in csv.DictReader(file)}
    asked = (
        "SELECT creative, click, propensity FROM decision_log "
        "WHERE campaign = 'spring' AND click IS NOT NULL ORDER BY decision_id"
    )
    shown = [(items[int(line[2])], int(line[4]), float(line[5])) for line in lines[1:]]
    assert shown == source.fetch(asked)
    assert {line[3] for line in lines[1:]} == {"1"}
    # The data set is one for off-policy evaluation: what was shown, weighed, is what was there.
    weights = sum(1 / propensity for _, _, propensity in shown)
    assert abs(weights / 3 - 210) < 3 * sum(1 / p**2 for _, _, p in shown) ** 0.5 / 3


@pytest.mark.real_data
def test_open_bandit_columns_are_those_of_the_data_set(
    source: Engines, tmp_path: Path, data_dir: Path
) -> None:
    """All but the affinities of users and items, of which an engine knows none."""
    path = tmp_path / "spring.csv"
    with Store.open(source.url) as store:
        setup = store.exports.setup(store.models.get().model_id, campaign="spring")
        store.exports.decisions(setup, lambda log: write_open_bandit(log, setup, path, lambda n: None))
    theirs = data_dir / "open-bandit"
    with gzip.open(theirs / "random_men.csv.gz", "rt", newline="") as file:
        columns = [name for name in next(csv.reader(file)) if not name.startswith("user-item_affinity_")]
    with path.open(newline="") as file:
        assert next(csv.reader(file)) == columns
    items = []
    for place in (items_of(path), theirs / "men_items.csv"):
        with place.open(newline="") as file:
            items.append(next(csv.reader(file)))
    assert items[0][: len(items[1])] == items[1]


def test_dsjson_lines(source: Engines, tmp_path: Path) -> None:
    path = tmp_path / "log.dsjson.gz"
    with Store.open(source.url) as store:
        setup = store.exports.setup(store.models.get().model_id)
        n = store.exports.decisions(setup, lambda log: write_dsjson(log, setup, path, lambda n: None))
    with gzip.open(path, "rt", encoding="utf-8") as file:
        documents = [json.loads(line) for line in file]
    assert n == len(documents) == source.fetch("SELECT count(*) FROM decisions WHERE click IS NOT NULL")[0][0]
    for document in documents:
        assert document["a"][0] == document["_label_Action"] == document["_labelIndex"] + 1
        assert document["p"][0] == document["_label_probability"]
        assert sorted(document["a"]) == list(range(1, len(document["c"]["_multi"]) + 1))
        assert abs(sum(document["p"]) - 1) < 1e-9
        assert document["_label_cost"] == -document["o"][0]["v"]
    by_id = {document["EventId"]: document for document in documents}
    asked = "SELECT decision_id, creative, click FROM decision_log WHERE click IS NOT NULL"
    for name, creative, click in source.fetch(asked):
        document = by_id[name]
        assert document["c"]["_multi"][document["_labelIndex"]]["Creative"]["id"] == creative
        assert document["_label_cost"] == -click
    assert by_id["spring-4"]["c"]["Context"] == {"age": 24.0, "device": "desktop", "is_new": True}


def test_an_engine_is_open_meanwhile(engines_on_both: Engines, tmp_path: Path) -> None:
    """The log is as of one moment, though others write while it is read."""
    engine: Engine = engines_on_both.open()
    add_campaign(engine)
    play(engine, 20)
    with Store.open(engines_on_both.url) as store:
        setup = store.exports.setup(store.models.get().model_id)

        def consume(decisions: Iterator[object]) -> int:
            first = next(decisions)
            engine.select("spring", decision_id="z-late")
            engine.update("spring-19", conversion=True, value=5.0, key="late")
            rest = list(decisions)
            assert all(len(d.outcomes) == 1 for d in (first, *rest))  # type: ignore[attr-defined]
            return 1 + len(rest)

        assert store.exports.decisions(setup, consume) == 20
        assert store.exports.count(setup) == 21
    engine.close()
