"""Bad input gets a clear error, and nothing is written."""

import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import encoders.locate
from bandit import BanditError, Creative, EncoderError, Engine, HistoryRow, Outcome, Request, StorageError
from bandit.errors import (
    CampaignInactiveError,
    ContextError,
    EncoderChangedError,
    EngineClosedError,
    ForkedEngineError,
    HistoryError,
    InvalidCampaignError,
    InvalidCreativeError,
    InvalidOutcomeError,
    NoCandidatesError,
)
from encoders import TextEncoder
from storage import (
    DuplicateCampaignError,
    DuplicateCreativeError,
    InvalidIdError,
    UnknownCampaignError,
    UnknownCreativeError,
    UnknownDecisionError,
)
from tests.bandit.engines import MINUTE, START, Clock, Engines, add_campaign, creatives

Call = Callable[[Engine], object]


@pytest.fixture
def engine(engines: Engines) -> Engine:
    """An engine as `prepare` makes it."""
    return prepare(engines.open())


def prepare(engine: Engine) -> Engine:
    """Add a campaign in every state, known context fields, and a decision `shown`."""
    add_campaign(engine)
    add_campaign(engine, "a", "b", name="paused")
    engine.pause("paused")
    add_campaign(engine, "a", "b", name="ended")
    engine.retire("ended")
    add_campaign(engine, "a", "b", name="all paused")
    engine.pause("all paused", "a")
    engine.pause("all paused", "b")
    add_campaign(engine, "a", "b", name="all retired")
    engine.retire("all retired", "a")
    engine.retire("all retired", "b")
    add_campaign(engine, "a", "b", name="fresh")  # without a decision
    engine.add_campaign("empty")
    engine.select("spring", {"device": "mobile", "age": 33.5, "is_new": True}, decision_id="shown")
    return engine


def row(impressions: Any, clicks: Any, name: str = "calm") -> HistoryRow:
    return HistoryRow(
        campaign="old",
        creative=Creative(name, headline=f"warm {name}"),
        impressions=impressions,
        clicks=clicks,
    )


def with_context(**context: Any) -> Call:
    return lambda engine: engine.select("spring", {**context, "unseen": 1.0})


