"""From a request's mapping to the context vector, at every version of the schema."""

from collections.abc import Iterator

import numpy as np
import pytest

from bandit.errors import ContextError
from bandit.features.context import (
    check_context,
    context_vector,
    context_vectors,
    count_contexts,
    distinct_contexts,
    give_slots,
)
from bandit.features.design import N_CONTEXT
from storage import ContextCountRecord, ContextRecord, ContextSlotRecord, StepRecord, Store
from storage.records import ContextKind
from tests.bandit.engines import START
from tests.storage.conftest import make_world


def slot(
    index: int,
    field: str,
    level: str | None = None,
    *,
    version: int,
    moments: tuple[float, float, int] | None = None,
) -> ContextSlotRecord:
    mean, sd, moments_version = moments or (None, None, None)
    return ContextSlotRecord(
        slot=index,
        field=field,
        level=level,
        mean=mean,
        sd=sd,
        version=version,
        moments_version=moments_version,
    )


SCHEMA = ContextRecord(
    fields={"device": "string", "age": "number", "is_new": "boolean", "crowded": "string"},
    slots=(
        slot(0, "device", version=1),
        slot(1, "age", version=2, moments=(30.0, 10.0, 5)),
        slot(2, "is_new", version=3),
        slot(3, "device", "mobile", version=4),
        slot(4, "device", "tablet", version=6),
    ),
    version=6,
)


def at(version: int | None = None, /, **context: str | float | bool) -> dict[int, float]:
    """Return the places of the vector that are not 0."""
    vector = context_vector(context, SCHEMA, version)
    assert vector.shape == (N_CONTEXT,)
    return {int(i): float(vector[i]) for i in np.flatnonzero(vector)}


def test_kinds_of_fields() -> None:
    assert at() == {}
    assert at(device="mobile") == {3: 1.0}
    assert at(device="watch") == {0: 1.0}
    assert at(is_new=True) == {2: 0.5}
    assert at(is_new=False) == {2: -0.5}
    assert at(age=45) == {1: 1.5}
    assert at(age=30) == {}
    assert at(age=1e9) == {1: 4.0}
    assert at(age=-1e9) == {1: -4.0}
    assert at(crowded="a field without a slot", unknown=3) == {}


def test_many_contexts_give_what_each_gives_alone() -> None:
    """Equal contexts are looked up once, but only those of one version, and "1" is not 1."""
    contexts: list[dict[str, str | float | bool]] = [
        {"device": "mobile", "age": 40.0, "is_new": True},
        {"device": "mobile", "age": 40.0, "is_new": False},
        {"device": "mobile"},
        {"device": "1"},
        {"age": 1},
        {"is_new": True},
        {},
    ]
    asked = [(context, version) for context in contexts for version in (1, 4, SCHEMA.version)] * 2
    vectors = context_vectors([context for context, _ in asked], SCHEMA, [version for _, version in asked])
    for vector, (context, version) in zip(vectors, asked, strict=True):
        np.testing.assert_array_equal(vector, context_vector(context, SCHEMA, version))


def test_contexts_that_equal_one_before_are_left_out() -> None:
    contexts: list[object] = [
        {"a": 1},
        {"a": True},
        {"a": 1.0},
        {"a": "1"},
        {},
        {"a": [1]},
        7,
        {"b": 1, "a": 1},
    ]
    assert list(distinct_contexts([*contexts, *contexts[:5]])) == contexts


def test_what_a_context_means_at_a_version_never_changes() -> None:
    context = {"device": "tablet", "age": 45.0, "is_new": True}
    meanings = [at(version, **context) for version in range(7)]
    assert meanings[0] == {}
    assert meanings[1] == meanings[2] == {0: 1.0}
    assert meanings[3] == meanings[4] == {0: 1.0, 2: 0.5}
    assert meanings[5] == {0: 1.0, 1: 1.5, 2: 0.5}
    assert meanings[6] == at(None, **context) == {4: 1.0, 1: 1.5, 2: 0.5}


def test_new_fields_are_named_with_their_kinds() -> None:
    context = {"device": "x", "z": 1, "y": True, "x": "", "w": 0.5}
    assert check_context(context, SCHEMA) == {"z": "number", "y": "boolean", "x": "string", "w": "number"}


