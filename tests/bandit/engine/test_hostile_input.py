"""Text that looks like SQL is text; what cannot be stored is a clear error on both databases."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from bandit import Creative, Engine, HistoryRow, Outcome
from bandit.errors import BanditError, ContextError, InvalidCampaignError, InvalidOutcomeError
from storage import InvalidIdError, InvalidValueError, NaiveTimeError, StorageError, UnknownDecisionError
from tests.bandit.engines import START, TABLES, Engines, add_campaign, creatives
from tests.bandit.inspect import store_of

SQL = "x'); DROP TABLE decisions; --"
EMOJI = "sale 🛍️ \u202e %s %(id)s {} $1 ?"
NUL = "a\0b"
HALF = "a\ud800b"
LONG = "x" * 10_000_000
Call = Callable[[Engine], object]


@pytest.mark.parametrize("text", [SQL, EMOJI, '"', "\\", "\n\t\r", "NULL", "' OR 1=1 /*"])
def test_any_text_is_stored_as_it_is(engines_on_both: Engines, text: str) -> None:
    engine = engines_on_both.open()
    engine.add_campaign(text, attribution_window=0)
    fields = {"headline": text + " sale", "body": text, "call_to_action": text, "picture": text}
    engine.add_creatives(text, [Creative(text, **{k: v for k, v in fields.items() if v.strip()})])
    name = text if text.isascii() and text.isprintable() else "d1"
    engine.select(text, {text: text, "n": 1}, decision_id=name, request_id=text, eligible=[text])
    engine.update(name, click=True)
    engine.update(name, conversion=True, key=text, value=1.5)
    engine.update(name, conversion=True, key=text, valid=False)
    row = HistoryRow(
        campaign=text,
        creative=Creative("b", headline=text + " x"),
        impressions=60,
        clicks=1,
        context={text: text},
    )
    engine.warm_start([row])
    engine.settle()
    engine.set_traffic(text, text, floor=0.1)
    engine.pause(text, text)
    assert engine.arms(text)[0].creative_id == text
    assert engine.explain(text, text, {text: text}).campaign == text
    assert engines_on_both.fetch("SELECT DISTINCT campaign, creative FROM decision_log") == [(text, text)]
    assert engines_on_both.fetch(
        "SELECT key FROM outcomes WHERE kind = 'conversion' AND corrects IS NULL"
    ) == [(text,)]
    assert engines_on_both.fetch("SELECT field FROM context_fields WHERE kind = 'string'") == [(text,)]
    assert engines_on_both.fetch(
        "SELECT request_id, picture FROM decisions JOIN creatives USING (creative_id)"
    ) == [(text, text if text.strip() else None)]
    assert set(engines_on_both.row_counts()) == set(TABLES)
    assert store_of(engine).check() == []
    engine.close()


def outcome(**fields: Any) -> Call:
    return lambda engine: engine.update("shown", **fields)


def context(**fields: Any) -> Call:
    return lambda engine: engine.select("spring", fields)


REFUSED: dict[str, tuple[Call, type[Exception], str]] = {
    "campaign: NUL": (
        lambda e: e.add_campaign(NUL),
        InvalidValueError,
        r"campaign's name holds a NUL .* 'a\\x00b'",
    ),
    "campaign: half a character": (lambda e: e.add_campaign(HALF), InvalidValueError, "broken Unicode"),
    "campaign: empty": (lambda e: e.add_campaign(""), InvalidValueError, "name must be a string .* got ''"),
    "campaign: long": (
        lambda e: e.add_campaign(LONG),
        InvalidValueError,
        "name has 10,000,000 characters; at most 200",
    ),
    "campaign: no string": (lambda e: e.add_campaign(7), InvalidValueError, "name must be a string .* got 7"),
    "campaign: window": (
        lambda e: e.add_campaign("new", attribution_window=1e300),
        InvalidCampaignError,
        "attribution_window to be from 0 to 315,360,000 seconds .* got 1e\\+300",
    ),
    "campaign: window that is no number": (
        lambda e: e.add_campaign("new", conversion_window=float("nan")),
        InvalidCampaignError,
        "conversion_window to be from 0 .* got nan",
    ),
    "campaign: long window": (
        lambda e: e.add_campaign("new", conversion_window=timedelta(days=99_999)),
        InvalidCampaignError,
        "conversion_window to be from 0",
    ),
    "campaign: horizon of 64 bits": (
        lambda e: e.add_campaign("new", horizon=2**63),
        InvalidCampaignError,
        "horizon to be a whole number .* got 9223372036854775808",
    ),
    "campaign: share": (
        lambda e: e.add_campaign("new", control_share=10**400),
        InvalidCampaignError,
        "control_share to be a fraction",
    ),
    "campaign: naive start": (
        lambda e: e.add_campaign("new", starts_at=datetime(2026, 3, 1)),
        InvalidCampaignError,
        "starts_at to be aware",
    ),
    "creative: NUL in its id": (
        lambda e: e.add_creatives("spring", creatives(NUL)),
        InvalidValueError,
        "holds a NUL",
    ),
    "creative: NUL in a text": (
        lambda e: e.add_creatives("spring", [Creative("x", headline="warm " + NUL)]),
        InvalidValueError,
        "'x': its content holds a NUL",
    ),
    "creative: half a character": (
        lambda e: e.add_creatives("spring", [Creative("x", headline=HALF)]),
        (InvalidValueError, BanditError, StorageError),  # type: ignore[dict-item]
        "'x'",
    ),
    "creative: long id": (
        lambda e: e.add_creatives("spring", [Creative(LONG, headline="warm")]),
        InvalidValueError,
        "id has 10,000,000",
    ),
    "creative: NUL in its picture": (
        lambda e: e.add_creatives("spring", [Creative("x", headline="warm", picture=NUL)]),
        InvalidValueError,
        "'x': picture holds a NUL",
    ),
    "decision: NUL": (lambda e: e.select("spring", decision_id=NUL), InvalidIdError, r"got 'a\\x00b'"),
    "decision: emoji": (
        lambda e: e.select("spring", decision_id="🛍️"),
        InvalidIdError,
        "printable ASCII .* got '🛍",
    ),
    "decision: long": (
        lambda e: e.select("spring", decision_id=LONG),
        InvalidIdError,
        "1 to 64 printable ASCII",
    ),
    "decision: no string": (lambda e: e.select("spring", decision_id=7), InvalidIdError, "got 7"),
    "request: NUL": (
        lambda e: e.select("spring", request_id=NUL),
        InvalidValueError,
        "request_id holds a NUL",
    ),
    "request: long": (
        lambda e: e.select("spring", request_id=LONG),
        InvalidValueError,
        "request_id has 10,000,000",
    ),
    "request: no string": (
        lambda e: e.select("spring", request_id=7),
        InvalidValueError,
        "request_id must be a str",
    ),
    "context: NUL": (context(device=NUL), InvalidValueError, "its context holds a NUL"),
    "context: NUL in a name": (context(**{NUL: "x"}), (InvalidValueError, ContextError), "NUL"),  # type: ignore[dict-item]
    "context: half a character": (context(device=HALF), (InvalidValueError, ContextError), "context"),  # type: ignore[dict-item]
    "context: 10 MB value": (
        context(device=LONG),
        ContextError,
        "'device' has 10,000,000 bytes; at most 1,000",
    ),
    "context: 10 MB name": (context(**{LONG: 1}), ContextError, "strings of 1 to 200 bytes, got 'xxx"),
    "context: 10 MB of fields": (
        lambda e: e.select("spring", {f"field-{i}": "x" * 1000 for i in range(10_000)}),
        ContextError,
        "has 10000 fields; at most 64",
    ),
    "context: 64 bits": (
        context(age=2**63),
        ContextError,
        "'age': expected a finite number, got 9223372036854775808",
    ),
    "outcome: value of many bits": (
        outcome(conversion=True, value=10**400),
        InvalidOutcomeError,
        "finite value, got 10",
    ),
    "outcome: value of 64 bits": (
        outcome(conversion=True, value=2**63),
        InvalidOutcomeError,
        "finite value, got 92",
    ),
    "outcome: NUL in a key": (
        outcome(conversion=True, key=NUL),
        InvalidValueError,
        "'shown': key holds a NUL",
    ),
    "outcome: long key": (
        outcome(conversion=True, key=LONG),
        InvalidValueError,
        "key has 10,000,000 characters",
    ),
    "outcome: key of ours": (
        outcome(conversion=True, key="corrects:order-1"),
        InvalidValueError,
        "keys that begin with 'corrects:' are ours",
    ),
    "outcome: naive time": (
        outcome(click=True, occurred_at=START.replace(tzinfo=None)),
        InvalidOutcomeError,
        "occurred_at to be aware",
    ),
    "outcome: future time": (
        outcome(click=True, occurred_at=START + timedelta(days=400)),
        InvalidOutcomeError,
        "is in the future",
    ),
    "outcome: SQL as an id": (lambda e: e.update(SQL, click=True), UnknownDecisionError, "DROP TABLE"),
    "outcome: NUL in an id": (lambda e: e.update(NUL, click=True), InvalidIdError, r"got 'a\\x00b'"),
    "outcomes: one foreign id": (
        lambda e: e.update_many(
            [Outcome(decision_id=i, click=True) for i in ("shown", "of another database")]
        ),
        UnknownDecisionError,
        "there is no decision 'of another database'; nothing was written",
    ),
    "activate: foreign id": (
        lambda e: e.activate("shown", "foreign"),
        UnknownDecisionError,
        "no decision 'foreign'",
    ),
    "explain: foreign id": (
        lambda e: e.explain(decision_id="foreign"),
        UnknownDecisionError,
        "no decision 'foreign'",
    ),
}


def test_clear_errors_and_nothing_is_written(engines_on_both: Engines) -> None:
    """All in one test: a database for each would take longer than the calls."""
    engine = engines_on_both.open()
    add_campaign(engine)
    engine.select("spring", {"device": "mobile", "age": 30.0}, decision_id="shown")
    before = engines_on_both.row_counts()
    for name, (call, kind, message) in REFUSED.items():
        with pytest.raises(kind, match=message) as raised:
            call(engine)
        assert isinstance(raised.value, BanditError | StorageError), name
        assert len(str(raised.value)) < 1_000, name
        after = engines_on_both.row_counts()
        # Vectors of texts are kept before their creative is refused; they are nobody's.
        assert {**after, "embeddings": 0} == {**before, "embeddings": 0}, name
    assert engine.select("spring", {"device": "mobile"}).campaign == "spring"
    assert store_of(engine).check() == []
    engine.close()


def test_a_naive_clock(engines_on_both: Engines) -> None:
    add_campaign(engines_on_both.open())
    engine = engines_on_both.open(clock=lambda: datetime(2026, 3, 1))
    with pytest.raises(NaiveTimeError, match="expected a time with a time zone, got datetime"):
        engine.select("spring")
    assert engines_on_both.fetch("SELECT count(*) FROM decisions") == [(0,)]
    engines_on_both.close()
