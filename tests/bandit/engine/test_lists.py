"""Several places: ordered lists of distinct creatives, each with its exact probability."""

from collections import Counter
from itertools import permutations
from math import prod

import numpy as np
import pytest

from bandit import Engine, Request
from bandit.errors import InvalidListError
from storage import DecisionConflictError
from tests.bandit.engines import Engines, add_campaign, play

N_LISTS = 500


@pytest.fixture
def engine(engines: Engines) -> Engine:
    """An engine that has learnt a little, with three creatives."""
    engine = engines.open()
    add_campaign(engine, uniform_share=0.2)
    play(engine, 30)
    return engine


def test_lists_come_as_often_as_their_propensities_say(engine: Engine) -> None:
    # The probability of a list depends on its point set, which the id picks: its rows tell it.
    expected: Counter[tuple[str, ...]] = Counter()
    variance: Counter[tuple[str, ...]] = Counter()
    shown: Counter[tuple[str, ...]] = Counter()
    inverse = []
    names = ("calm", "plain", "urgent")
    for i in range(N_LISTS):
        first, second = engine.select("spring", decision_id=f"list-{i}", k=2)
        assert first.creative_id != second.creative_id
        assert first.list_propensity == second.list_propensity
        assert first.list_propensity == pytest.approx(first.propensity * second.propensity, rel=1e-12)
        assert first.propensities[first.creative_id] == first.propensity
        assert second.propensities[first.creative_id] == 0
        assert sum(second.propensities.values()) == pytest.approx(1, rel=1e-12)
        shown[first.creative_id, second.creative_id] += 1
        for name, p in first.propensities.items():
            expected[name,] += p
            variance[name,] += p * (1 - p)
        inverse.append(1 / first.list_propensity)
        shown[first.creative_id,] += 1
    for name in names:
        assert abs(shown[name,] - expected[name,]) < 5 * np.sqrt(variance[name,])
    # Of the 6 lists each is shown with its propensity: 1/propensity has mean 6, and each list's part is 1.
    assert set(shown) == set(permutations(names, 2)) | {(name,) for name in names}
    assert np.mean(inverse) == pytest.approx(6, abs=5 * np.std(inverse) / np.sqrt(N_LISTS))


def test_each_place_is_a_decision_of_its_own(engine: Engine, engines: Engines) -> None:
    before = engines.row_counts()["decisions"]
    places = engine.select("spring", {"device": "mobile"}, decision_id="page", k=3)
    assert [place.id for place in places] == ["page", "page~1", "page~2"]
    assert [place.place for place in places] == [0, 1, 2]
    assert {place.creative_id for place in places} == {"calm", "plain", "urgent"}
    assert places[2].propensity == 1
    stored = engines.fetch(
        "SELECT place, request_id, list_propensity, propensity FROM decisions "
        "WHERE decision_id LIKE 'page%' ORDER BY decision_id"
    )
    assert [row[:2] for row in stored] == [(0, "page"), (1, "page"), (2, "page")]
    assert stored[0][2] == pytest.approx(prod(row[3] for row in stored), rel=1e-12)
    assert engines.row_counts()["decisions"] == before + 3
    assert engine.update("page~1", click=True) is not None


def test_the_same_id_gives_the_first_list(engine: Engine, engines: Engines) -> None:
    first = engine.select("spring", decision_id="page", k=2, request_id="view")
    before = engines.row_counts()["decisions"]
    play(engine, 20, start=1_000)
    counted = engines.row_counts()["decisions"]
    assert engine.select("spring", decision_id="page", k=2, request_id="view") == first
    assert engines.row_counts()["decisions"] == counted > before


def test_there_are_no_more_places_than_candidates(engine: Engine) -> None:
    assert len(engine.select("spring", k=7)) == 3
    assert len(engine.select("spring", exclude=["calm"], k=3, decision_id="two")) == 2
    assert len(engine.select("spring", exclude=["calm"], k=3, decision_id="two")) == 2
    (only,) = engine.select("spring", k=1)
    assert only.list_propensity == only.propensity


def test_a_list_of_one_is_the_decision_that_would_have_been_made(engine: Engine) -> None:
    for i in range(20):
        with_k, without = (
            engine.select("spring", eligible=["calm", "plain"], decision_id=name, k=k)
            for name, k in ((f"x{i}", 1), (f"y{i}", None))
        )
        assert isinstance(with_k, list)
        assert set(with_k[0].propensities) == set(without.propensities)  # type: ignore[union-attr]  one decision
    assert engine.select("spring").list_propensity is None


@pytest.mark.parametrize("k", [0, -1, 65, True, 2.0])
def test_k_is_checked(engine: Engine, k: int) -> None:
    with pytest.raises(InvalidListError, match=f"from 1 to 64, got {k!r}"):
        engine.select("spring", k=k)


def test_ids_must_leave_room(engine: Engine) -> None:
    engine.select("spring", decision_id="i" * 61, k=2)
    engine.select("spring", decision_id="i" * 64, k=1)
    with pytest.raises(InvalidListError, match="has 62 characters; for a list at most 61"):
        engine.select("spring", decision_id="i" * 62, k=2)


def test_an_id_of_another_list_is_refused(engine: Engine, engines: Engines) -> None:
    engine.select("spring", decision_id="list", k=2)
    engine.select("spring", decision_id="one")
    engine.select("spring", decision_id="taken~1")
    before = engines.row_counts()
    with pytest.raises(DecisionConflictError, match=r"'list' .* its list has 2 creatives, k is 3"):
        engine.select("spring", decision_id="list", k=3)
    with pytest.raises(DecisionConflictError, match=r"'list' .*its k differ"):
        engine.select("spring", decision_id="list")
    with pytest.raises(DecisionConflictError, match=r"'one' .*its k differ"):
        engine.select("spring", decision_id="one", k=2)
    with pytest.raises(DecisionConflictError, match=r"places are taken: taken~1"):
        engine.select("spring", decision_id="taken", k=2)
    assert engines.row_counts() == before


def test_many_requests_are_for_one_creative_each(engine: Engine) -> None:
    with pytest.raises(InvalidListError, match=r"k=2 in request 1; .*Engine.select"):
        engine.select_many([Request(campaign="spring"), Request(campaign="spring", k=2)])
