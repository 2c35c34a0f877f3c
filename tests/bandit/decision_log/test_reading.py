"""Exports are read back as what the database says, and bad files are told all that is wrong with them."""

import csv
import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bandit.decision_log.dsjson import read_dsjson
from bandit.decision_log.logs import Log
from bandit.decision_log.own_logs import read_database, read_export
from bandit.decision_log.reading import read_log
from bandit.engine import Engine
from bandit.errors import LogError
from bandit.types import Creative, Outcome
from encoders import TextEncoder
from simulations.cli import main
from storage import Store
from tests.paths import TINY

OURS = {
    "decision_id": "b",
    "campaign": "spring",
    "creative": "warm",
    "decided_at": "2026-03-01T10:00:00+00:00",
    "context": '{"device":"mobile"}',
    "propensity": "0.75",
    "click": "1",
    "candidates": '["cold","warm"]',
    "propensities": "[0.25,0.75]",
    "place": "0",
}
# The fields of the format's documentation, of a request with three actions.
VW: dict[str, Any] = {
    "_label_cost": -1.0,
    "_label_probability": 0.8166667,
    "_label_Action": 2,
    "_labelIndex": 1,
    "Timestamp": "2021-07-29T10:00:00.1230000Z",
    "Version": "1",
    "EventId": "event-1",
    "a": [2, 1, 3],
    "c": {
        "TShared": {"hour": 9, "device": "mobile"},
        "weekend": True,
        "_multi": [{"TAction": {"b": 0}}, {"TAction": {"b": 1}}, {"_tag": "third", "TAction": {"b": 2}}],
    },
    "p": [0.8166667, 0.1, 0.0833333],
    "VWState": {"m": "N/A"},
}