def test_counts() -> None:
    contexts = [{"device": "mobile", "age": 1.0, "is_new": True, "later": 2}, {"device": "mobile", "n": 3}]
    schema = ContextRecord(
        fields={**SCHEMA.fields, "n": "number"}, slots=(*SCHEMA.slots, slot(5, "n", version=7)), version=7
    )
    assert count_contexts([*contexts, {"device": "", "n": 5.0}], schema) == [
        ContextCountRecord(field="device", level="", decisions=1),
        # "mobile" has a slot of its own already, so nothing depends on its count.
        # "age" has its moments, which stay; "later" is not known.
        ContextCountRecord(field="n", level="", decisions=2, total=8.0, total_squares=34.0),
    ]


class Given:
    """A model with three fields; counts of its levels can be added as a learner adds them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        world = make_world(store, attribution_window_s=0.0)
        self.model_id = world.model_id
        kinds: dict[str, ContextKind] = {"device": "string", "age": "number", "same": "number"}
        store.models.add_context_fields(self.model_id, kinds)
        self.lease = store.leases.acquire(self.model_id, "test") or 0
        self.step = 0

    def __call__(self, *counts: ContextCountRecord) -> ContextRecord:
        self.step += 1
        self.store.learning.write_step(
            StepRecord(
                model_id=self.model_id,
                lease=self.lease,
                step=self.step,
                kind="batch",
                parameters={},
                logged_at=START,
                context_counts=counts,
            )
        )
        return give_slots(self.store, self.model_id, self.store.models.context(self.model_id))


@pytest.fixture
def given(migrated_sqlite_url: str) -> Iterator[Given]:
    with Store.open(migrated_sqlite_url) as store:
        yield Given(store)


def levels(*counts: tuple[str, int]) -> list[ContextCountRecord]:
    return [ContextCountRecord(field="device", level=level, decisions=n) for level, n in counts]


def test_a_level_gets_a_slot_after_50_decisions(given: Given) -> None:
    schema = given(*levels(("mobile", 49), ("tablet", 50)))
    assert [s.level for s in schema.slots if s.level] == ["tablet"]
    schema = given(*levels(("mobile", 1), ("tablet", 1)))
    assert [s.level for s in schema.slots if s.level] == ["tablet", "mobile"]


def test_a_field_has_at_most_eight_levels_the_commonest_first(given: Given) -> None:
    schema = given(*levels(*((f"l{i}", 50 + i) for i in range(12))))
    assert [s.level for s in schema.slots if s.level] == [f"l{i}" for i in range(11, 3, -1)]


def test_a_number_is_standardised_after_100_values(given: Given) -> None:
    def numbers(field: str, n: int, total: float, squares: float) -> ContextCountRecord:
        return ContextCountRecord(field=field, level="", decisions=n, total=total, total_squares=squares)

    schema = given(numbers("age", 99, 990.0, 13_860.0), numbers("same", 100, 700.0, 4_900.0))
    moments = {s.field: (s.mean, s.sd) for s in schema.slots if s.mean is not None}
    assert moments == {"same": (7.0, 1.0)}  # it never varied; a scale of 1 keeps it at 0 until it does
    schema = given(numbers("age", 1, 10.0, 140.0))
    moments = {s.field: (s.mean, s.sd) for s in schema.slots if s.mean is not None}
    assert moments["age"] == (10.0, pytest.approx(40.0**0.5))
    schema = given(numbers("age", 100, 9_999.0, 1e9))
    assert next(s.mean for s in schema.slots if s.field == "age") == 10.0


def test_levels_are_counted_only_while_they_can_get_a_slot() -> None:
    full = ContextRecord(
        fields={"device": "string"},
        slots=tuple(
            slot(i, "device", level=None if i == 0 else f"level {i}", version=i + 1) for i in range(9)
        ),
        version=9,
    )
    assert count_contexts([{"device": "another"}], full) == []


@pytest.mark.parametrize("text", ["€" * 334, "x" * 1001])
def test_a_level_fits_into_a_key(text: str) -> None:
    with pytest.raises(ContextError, match=r"field 'device' has 1,00\d bytes; at most 1,000"):
        check_context({"device": text}, SCHEMA)


def test_a_name_fits_into_a_key() -> None:
    with pytest.raises(ContextError, match="strings of 1 to 200 bytes, got '€€"):
        check_context({"€" * 67: 1}, SCHEMA)
