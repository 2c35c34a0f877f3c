"""The context schema: from a request's mapping to the 16 slots of the context vector.

A string field has an "other" slot and slots of its own for levels that came often; a boolean is ±½; a number
is 0
until its moments are known, then standardised. A missing field is 0. What a context means at one version of
the
schema never changes, so a decision can be learnt with the very features it was made with.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from bandit.errors import ContextError
from bandit.features.design import N_CONTEXT
from storage import ContextCountRecord, ContextRecord, Store
from storage.records import ContextKind

LEVEL_DECISIONS = 50  # decisions after which a level gets a slot of its own
MAX_LEVELS = 8  # of one string field
NUMBER_VALUES = 100  # values after which a number is standardised
LARGEST_Z = 4.0  # standard deviations; one absurd value must not outweigh all others
MOST_FIELDS = 64
LONGEST_NAME = 200  # bytes in UTF-8; name and level together are a key, and PostgreSQL limits keys to 2,700
LONGEST_VALUE = 1_000  # bytes

KINDS: Mapping[type, ContextKind] = {bool: "boolean", int: "number", float: "number", str: "string"}


def check_context(context: Mapping[str, Any], schema: ContextRecord) -> dict[str, ContextKind]:
    """Check a request's context against the schema.

    Args:
        context: The mapping as it came.
        schema: What is known of its fields.

    Returns:
        The kinds of the fields that are new, by name.

    Raises:
        ContextError: It is no mapping, has too many fields, or a value cannot be used; names the field, what
        was
            expected and what came.
    """
    if not isinstance(context, Mapping):
        raise ContextError(f"expected the context to be a mapping, got {type(context).__name__}")
    if len(context) > MOST_FIELDS:
        raise ContextError(f"the context has {len(context)} fields; at most {MOST_FIELDS} are allowed")
    new: dict[str, ContextKind] = {}
    for name, value in context.items():
        if not isinstance(name, str) or not name or _n_bytes(name) > LONGEST_NAME:
            raise ContextError(
                f"expected names of context fields to be strings of 1 to {LONGEST_NAME} bytes, "
                f"got {name!r:.80}"
            )
        kind = KINDS.get(type(value))
        if kind is None:
            raise ContextError(
                f"context field {name!r}: expected a string, a number or a boolean, "
                f"got {type(value).__name__} {value!r:.80}"
            )
        if kind == "number" and not abs(value) < 2**63:  # NaN fails too
            raise ContextError(f"context field {name!r}: expected a finite number, got {value!r:.80}")
        if kind == "string" and _n_bytes(value) > LONGEST_VALUE:
            raise ContextError(
                f"context field {name!r} has {_n_bytes(value):,} bytes; at most {LONGEST_VALUE:,} are allowed"
            )
        known = schema.fields.get(name)
        if known is None:
            new[name] = kind
        elif known != kind:
            raise ContextError(
                f"context field {name!r}: expected a {known}, as in all requests before, "
                f"got the {kind} {value!r:.80}"
            )
    return new


def context_vector(
    context: Mapping[str, Any], schema: ContextRecord, version: int | None = None
) -> Float[np.ndarray, "16"]:
    """Return the context vector of a request.

    Args:
        context: A checked context.
        schema: The schema.
        version: The schema's version to use; None means the newest.

    Returns:
        float64 [16]; a field without a slot counts for nothing.
    """
    version = schema.version if version is None else version
    vector = np.zeros(N_CONTEXT)
    others: dict[str, int] = {}
    hits: set[str] = set()
    for slot in schema.slots:
        value = context.get(slot.field)
        if value is None or slot.version > version:
            continue
        kind = schema.fields[slot.field]
        if kind == "boolean":
            vector[slot.slot] = 0.5 if value else -0.5
        elif kind == "number":
            if slot.mean is not None and slot.sd and (slot.moments_version or 0) <= version:
                vector[slot.slot] = np.clip((value - slot.mean) / slot.sd, -LARGEST_Z, LARGEST_Z)
        elif slot.level is None:
            others[slot.field] = slot.slot
        elif slot.level == value:
            vector[slot.slot] = 1.0
            hits.add(slot.field)
    for name, index in others.items():
        vector[index] = 0.0 if name in hits else 1.0
    return vector


def distinct_contexts(contexts: Iterable[Any]) -> Iterator[Any]:
    """Leave out contexts that equal one before, types included; of what cannot be compared all stay."""
    seen = set()
    for context in contexts:
        try:
            key = (*context.items(), *map(type, context.values()))
            if key in seen:
                continue
            seen.add(key)
        except (AttributeError, TypeError):
            pass  # no mapping, or values that are no context's: `check_context` says so
        yield context


def context_vectors(
    contexts: Sequence[Mapping[str, Any]], schema: ContextRecord, versions: Sequence[int]
) -> Float[np.ndarray, "contexts 16"]:
    """Return the context vectors of many requests; equal contexts are looked up once."""
    known: dict[tuple[object, ...], Float[np.ndarray, "16"]] = {}
    vectors = np.empty((len(contexts), N_CONTEXT))
    for i, (context, version) in enumerate(zip(contexts, versions, strict=True)):
        # True and 1 are equal, but the schema says which of the two a field means.
        key = (version, *context.items())
        vector = known.get(key)
        if vector is None:
            vector = known[key] = context_vector(context, schema, version)
        vectors[i] = vector
    return vectors


def _added(one: ContextCountRecord, other: ContextCountRecord) -> ContextCountRecord:
    return replace(
        one,
        decisions=one.decisions + other.decisions,
        total=one.total + other.total,
        total_squares=one.total_squares + other.total_squares,
    )


def _n_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def count_contexts(
    contexts: Sequence[Mapping[str, Any]], schema: ContextRecord, decisions: Sequence[int] | None = None
) -> list[ContextCountRecord]:
    """Count levels and sum numbers of learnt contexts, for fields whose slots may still change.

    Args:
        contexts: The contexts.
        schema: The schema.
        decisions: How many decisions had each context; None is one each.
    """
    is_full = len(schema.slots) >= N_CONTEXT
    own = Counter(slot.field for slot in schema.slots if slot.level is not None)
    taken = {(slot.field, slot.level) for slot in schema.slots}
    open_strings = {
        slot.field
        for slot in schema.slots
        if slot.level is None and not is_full and own[slot.field] < MAX_LEVELS
    }
    levels: Counter[tuple[str, str]] = Counter()
    numbers: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    open_numbers = {slot.field for slot in schema.slots if slot.mean is None}
    for context, n in zip(contexts, decisions or [1] * len(contexts), strict=True):
        for name, value in context.items() if n else ():
            kind = schema.fields.get(name)
            if kind == "string" and name in open_strings and (name, value) not in taken:
                levels[name, value] += n
            elif kind == "number" and name in open_numbers:
                numbers[name].append((n, float(value)))
    counted = [
        ContextCountRecord(field=name, level=level, decisions=n)
        for (name, level), n in sorted(levels.items())
    ]
    return counted + [
        ContextCountRecord(
            field=name,
            level="",
            decisions=sum(n for n, _ in v),
            total=sum(n * x for n, x in v),
            total_squares=sum(n * x * x for n, x in v),
        )
        for name, v in sorted(numbers.items())
    ]


def give_slots(
    store: Store, model_id: int, schema: ContextRecord, more: Iterable[ContextCountRecord] = ()
) -> ContextRecord:
    """Give slots to levels, and moments to numbers, that have been learnt often enough.

    Args:
        store: Where counts and slots are.
        model_id: The model.
        schema: The schema as it is.
        more: Counts beyond the stored ones.

    Returns:
        The schema after it.
    """
    open_fields = {slot.field: slot for slot in schema.slots if slot.level is None}
    counts = {(count.field, count.level): count for count in store.models.context_counts(model_id)}
    for count in more:
        there = counts.get((count.field, count.level))
        counts[count.field, count.level] = count if there is None else _added(there, count)
    for count in sorted(counts.values(), key=lambda count: (-count.decisions, count.level)):
        slot = open_fields.get(count.field)
        if slot is None:
            continue
        if schema.fields[count.field] == "string":
            taken = any(s.field == count.field and s.level == count.level for s in schema.slots)
            if count.decisions >= LEVEL_DECISIONS and not taken and len(schema.slots) < N_CONTEXT:
                schema = store.models.give_context_slot(
                    model_id, count.field, count.level, max_slots=N_CONTEXT, max_levels=MAX_LEVELS
                )
        elif slot.mean is None and count.decisions >= NUMBER_VALUES:
            mean = count.total / count.decisions
            variance = max(count.total_squares / count.decisions - mean**2, 0.0)
            # A field that never varies says nothing; scale 1 keeps it at 0 until it does.
            sd = math.sqrt(variance) or 1.0
            schema = store.models.set_context_moments(model_id, count.field, mean=mean, sd=sd)
    return schema