def written_csv(path: Path, *lines: Mapping[str, str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path


def written_dsjson(path: Path, *lines: Mapping[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def assert_same(log: Log, other: Log) -> None:
    assert log.actions == other.actions
    assert log.decision.tolist() == other.decision.tolist()
    for one, another in zip(log[3:], other[3:], strict=True):
        assert_allclose(one, another, rtol=1e-12)


def test_exports_are_what_the_database_says(url: str, tmp_path: Path) -> None:
    with Engine.open(url, learn="manual", seed=3, encoder=TextEncoder(TINY, dtype="float32")) as engine:
        for campaign in ("spring", "other"):
            engine.add_campaign(campaign, attribution_window=0, horizon=100)
            engine.add_creatives(campaign, [Creative(name, headline=name) for name in ("warm", "cold")])
        ids = [f"{(7 * i) % 60}" for i in range(60)]  # not in the order of their times
        for i in ids:
            engine.select("spring", {"device": "mobile" if int(i) < 50 else "desktop"}, decision_id=i)
        engine.select("spring", decision_id="pending")
        engine.select("other", decision_id="other")
        engine.update_many([Outcome(decision_id=i, click=i.endswith("3")) for i in (*ids, "other")])
        engine.settle()
    for name, format in (("log.csv.gz", "csv"), ("log.dsjson.gz", "dsjson"), ("ob.csv", "open-bandit")):
        more = ["--campaign", "spring"] if format == "open-bandit" else []
        assert main(["storage", "export", url, str(tmp_path / name), "--format", format, *more]) == 0
    with Store.open(url) as store:
        log = read_database(store, "spring")
    assert log.decision.tolist() == ids
    assert log.content is not None
    assert log.content.shape == (2, 64)
    assert_same(read_log(tmp_path / "log.csv.gz", "spring"), log)
    from_vw = read_log(tmp_path / "log.dsjson.gz", "spring")
    # Its context has other names, so that its columns are in another order.
    assert_allclose(sorted(from_vw.context.T.tolist()), sorted(log.context.T.tolist()))
    assert_same(from_vw._replace(context=log.context), log)
    for name in ("log.csv.gz", "log.dsjson.gz"):
        with pytest.raises(LogError, match="2 campaigns: other, spring; name one by --campaign"):
            read_log(tmp_path / name)
        with pytest.raises(LogError, match="no campaign 'autumn'; it has other, spring"):
            read_log(tmp_path / name, "autumn")
    with pytest.raises(LogError, match="one campaign, got 'spring'"):
        read_log(tmp_path / "ob.csv", "spring")


def test_an_export_in_any_order_and_without_what_has_not_settled(tmp_path: Path) -> None:
    lines = [
        OURS,
        {**OURS, "decision_id": "a", "decided_at": "2026-03-01T09:00:00+00:00", "click": "0"},
        {**OURS, "decision_id": "c", "click": ""},
    ]
    log = read_log(written_csv(tmp_path / "log.csv", *lines))
    assert log.decision.tolist() == ["a", "b"]
    assert log.actions == ("cold", "warm")
    assert log.reward.tolist() == [0, 1]
    assert_allclose(log.logging, [[0.25, 0.75]] * 2)
    few = {name: OURS[name] for name in OURS if name not in ("campaign", "place")}
    assert read_log(written_csv(tmp_path / "few.csv", few)).position.tolist() == [0]
    with pytest.raises(LogError, match="none with a click of 0 or 1"):
        read_log(written_csv(tmp_path / "none.csv", lines[2]))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"propensity": "0"}, "expected a propensity above 0 and up to 1, got 0"),
        ({"propensity": "1.5"}, "expected a propensity above 0 and up to 1, got 1.5"),
        ({"propensity": ""}, "expected propensity to be a number above 0 and up to 1, got none"),
        ({"propensity": "nan"}, "expected propensity to be a number above 0 and up to 1, got nan"),
        ({"propensity": "0.5"}, "its propensity 0.5 is not the one listed for 'warm'"),
        ({"click": "2"}, "expected a click of 0 or 1, got 2"),
        ({"click": "yes"}, "expected click to be 0 or 1, got yes"),
        ({"creative": "lost"}, "'lost' was shown and is none of its candidates"),
        ({"candidates": '["warm","warm"]'}, "a candidate is named twice"),
        ({"candidates": '["warm"]'}, "1 candidates have 2 propensities"),
        ({"candidates": "warm"}, "expected candidates to be a JSON list of names, got warm"),
        ({"propensities": '["0.25","0.75"]'}, "expected propensities to be a JSON list of numbers"),
        ({"propensities": "[0.5,0.75]"}, "its propensities sum to 1.25, not to 1"),
        ({"propensities": "[-0.25,1.25]"}, "expected propensities of 0 to 1, got -0.25"),
        ({"decided_at": "2026-03-01T10:00:00"}, "expected decided_at to be an ISO 8601 time with its zone"),
        ({"decided_at": "soon"}, "expected decided_at to be an ISO 8601 time with its zone, got soon"),
        ({"context": "[]"}, "expected context to be a JSON object, got []"),
        ({"place": "top"}, "expected place to be a whole number, got top"),
        ({"decision_id": ""}, "it has no decision_id"),
        ({"decision_id": "a"}, "decision 'a' is in line 2 already"),
    ],
    ids=str,
)
def test_bad_lines_of_an_export_are_named(tmp_path: Path, change: dict[str, str], problem: str) -> None:
    path = written_csv(tmp_path / "log.csv", {**OURS, "decision_id": "a"}, {**OURS, **change})
    with pytest.raises(LogError) as raised:
        read_export(path)
    assert f"line 3: {problem}" in str(raised.value)