REFUSED: dict[str, tuple[Call, type[Exception], str]] = {
    "select: unknown campaign": (
        lambda engine: engine.select("sprong", {"unseen": "x"}),
        UnknownCampaignError,
        "there is no campaign 'sprong'; did you mean 'spring'",
    ),
    "add_creatives: unknown campaign": (
        lambda engine: engine.add_creatives("sprong", creatives("x")),
        UnknownCampaignError,
        "there is no campaign 'sprong'; did you mean 'spring'",
    ),
    "pause: unknown campaign": (
        lambda engine: engine.pause("sprong"),
        UnknownCampaignError,
        "there is no campaign 'sprong'; did you mean 'spring'",
    ),
    "arms: unknown campaign": (
        lambda engine: engine.arms("sprong"),
        UnknownCampaignError,
        "there is no campaign 'sprong'; did you mean 'spring'",
    ),
    "pause: unknown creative": (
        lambda engine: engine.pause("spring", "clam"),
        UnknownCreativeError,
        "campaign 'spring' has no creative 'clam'; did you mean 'calm'",
    ),
    "select: unknown eligible": (
        lambda engine: engine.select("spring", {"unseen": 1}, eligible=["calm", "clam"]),
        UnknownCreativeError,
        "campaign 'spring' has no creative 'clam'",
    ),
    "select: unknown exclude": (
        lambda engine: engine.select("spring", exclude=["clam"]),
        UnknownCreativeError,
        "campaign 'spring' has no creative 'clam'",
    ),
    "update: unknown decision": (
        lambda engine: engine.update("nothing", click=True),
        UnknownDecisionError,
        "there is no decision 'nothing'; nothing was written",
    ),
    "update_many: one unknown decision": (
        lambda engine: engine.update_many(
            [Outcome(decision_id=i, click=True) for i in ("shown", "one", "two")]
        ),
        UnknownDecisionError,
        "there is no decision 'one', 'two'; nothing was written",
    ),
    "activate: unknown decision": (
        lambda engine: engine.activate("shown", "nothing"),
        UnknownDecisionError,
        "there is no decision 'nothing'",
    ),
    "add_campaign: duplicate": (
        lambda engine: engine.add_campaign("spring"),
        DuplicateCampaignError,
        "campaign 'spring' exists; choose another name",
    ),
    "add_creatives: duplicate of a stored one": (
        lambda engine: engine.add_creatives("spring", creatives("new", "calm", "urgent")),
        DuplicateCreativeError,
        "campaign 'spring': .*calm, urgent; nothing was added",
    ),
    "add_creatives: duplicate in one call": (
        lambda engine: engine.add_creatives("spring", creatives("new", "x", "new")),
        DuplicateCreativeError,
        "campaign 'spring': .* twice .*: new; nothing was added",
    ),
    "select: empty campaign": (
        lambda engine: engine.select("empty", {"unseen": "x"}),
        NoCandidatesError,
        "campaign 'empty' has no creatives; add some",
    ),
    "select: all paused": (
        lambda engine: engine.select("all paused", {"unseen": "x"}),
        NoCandidatesError,
        "campaign 'all paused': all of its 2 creatives are paused; resume one",
    ),
    "select: all retired": (
        lambda engine: engine.select("all retired", {"unseen": "x"}),
        NoCandidatesError,
        "campaign 'all retired': all of its 2 creatives are retired",
    ),
    "select: paused campaign": (
        lambda engine: engine.select("paused", {"unseen": "x"}),
        CampaignInactiveError,
        "campaign 'paused' is paused; resume it",
    ),
    "select: ended campaign": (
        lambda engine: engine.select("ended", {"unseen": "x"}),
        CampaignInactiveError,
        "campaign 'ended' is ended",
    ),
    "select: nothing eligible": (
        lambda engine: engine.select("spring", {"unseen": 1}, eligible=["calm"], exclude=["calm"]),
        NoCandidatesError,
        "campaign 'spring': none of its 3 active creatives is left",
    ),
    "select_many: one bad request": (
        lambda engine: engine.select_many(
            [Request(campaign="fresh", context={"unseen": 1}), Request(campaign="empty")]
        ),
        NoCandidatesError,
        "campaign 'empty' has no creatives",
    ),
    "select: id too long": (
        lambda engine: engine.select("spring", {"unseen": 1}, decision_id="x" * 65),
        InvalidIdError,
        f"1 to 64 printable ASCII characters, got '{'x' * 65}'",
    ),
    "select: empty id": (
        lambda engine: engine.select("spring", decision_id=""),
        InvalidIdError,
        "1 to 64 printable ASCII characters, got ''",
    ),
    "context: a list": (
        with_context(device=["mobile"]),
        ContextError,
        r"'device': expected a string, a number or a boolean, got list \['mobile'\]",
    ),
    "context: None": (
        with_context(device=None),
        ContextError,
        "'device': expected a string, a number or a boolean, got NoneType None",
    ),
    "context: NaN": (with_context(age=math.nan), ContextError, "'age': expected a finite number, got nan"),
    "context: infinity": (
        with_context(age=-math.inf),
        ContextError,
        "'age': expected a finite number, got -inf",
    ),
    "context: too large": (
        with_context(age=10**400),
        ContextError,
        "'age': expected a finite number, got 10000",
    ),
    "context: a string for a number": (
        with_context(age="old"),
        ContextError,
        "'age': expected a number, as in all requests before, got the string 'old'",
    ),
    "context: a boolean for a number": (
        with_context(age=True),
        ContextError,
        "'age': expected a number, .* got the boolean True",
    ),
    "context: a number for a string": (
        with_context(device=7),
        ContextError,
        "'device': expected a string, .* got the number 7",
    ),
    "context: a number for a boolean": (
        with_context(is_new=1),
        ContextError,
        "'is_new': expected a boolean, .* got the number 1",
    ),
    "context: two kinds in one call": (
        lambda engine: engine.select_many(
            [Request(campaign="spring", context={"unseen": value}) for value in (1, "one")]
        ),
        ContextError,
        "'unseen': the requests of one call have both a number and a string",
    ),
    "context: no mapping": (
        lambda engine: engine.select("spring", ["mobile"]),  # type: ignore[arg-type]  the point of the test
        ContextError,
        "expected the context to be a mapping, got list",
    ),
    "context: a name that is no string": (
        lambda engine: engine.select("spring", {7: "x"}),  # type: ignore[dict-item]  the point of the test
        ContextError,
        "names of context fields to be strings of 1 to 200 bytes, got 7",
    ),
    "context: a long value": (
        with_context(device="x" * 1001),
        ContextError,
        "'device' has 1,001 bytes; at most 1,000",
    ),
    "context: many fields": (
        lambda engine: engine.select("spring", {f"f{i}": 1 for i in range(65)}),
        ContextError,
        "has 65 fields; at most 64",
    ),
    "update: says nothing": (
        lambda engine: engine.update("shown"),
        InvalidOutcomeError,
        "decision 'shown': the report says nothing; give click=True or False",
    ),
    "update: conversion=False says nothing": (
        lambda engine: engine.update("shown", conversion=False),
        InvalidOutcomeError,
        "decision 'shown': the report says nothing",
    ),
    "update: click is no boolean": (
        lambda engine: engine.update("shown", click=1),  # type: ignore[arg-type]  the point of the test
        InvalidOutcomeError,
        "decision 'shown': expected click to be True, False or None, got 1",
    ),
    "update: value is NaN": (
        lambda engine: engine.update("shown", conversion=True, value=math.nan),
        InvalidOutcomeError,
        "decision 'shown': expected a finite value, got nan",
    ),
    "update: value is text": (
        lambda engine: engine.update("shown", conversion=True, value="9.99"),  # type: ignore[arg-type]
        InvalidOutcomeError,
        "decision 'shown': expected value to be a number, got '9.99'",
    ),
    "update: naive time": (
        lambda engine: engine.update("shown", click=True, occurred_at=datetime(2026, 3, 1, 12)),
        InvalidOutcomeError,
        "decision 'shown': expected occurred_at to be aware, got the naive 2026-03-01 12:00:00; add a time",
    ),
    "update: future time": (
        lambda engine: engine.update("shown", click=True, occurred_at=START + 2 * MINUTE),
        InvalidOutcomeError,
        r"decision 'shown': occurred_at 2026-03-01 12:02:00\+00:00 is in the future; now it is",
    ),
    "update: time is text": (
        lambda engine: engine.update("shown", click=True, occurred_at="12:00"),  # type: ignore[arg-type]
        InvalidOutcomeError,
        "decision 'shown': expected occurred_at to be a datetime, got '12:00'",
    ),
    "update_many: one bad report": (
        lambda engine: engine.update_many(
            [Outcome(decision_id="shown", click=True), Outcome(decision_id="shown")]
        ),
        InvalidOutcomeError,
        "decision 'shown': the report says nothing",
    ),
    "warm_start: all bad rows at once": (
        lambda engine: engine.warm_start(
            [row(10, 1), row(-1, 0, "x"), row(3, 4, "y"), row(5, -2, "z"), row("5", 1, "v"), row(1.5, 1, "w")]
        ),
        HistoryError,
        r"history: 5 problems; nothing was imported"
        r"\n  row 2: negative counts: -1 impressions, 0 clicks"
        r"\n  row 3: 4 clicks on 3 impressions"
        r"\n  row 4: negative counts: 5 impressions, -2 clicks"
        r"\n  row 5: expected whole numbers, got '5' impressions, 1 clicks"
        r"\n  row 6: expected whole numbers, got 1.5 impressions, 1 clicks$",
    ),
    "warm_start: other texts": (
        lambda engine: engine.warm_start(
            [
                HistoryRow(
                    campaign="spring", creative=Creative("calm", headline="new"), impressions=1, clicks=0
                )
            ]
        ),
        HistoryError,
        "creative 'calm' of campaign 'spring' is there already with other texts",
    ),
    "add_campaign: horizon": (
        lambda engine: engine.add_campaign("new", horizon=1.5),  # type: ignore[arg-type]  the point of the test
        InvalidCampaignError,
        "campaign .new.: expected horizon to be a whole number of impressions above 0, .* got 1.5",
    ),
}


