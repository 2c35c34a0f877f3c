"""What a policy drops or hashes is written nowhere, and everything else goes on with it."""

from pathlib import Path

import psycopg
import pytest

from bandit import Creative, HistoryRow, Request
from bandit.errors import ContextError, InvalidSettingError
from storage import DecisionConflictError
from storage.database.urls import database_url
from tests.bandit.engines import Engines, add_campaign, assert_same, posterior

POLICY = {"ip": "drop", "user": "hash"}
PRIVATE = {"ip": "203.0.113.77", "user": "ann-of-oslo"}


def stored(url: str) -> bytes:
    """Return all bytes that a database holds: an SQLite file with its log, or every row of every table."""
    if url.startswith("sqlite"):
        path = Path(str(database_url(url).database))
        return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    with psycopg.connect(url) as server:
        tables = server.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        rows = [server.execute(f'SELECT * FROM "{table}"').fetchall() for (table,) in tables]
    return str(rows).encode()


def test_nothing_private_is_written(engines_on_both: Engines) -> None:
    engines = engines_on_both
    engine = engines.open()
    add_campaign(engine)
    engine.set_context_policy(POLICY)  # type: ignore[arg-type]
    for i in range(60):  # often enough for a level to get a slot
        engine.select("spring", {**PRIVATE, "device": "mobile"}, decision_id=f"d{i}", request_id="page")
        engine.update(f"d{i}", click=i % 3 == 0)
    engine.select("spring", {**PRIVATE, "device": "mobile"}, k=2)
    engine.explain("spring", "calm", {**PRIVATE, "device": "mobile"})
    past = [
        HistoryRow(
            campaign="old",
            creative=Creative("a", headline="warm a"),
            impressions=200,
            clicks=5,
            context={**PRIVATE},
        )
    ]
    engine.warm_start(past)
    engine.settle()
    contexts = engines.fetch("SELECT DISTINCT context FROM decisions")
    everything = stored(engines.url)
    assert b"device" in everything
    for value in PRIVATE.values():
        assert value.encode() not in everything
    assert len(contexts) == 1
    assert '"ip"' not in contexts[0][0]
    assert '"user":"hash:' in contexts[0][0]
    fields = engines.fetch("SELECT field, kind FROM context_fields ORDER BY field")
    assert fields == [("device", "string"), ("user", "string")]
    levels = engines.fetch("SELECT level FROM context_slots WHERE field = 'user' AND level IS NOT NULL")
    assert len(levels) == 1  # equal values are one level, and it is learnt
    assert levels[0][0].startswith("hash:")
    engine.close()


def test_a_repeated_id_is_the_same_decision(engines_on_both: Engines) -> None:
    engine = engines_on_both.open()
    add_campaign(engine)
    before = engine.select("spring", {**PRIVATE, "n": 1}, decision_id="before")
    engine.set_context_policy(POLICY)  # type: ignore[arg-type]
    first = engine.select("spring", {**PRIVATE, "n": 1}, decision_id="d1")
    assert engine.select("spring", {**PRIVATE, "n": 1}, decision_id="d1") == first
    assert engine.select("spring", {**PRIVATE, "ip": "198.51.100.1", "n": 1}, decision_id="d1") == first
    assert engine.select("spring", {**PRIVATE, "n": 1}, decision_id="before") == before
    with pytest.raises(DecisionConflictError, match="'d1' was made for another request: its context differ"):
        engine.select("spring", {"user": "bo", "n": 1}, decision_id="d1")
    with pytest.raises(DecisionConflictError, match="'before' was made for another request"):
        engine.select("spring", {"user": "bo", "n": 1}, decision_id="before")
    engine.close()


def test_a_hash_is_the_database_s_own(engines: Engines, tmp_path: Path) -> None:
    seen = set()
    for url in (engines.url, f"sqlite:///{tmp_path}/other.db"):
        others = Engines(url, engines.encoder, engines.clock)
        engine = others.open()
        add_campaign(engine)
        engine.set_context_policy({"user": "hash", "other": "hash"})
        engine.select_many(
            [Request(campaign="spring", context={"user": value, "other": "ann"}) for value in ("ann", "ann")]
        )
        seen |= {tuple(sorted(row)) for row in others.fetch("SELECT DISTINCT context FROM decisions")}
        others.close()
    assert len(seen) == 2  # another secret
    assert all(len(set(context[0].split('"')) & {"ann"}) == 0 for context in seen)


def test_policies_are_kept_and_followed(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine)
    engine.set_context_policy(POLICY)  # type: ignore[arg-type]
    engine.set_context_policy({"ip": "keep", "age": "drop"})
    other = engines.open(role="select")
    other.select("spring", {**PRIVATE, "age": 3}, decision_id="d1")
    (shown,) = engines.fetch("SELECT context FROM decisions")
    assert '"ip":"203.0.113.77"' in shown[0]
    assert "age" not in shown[0]
    assert engines.fetch("SELECT settings FROM models")[0][0].count("context_secret") == 1


def test_a_replay_gives_the_same_posterior(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine)
    engine.set_context_policy({"user": "hash"})
    for i in range(120):
        engine.select("spring", {"user": f"u{i % 2}"}, decision_id=f"d{i}")
        engine.update(f"d{i}", click=i % 3 == 0)
        if i % 40 == 39:
            engine.settle()
    before = posterior(engine)
    engine.close()
    engines.forget_states()
    assert_same(posterior(engines.open(role="select")), before)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"ip": "remove"}, "context field 'ip': expected 'keep', 'hash' or 'drop', got 'remove'"),
        ({"ip": None}, "context field 'ip': expected 'keep', 'hash' or 'drop', got None"),
        ({"": "drop"}, "names of context fields to be strings of 1 to 200 bytes, got ''"),
        ({7: "drop"}, "names of context fields .* got 7"),
        ({"x" * 201: "drop"}, "names of context fields"),
        ({"a\0b": "drop"}, r"names of context fields .* got 'a\\x00b'"),
        (["ip"], "expected the context policy to be a mapping of fields, got list"),
        ({"age": "hash"}, "context field 'age' is known with number values, and a hash is text; drop it"),
    ],
)
def test_what_is_no_policy(engines: Engines, policy: object, message: str) -> None:
    engine = engines.open()
    add_campaign(engine)
    engine.select("spring", {"age": 33})
    before = engines.fetch("SELECT settings FROM models")
    with pytest.raises(InvalidSettingError, match=message):
        engine.set_context_policy(policy)  # type: ignore[arg-type]
    assert engines.fetch("SELECT settings FROM models") == before


@pytest.mark.parametrize("value", [["ann"], None, float("nan"), 10**400, "x" * 10_000_000])
def test_a_hashed_field_is_checked_too(engines: Engines, value: object) -> None:
    engine = engines.open()
    add_campaign(engine)
    engine.set_context_policy({"user": "hash"})
    with pytest.raises(ContextError, match="context field 'user'"):
        engine.select("spring", {"user": value})  # type: ignore[dict-item]
    assert engines.fetch("SELECT count(*) FROM decisions") == [(0,)]


def test_numbers_are_hashed_by_their_value(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine)
    engine.set_context_policy({"user": "hash"})
    for i, value in enumerate((7, 7.0, True, "7", 2**62, 2**62 + 1)):
        engine.select("spring", {"user": value}, decision_id=f"d{i}")
    stored_contexts = [c for (c,) in engines.fetch("SELECT context FROM decisions ORDER BY decision_id")]
    assert stored_contexts[0] == stored_contexts[1]
    assert len(set(stored_contexts)) == 5
