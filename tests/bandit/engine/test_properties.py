"""Any order of calls, crashes included, against a model of what must hold."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from bandit import Decision, Engine
from tests.bandit.engines import Engines, add_campaign
from tests.bandit.inspect import background_of, database_of, store_of

CONVERSION_WINDOW = timedelta(days=7)
WINDOWS = {"at-once": timedelta(0), "waiting": timedelta(minutes=30)}
numbers = st.integers(0, 7)  # of decisions: few, so that calls meet
example_numbers = count()


@dataclass
class Expected:
    """What must be true of one decision."""

    decision: Decision
    window: timedelta
    activated_at: datetime | None
    reports: set[object] = field(default_factory=set)
    said: set[bool] = field(default_factory=set)  # what reports in time said of the click
    conversions: int = 0
    click: bool | None = None  # once it is final

    def report(self, click: bool, now: datetime) -> str:
        if click in self.reports:
            return "repeated"
        self.reports.add(click)
        is_waiting = self.window > timedelta(0) and self.activated_at is not None
        if self.click is not None or (is_waiting and now > self.activated_at + self.window):
            return "late"
        self.said.add(click)
        self.settle_reported()
        return "recorded"

    def convert(self, key: str, now: datetime) -> str:
        if key in self.reports:
            return "repeated"
        self.reports.add(key)
        if self.activated_at is not None and now > self.activated_at + CONVERSION_WINDOW:
            return "late"
        self.conversions += 1
        return "recorded"

    def activate(self, now: datetime) -> None:
        self.activated_at = self.activated_at or now
        self.settle_reported()

    def settle_reported(self) -> None:
        """Without a window the first report is final."""
        if not self.window and self.activated_at is not None and self.said and self.click is None:
            self.click = any(self.said)

    def settle_due(self, now: datetime) -> None:
        is_waiting = self.window > timedelta(0) and self.activated_at is not None
        if is_waiting and self.click is None and self.activated_at + self.window <= now:
            self.click = any(self.said)


class Calls(RuleBasedStateMachine):
    """An engine, called in any order; each example has campaigns of its own."""

    engines: Engines

    def __init__(self) -> None:
        super().__init__()
        self.example = next(example_numbers)
        self.expected: dict[str, Expected] = {}
        self.learnt: dict[str, bool] = {}
        self.engine: Engine = self.engines.open()
        for name, window in WINDOWS.items():
            add_campaign(self.engine, name=self.named(name), attribution_window=window)

    def named(self, name: object) -> str:
        return f"{self.example}-{name}"

    @rule(number=numbers, name=st.sampled_from(sorted(WINDOWS)), is_deferred=st.booleans())
    def select(self, number: int, name: str, is_deferred: bool) -> None:
        decision_id = self.named(f"{name}-{number}")
        decision = self.engine.select(
            self.named(name), {"n": number}, decision_id=decision_id, defer_activation=is_deferred
        )
        activated_at = None if is_deferred else self.engines.clock()
        first = self.expected.setdefault(decision_id, Expected(decision, WINDOWS[name], activated_at))
        assert decision == first.decision

    @rule(number=numbers, click=st.booleans())
    def click(self, number: int, click: bool) -> None:
        if case := self.case(number):
            told = self.engine.update(case.decision.id, click=click)
            assert told.status == case.report(click, self.engines.clock())

    @rule(number=numbers, key=st.sampled_from(["order-1", "order-2"]))
    def convert(self, number: int, key: str) -> None:
        if case := self.case(number):
            told = self.engine.update(case.decision.id, conversion=True, key=key)
            assert told.status == case.convert(key, self.engines.clock())

    @rule(number=numbers)
    def activate(self, number: int) -> None:
        if case := self.case(number):
            self.engine.activate(case.decision.id)
            case.activate(self.engines.clock())

    @rule(span=st.sampled_from([timedelta(minutes=10), timedelta(minutes=30), CONVERSION_WINDOW]))
    def wait(self, span: timedelta) -> None:
        self.engines.clock.pass_(span)

    @rule()
    def settle(self) -> None:
        self.engine.settle()
        for name, case in self.expected.items():
            case.settle_due(self.engines.clock())
            if case.click is not None:
                self.learnt[name] = case.click
        arms = [arm for name in WINDOWS for arm in self.engine.arms(self.named(name))]
        assert sum(arm.impressions for arm in arms) == len(self.learnt)
        assert sum(arm.clicks for arm in arms) == sum(self.learnt.values())
        assert sum(arm.conversions for arm in arms) == sum(
            case.conversions for case in self.expected.values()
        )

    @rule()
    def crash(self) -> None:
        """Lose all that is in memory: nothing is learnt, saved or released on the way."""
        self.leave()
        self.engine = self.engines.open()

    @invariant()
    def stored_is_what_was_expected(self) -> None:
        query = (
            "SELECT decision_id, click, learnt_batch IS NOT NULL FROM decisions "
            f"WHERE decision_id > '{self.example}-' AND decision_id < '{self.example}.'"
        )
        rows = database_of(store_of(self.engine)).read(lambda c: c.exec_driver_sql(query).all())
        expected = {name: case.click for name, case in self.expected.items()}
        assert {name: click for name, click, _ in rows} == expected
        assert {name: click for name, click, is_learnt in rows if is_learnt} == self.learnt

    def teardown(self) -> None:
        self.settle()
        self.stored_is_what_was_expected()
        assert store_of(self.engine).check() == []
        self.leave()

    def case(self, number: int) -> Expected | None:
        """Return one of the decisions that there are."""
        made = list(self.expected.values())
        return made[number % len(made)] if made else None

    def leave(self) -> None:
        background_of(self.engine).stop()
        store_of(self.engine).close()
        self.engines.execute("DELETE FROM leases")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fixture", "examples"),
    [("engines", 12), pytest.param("postgres_engines", 4, marks=pytest.mark.postgres)],
)
def test_any_order_of_calls(request: pytest.FixtureRequest, fixture: str, examples: int) -> None:
    machine = type("Calls", (Calls,), {"engines": request.getfixturevalue(fixture)})
    limits = settings(
        max_examples=examples,
        stateful_step_count=20,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=limits)