@pytest.fixture(scope="module")
def served(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory, tiny_encoder: TextEncoder
) -> Iterator[tuple[Engines, Engine]]:
    """One engine for all calls that must change nothing."""
    path = shutil.copy(sqlite_template, tmp_path_factory.mktemp("served") / "ads.db")
    engines = Engines(f"sqlite:///{path}", tiny_encoder, Clock())
    yield engines, prepare(engines.open())
    engines.close()


@pytest.mark.parametrize("name", REFUSED)
def test_a_clear_error_and_nothing_is_written(served: tuple[Engines, Engine], name: str) -> None:
    engines, engine = served
    call, kind, message = REFUSED[name]
    before = engines.row_counts()
    means = engines.fetch("SELECT campaign_id, mean_content IS NULL, status FROM campaigns ORDER BY 1")
    with pytest.raises(kind, match=message) as raised:
        call(engine)
    assert isinstance(raised.value, BanditError | StorageError)
    assert engines.row_counts() == before
    assert (
        engines.fetch("SELECT campaign_id, mean_content IS NULL, status FROM campaigns ORDER BY 1") == means
    )
    engine.select("spring", {"device": "a new category"})


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"headline": 7}, "creative 'a': expected headline to be a string, got int 7"),
        ({"headline": "x", "body": None}, "creative 'a': expected body to be a string, got NoneType None"),
        ({}, "creative 'a': all texts are empty"),
        ({"headline": " \n", "body": ""}, "creative 'a': all texts are empty"),
        ({"headline": "x" * 10_001}, "creative 'a': headline has 10,001 characters; at most 10,000"),
        ({"call_to_action": "x" * 20_000}, "creative 'a': call_to_action has 20,000 characters"),
        ({"headline": "x", "floor": 0.5, "cap": 0.4}, "creative 'a': .* got floor 0.5 and cap 0.4"),
        ({"headline": "x", "floor": -0.1}, "got floor -0.1 and cap 1.0"),
        ({"headline": "x", "cap": 0}, "got floor 0.0 and cap 0"),
        ({"headline": "x", "cap": float("nan")}, "cap nan"),
        ({"headline": "x", "floor": "0.1"}, "got floor '0.1'"),
    ],
)
def test_texts_that_cannot_be_used(texts: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidCreativeError, match=message):
        Creative("a", **texts)


