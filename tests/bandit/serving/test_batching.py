"""Requests to decisions: alone or together, from a table or not, the same; nothing is compiled once warm."""

from collections.abc import Iterator
from datetime import timedelta

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from bandit import Engine, Request
from bandit.jax_runtime import double_precision
from bandit.padding import BATCHES
from bandit.policy.kernels import select_batch
from bandit.policy.quasi_random import N_POINTS
from bandit.serving.batching import choose_all, warm_up
from bandit.serving.candidates import prepare
from storage import NewDecision
from tests.bandit.engines import START, Engines, add_campaign, play
from tests.bandit.inspect import model_of, n_programs, replica_of, selector_of

DEVICES = ("mobile", "desktop", "tablet")


@pytest.fixture
def engine(engines: Engines) -> Engine:
    """An engine that has learnt, with campaigns of 3, 3 and 5 creatives; one with controls."""
    engine = engines.open()
    add_campaign(engine)
    add_campaign(engine, name="summer", horizon=None)
    add_campaign(engine, *(f"ad-{i}" for i in range(5)), name="autumn")
    engines.execute("UPDATE campaigns SET control_share = 0.1 WHERE name = 'summer'")
    selector_of(engine).reload()
    play(engine, 60, learn_every=20)
    return engine


def chosen(engine: Engine, requests: list[Request], memo: dict | None = None) -> list[NewDecision]:
    """Return decisions that are not stored, with a view that remembers nothing unless told."""
    view = replica_of(engine).view._replace(memo={} if memo is None else memo)
    with double_precision():
        prepared = [prepare(request, request.decision_id or "", view) for request in requests]
        return choose_all(prepared, view, model_of(engine), START + timedelta(hours=1))


def assert_alike(ours: list[NewDecision], theirs: list[NewDecision], tolerance: float = 1e-12) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert (one.decision_id, one.creative_id, one.is_control) == (
            other.decision_id,
            other.creative_id,
            other.is_control,
        )
        assert (one.point_set, one.candidate_creative_ids) == (other.point_set, other.candidate_creative_ids)
        assert_allclose(one.propensities, other.propensities, rtol=0, atol=tolerance)
        assert one.horizon == pytest.approx(other.horizon)


def requests_without_context(campaign: str, n: int) -> list[Request]:
    return [Request(campaign=campaign, decision_id=f"{campaign}-x{i}") for i in range(n)]


@pytest.mark.parametrize("campaign", ["spring", "summer", "autumn"])
def test_a_table_draws_what_would_have_been_drawn_without(engine: Engine, campaign: str) -> None:
    requests = requests_without_context(campaign, 256)
    memo: dict = {}
    tabled = chosen(engine, requests, memo)
    assert len(memo["tables"]) == 1
    # In parts of 31 a group never earns a table.
    apart = [d for i in range(0, 256, 31) for d in chosen(engine, requests[i : i + 31])]
    assert_alike(tabled, apart)


def test_a_request_alone_is_the_request_among_others(engine: Engine) -> None:
    rng = np.random.default_rng(0)
    requests = [
        Request(
            campaign=("spring", "summer", "autumn")[rng.integers(3)],
            context={}
            if i % 5 == 0
            else {"device": DEVICES[rng.integers(3)], "age": float(rng.integers(60))},
            exclude=frozenset(["calm"] if i % 7 == 0 else []),
            decision_id=f"r{i}",
        )
        for i in range(100)
    ]
    requests = [r for r in requests if not (r.campaign == "autumn" and r.exclude)]
    together = chosen(engine, requests)
    memo: dict = {}
    alone = [chosen(engine, [request], memo)[0] for request in requests]
    apart = [
        np.abs(np.subtract(a.propensities, b.propensities)).max()
        for a, b in zip(together, alone, strict=True)
    ]
    # Two candidates that tie to float32 rounding at a point may tie in one program and not in another.
    assert np.mean(np.array(apart) > 1e-9) <= 0.02
    assert max(apart) <= 1.001 / N_POINTS
    assert [d.creative_id for d in together] == [d.creative_id for d in alone]


@pytest.mark.slow
def test_many_candidates_are_chosen_from_in_small_batches(engine: Engine) -> None:
    add_campaign(engine, *(f"ad-{i}" for i in range(600)), name="long-tail")
    requests = [
        Request(campaign="long-tail", context={"device": DEVICES[i % 3]}, decision_id=f"r{i}")
        for i in range(17)
    ]
    programs = n_programs(select_batch)
    together = chosen(engine, requests)
    assert n_programs(select_batch) == programs + 2, "of 8 rows, and the last ones alone"
    assert_alike(together, [chosen(engine, [request])[0] for request in requests], tolerance=1.001 / N_POINTS)


def test_floors_and_caps_of_creatives_reach_the_draw(engine: Engine, engines: Engines) -> None:
    engines.execute(
        "UPDATE creatives SET floor = 0.4 WHERE external_id = 'ad-0'",
        "UPDATE creatives SET cap = 0.1 WHERE external_id <> 'ad-0'",
    )
    selector_of(engine).reload()
    rows = chosen(engine, requests_without_context("autumn", 100))
    for row in rows:
        assert row.propensities[0] >= 0.4 - 1e-12
        assert max(row.propensities[1:]) <= 0.15 + 1e-12, "caps that sum to less than 1 with the rest"
        assert sum(row.propensities) == pytest.approx(1, abs=1e-12)
        assert row.propensity == row.propensities[row.candidate_creative_ids.index(row.creative_id)]


def test_controls_are_marked(engine: Engine) -> None:
    rows = chosen(engine, requests_without_context("summer", 1_000))
    n = sum(row.is_control for row in rows)
    assert abs(n - 100) < 5 * np.sqrt(90)
    assert not any(row.is_control for row in chosen(engine, requests_without_context("spring", 200)))


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """Return the programs that are compiled, or loaded from the cache, from now on."""
    names: list[str] = []

    def listen(event: str, _: float, **tags: str) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(tags.get("fun_name", event))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.slow
def test_nothing_is_compiled_after_warm_up(engine: Engine, compiled: list[str]) -> None:
    # Two sizes of campaigns, the smaller one twice: 4 batches of one group each, and 3 of several.
    assert len(list(warm_up(lambda: replica_of(engine).view, model_of(engine), START))) == 4 + 4 + 3
    with double_precision():
        jax.jit(lambda x: x + 17)(np.ones(3))
    assert compiled, "a new program is heard of"
    compiled.clear()
    for n in BATCHES:
        for campaign in ("spring", "autumn"):
            for context in ({}, {"device": "mobile"}):
                requests = [
                    Request(campaign=campaign, context=context, decision_id=f"{campaign}{n}{i}{len(context)}")
                    for i in range(n)
                ]
                engine.select_many(requests)
        campaigns = ("spring", "summer")[: min(n, 2)]
        engine.select_many([Request(campaign=campaigns[i % len(campaigns)]) for i in range(n)])
    assert compiled == []