def test_all_columns_that_are_missing_are_named(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("decision_id,creative,click,timestamp\n")
    with pytest.raises(LogError) as raised:
        read_log(path)
    ours = "decided_at, context, propensity, candidates, propensities"
    theirs = "item_id, position, propensity_score"
    assert f"for an export of ours: {ours}; for Open Bandit's: {theirs}" in str(raised.value)
    path.write_text(",".join(OURS) + "\n")
    with pytest.raises(LogError, match="found none"):
        read_log(path)


def test_a_line_as_vowpal_wabbit_documents_it(tmp_path: Path) -> None:
    second = {**VW, "EventId": "event-0", "_label_Action": 3, "_label_probability": 0.0833333}
    second |= {"_label_cost": 0, "Timestamp": "2021-07-29T09:00:00.500Z"}
    skipped = {**VW, "EventId": "event-2", "_skipLearn": True}
    log = read_dsjson(written_dsjson(tmp_path / "log.dsjson", VW, second, skipped))
    first, other = '{"TAction":{"b":0}}', '{"TAction":{"b":1}}'
    assert log.actions == ("third", first, other)
    assert log.decision.tolist() == ["event-0", "event-1"]  # by their times
    assert [log.actions[i] for i in log.action] == ["third", other]
    assert log.reward.tolist() == [0, 1]
    assert_allclose(log.propensity, [0.0833333, 0.8166667])
    assert_allclose(log.logging[1], [0.0833333, 0.1, 0.8166667])
    many = [{**VW, "EventId": f"{i}", "c": {**VW["c"], "weekend": i % 2 == 0}} for i in range(120)]
    assert read_dsjson(written_dsjson(tmp_path / "many.dsjson", *many)).context.shape == (120, 3)


def test_without_a_time_in_every_line_dsjson_keeps_its_order(tmp_path: Path) -> None:
    timeless = {name: value for name, value in VW.items() if name not in ("Timestamp", "EventId")}
    log = read_dsjson(written_dsjson(tmp_path / "log.json", timeless, VW))
    assert log.decision.tolist() == ["line 1", "event-1"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"_label_probability": 0}, "expected a _label_probability above 0 and up to 1, got 0"),
        ({"_label_probability": 1.5}, "expected a _label_probability above 0 and up to 1, got 1.5"),
        ({"_label_probability": None}, "expected a _label_probability above 0 and up to 1, got None"),
        ({"_label_probability": 0.5}, "its propensity 0.5 is not the one listed"),
        ({"_label_cost": 2.5}, "expected a _label_cost of −1 (a click) or 0, got 2.5"),
        ({"_label_Action": 4}, "expected _label_Action to be 1 to 3, got 4"),
        ({"a": [1, 2]}, "expected a to have each of 1 to 3, as c._multi has actions, got [1, 2]"),
        ({"p": [0.5, 0.5, 0.5]}, "its propensities sum to 1.5, not to 1"),
        ({"p": "0.5"}, "expected p to be a list of numbers, got 0.5"),
        ({"c": {"_multi": []}}, "expected c to be an object with a list of actions, _multi"),
        ({"Timestamp": "soon"}, "expected Timestamp to be an ISO 8601 time, got 'soon'"),
        ({"EventId": "event-1"}, "decision 'event-1' is in line 1 already"),
    ],
    ids=str,
)
def test_bad_lines_of_dsjson_are_named(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    path = written_dsjson(tmp_path / "log.dsjson", VW, {**VW, "EventId": "event-2", **change})
    with pytest.raises(LogError) as raised:
        read_dsjson(path)
    assert f"line 2: {problem}" in str(raised.value)


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (lambda path: path.write_bytes(gzip.compress(b"")), "expected one decision a line, found none"),
        (lambda path: path.write_bytes(gzip.compress(b"{}\n[1]\n")), "line 1: these fields are missing: "),
        (
            lambda path: path.write_bytes(gzip.compress(b"{}\n[1]\n")),
            "line 2: expected a JSON object, got '[1]'",
        ),
        (
            lambda path: path.write_bytes(gzip.compress(b"{oops\n")),
            "line 1: expected a JSON object, got '{oops'",
        ),
        (lambda path: path.write_bytes(b"not packed"), "gzipped if named .gz"),
    ],
    ids=["empty", "no fields", "no object", "no JSON", "not packed"],
)
def test_files_that_are_no_dsjson(tmp_path: Path, write: Callable[[Path], object], problem: str) -> None:
    path = tmp_path / "log.dsjson.gz"
    write(path)
    with pytest.raises(LogError) as raised:
        read_dsjson(path)
    assert problem in str(raised.value)


def test_a_log_of_ours_is_evaluated(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    lines = []
    for i in range(400):
        warm = rng.random() < 0.75
        change = {"decision_id": f"{i}", "click": f"{int(rng.random() < (0.6 if warm else 0.2))}"}
        if not warm:
            change |= {"creative": "cold", "propensity": "0.25"}
        lines.append({**OURS, **change})
    path = written_csv(tmp_path / "log.csv", *lines)
    mine = tmp_path / "mine.csv"
    mine.write_text("creative,probability\nwarm,1\n")
    for policy in (mine, path):
        assert main(["evaluate", str(path), "--policy", str(policy), "--json"]) == 0
        found = json.loads(capfd.readouterr().out)
        values = {one["estimator"]: one["value"] for one in found["estimates"]}
        clicks = [line["click"] == "1" for line in lines if policy == path or line["creative"] == "warm"]
        assert values["snips"] == pytest.approx(np.mean(clicks), abs=0.03)