@pytest.mark.parametrize("name", ["", 7, None])
def test_a_creatives_id_is_a_string(name: Any) -> None:
    with pytest.raises(InvalidCreativeError, match=f"id to be a string that is not empty, got {name!r}"):
        Creative(name, headline="x")


def test_the_longest_text_is_taken(engine: Engine) -> None:
    engine.add_creatives("spring", [Creative("long", headline="sale " * 2_000)])
    assert engine.select("spring", eligible=["long"]).creative_id == "long"


def test_a_new_category_is_learnt(engines: Engines, engine: Engine) -> None:
    for i in range(50):
        engine.select("spring", {"device": "watch"}, decision_id=f"w{i}")
        engine.update(f"w{i}", click=False)
    engine.settle()
    levels = "SELECT level FROM context_slots WHERE field = 'device' AND level IS NOT NULL"
    assert engines.fetch(levels) == [("watch",)]


def test_a_click_twice_and_a_late_one_are_no_errors(engines: Engines, engine: Engine) -> None:
    assert engine.update("shown", click=True).status == "recorded"
    before = engines.row_counts()
    assert engine.update("shown", click=True).status == "repeated"
    assert engines.row_counts() == before
    assert engine.update("shown", click=False).status == "late"
    assert engines.fetch("SELECT click FROM decisions WHERE decision_id = 'shown'") == [(1,)]


