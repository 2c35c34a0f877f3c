"""Logs become the arrays that their rows say, and bad files are told all that is wrong with them."""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bandit.decision_log.open_bandit import read_open_bandit
from bandit.decision_log.own_logs import read_database
from bandit.engine import Engine
from bandit.errors import LogError
from bandit.types import Creative, Outcome
from encoders import TextEncoder
from storage import Store, UnknownCampaignError
from tests.paths import TINY

HEADER = "timestamp,item_id,position,click,propensity_score,user_feature_0"
GOOD = ("2024-01-01 10:00:00+00:00,10,1,0,0.25,a", "2024-01-01 10:00:00+00:00,9,2,1,0.5,b")


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_open_bandit_columns_plain_and_gzipped(tmp_path: Path) -> None:
    plain = written(tmp_path / "log.csv", HEADER, *GOOD, *GOOD)
    packed = tmp_path / "log.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for path in (plain, packed):
        log = read_open_bandit(path)
        assert log.actions == ("9", "10")
        assert log.action.tolist() == [1, 0, 1, 0]
        assert log.reward.tolist() == [0, 1, 0, 1]
        assert log.position.tolist() == [1, 2, 1, 2]
        assert log.propensity.tolist() == [0.25, 0.5, 0.25, 0.5]
        assert_allclose(log.logging[:2], [[np.nan, 0.25], [0.5, np.nan]])
        assert log.eligible[:2].tolist() == [[False, True], [True, False]]
        assert log.context.tolist() == [[1.0]] * 4  # no level has 50 rows


def test_levels_with_rows_enough_become_columns(tmp_path: Path) -> None:
    log = read_open_bandit(written(tmp_path / "log.csv", HEADER, *GOOD * 50))
    assert log.context.shape == (100, 5)  # 1, two positions, two levels of the feature
    assert log.context[:2, 1:].tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("2024-01-02,1,1,0,0,a", "line 3: expected a propensity above 0 and up to 1, got 0"),
        ("2024-01-02,1,1,0,1.5,a", "line 3: expected a propensity above 0 and up to 1, got 1.5"),
        ("2024-01-02,1,1,0,nan,a", "line 3: expected a propensity above 0 and up to 1, got nan"),
        ("2024-01-02,1,1,0,,a", "line 3: expected a propensity above 0 and up to 1, got none"),
        ("2024-01-02,1,1,0,often,a", "line 3: expected a propensity above 0 and up to 1, got often"),
        ("2024-01-02,1,1,2,0.5,a", "line 3: expected a click of 0 or 1, got 2"),
        ("2024-01-02,,1,1,0.5,a", "line 3: it has no item_id"),
        ("2024-01-02,1,top,1,0.5,a", "line 3: expected a position that is a whole number, got top"),
        ("soon,1,1,1,0.5,a", "line 3: expected an ISO 8601 timestamp, got soon"),
        ("2023-12-31,1,1,1,0.5,a", "line 3: its timestamp 2023-12-31 is before that of the line above"),
        ("2024-01-02", "line 3: expected a click of 0 or 1, got none"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(LogError) as raised:
        read_open_bandit(written(tmp_path / "log.csv", HEADER, "2024-01-01,1,1,0,0.5,a", line))
    assert problem in str(raised.value)


def test_all_problems_at_once(tmp_path: Path) -> None:
    lines = ["2024-01-02,1,1,0,0,a", "2024-01-01,,x,7,2,a", *["x,1,1,0,0.5,a"] * 30]
    with pytest.raises(LogError, match="36 problems") as raised:
        read_open_bandit(written(tmp_path / "log.csv", HEADER, *lines))
    assert str(raised.value).count("\n  line ") == 20
    assert "and 16 more" in str(raised.value)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ((), "missing: timestamp, item_id, position, click, propensity_score"),
        (("item_id,timestamp,click",), "missing: position, propensity_score"),
        ((HEADER,), "found none"),
    ],
)
def test_files_without_decisions(tmp_path: Path, lines: Sequence[str], problem: str) -> None:
    with pytest.raises(LogError, match=problem):
        read_open_bandit(written(tmp_path / "log.csv", *lines))


@pytest.mark.parametrize(
    "content",
    [b"not packed", gzip.compress(HEADER.encode() * 100)[:-20], gzip.compress(zlib.compress(b"x" * 99))],
    ids=["no gzip", "cut", "binary"],
)
def test_files_that_are_no_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.csv.gz"
    path.write_bytes(content)
    with pytest.raises(LogError, match="expected a CSV"):
        read_open_bandit(path)


def test_a_database_gives_its_settled_decisions(url: str) -> None:
    with Engine.open(url, learn="manual", seed=3, encoder=TextEncoder(TINY, dtype="float32")) as engine:
        engine.add_campaign("spring", attribution_window=0, horizon=100)
        engine.add_campaign("other", attribution_window=0)
        for campaign in ("spring", "other"):
            engine.add_creatives(campaign, [Creative(name, headline=name) for name in ("warm", "cold")])
        decisions = [engine.select("spring", {"device": "mobile"}, decision_id=f"{i}") for i in range(6)]
        engine.select("other")
        engine.update_many([Outcome(decision_id=f"{i}", click=i % 2 == 0) for i in range(5)])
        engine.settle()
    with Store.open(url) as store:
        log = read_database(store, "spring")
        assert log.actions == ("cold", "warm")
        assert log.reward.tolist() == [1, 0, 1, 0, 1]  # the sixth has no outcome yet
        shown = [log.actions[action] for action in log.action]
        assert shown == [decision.creative_id for decision in decisions[:5]]
        assert_allclose(log.propensity, [decision.propensity for decision in decisions[:5]])
        assert_allclose(log.logging[np.arange(5), log.action], log.propensity)
        assert_allclose(log.logging.sum(axis=1), 1)
        assert log.eligible.all()
        with pytest.raises(UnknownCampaignError, match="autumn"):
            read_database(store, "autumn")
        with pytest.raises(LogError, match="'other', found none"):
            read_database(store, "other")