def test_without_an_encoder_nothing_is_added(
    engines: Engines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(encoders.locate.ENVIRONMENT_VARIABLE, str(tmp_path / "nowhere"))
    engine = engines.open(encoder=None)
    engine.add_campaign("spring")
    before = engines.row_counts()
    with pytest.raises(EncoderError, match=r"no text encoder found.*nowhere.*pip install") as raised:
        engine.add_creatives("spring", creatives("calm"))
    assert isinstance(raised.value, LookupError | OSError | RuntimeError | ValueError)
    assert engines.row_counts() == before


def test_without_an_encoder_what_is_there_is_served(engines: Engines, tmp_path: Path) -> None:
    add_campaign(engines.open())
    engine = engines.open(encoder=tmp_path / "nowhere")
    assert engine.select("spring").creative_id in {"calm", "urgent", "plain"}
    with pytest.raises(EncoderError, match="nowhere is not a folder"):
        engine.add_creatives("spring", creatives("new"))


def test_another_encoder_is_refused(engines: Engines, tiny_encoder: TextEncoder) -> None:
    class Other:
        dim, fingerprint = tiny_encoder.dim, "another"
        encode = staticmethod(tiny_encoder.encode)

    early = engines.open(encoder=Other())
    add_campaign(engines.open())
    before = engines.row_counts()
    for engine in (early, engines.open(encoder=Other())):
        expected = (
            f"made by the encoder {tiny_encoder.fingerprint}, this one is another; open it with the same"
        )
        with pytest.raises(EncoderChangedError, match=expected):
            engine.add_creatives("spring", creatives("new"))
        assert engines.row_counts() == before


def test_a_closed_engine(engines: Engines, engine: Engine) -> None:
    engine.close()
    engine.close()
    calls: list[Callable[[], object]] = [
        lambda: engine.select("spring"),
        lambda: engine.update("shown", click=True),
        lambda: engine.activate("shown"),
        engine.settle,
        lambda: engine.arms("spring"),
        engine.refit,
        lambda: engine.warm_start([]),
        lambda: engine.warm_start_from("other.db"),
        lambda: engine.explain(decision_id="shown"),
        lambda: engine.set_traffic("spring", "calm", floor=0.1),
        lambda: engine.add_campaign("new"),
        lambda: engine.add_creatives("spring", []),
        lambda: engine.pause("spring"),
    ]
    before = engines.row_counts()
    for call in calls:
        with pytest.raises(EngineClosedError, match="this engine is closed; open another one"):
            call()
    assert engines.row_counts() == before


def test_a_forked_engine(engine: Engine) -> None:
    receiver, sender = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX and Python warn of just what is tried here
        child = os.fork()
    if child == 0:
        try:
            engine.select("spring")
        except ForkedEngineError as error:
            os.write(sender, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(sender)
    with os.fdopen(receiver) as said:
        assert said.read() == "this engine was opened before a fork; open one in each process, after the fork"
    engine.select("spring")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"role": "reader"}, "expected role to be 'both', 'select' or 'learn', got 'reader'"),
        ({"learn": "later"}, "expected learn to be 'background', 'inline' or 'manual', got 'later'"),
    ],
)
def test_a_role_or_mode_that_there_is_not(engines: Engines, settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        engines.open(**settings)


@pytest.mark.parametrize("window", [0, timedelta(minutes=30)])
def test_clicks_without_a_no_warn_once(engines: Engines, window: Any) -> None:
    engine = engines.open()
    add_campaign(engine, attribution_window=window)
    ids = [d.id for d in engine.select_many([Request(campaign="spring")] * 210)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in ids[:99]:
            engine.update(i, click=True)
        assert caught == []
        for i in ids[99:]:
            engine.update(i, click=True)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == (1 if window == 0 else 0)
    assert all("100 clicks were reported and not one non-click" in message for message in messages)


def test_one_no_is_enough_not_to_warn(engines: Engines) -> None:
    engine = engines.open()
    add_campaign(engine)
    ids = [d.id for d in engine.select_many([Request(campaign="spring")] * 120)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.update(ids[0], click=False)
        engine.update_many([Outcome(decision_id=i, click=True) for i in ids[1:]])
