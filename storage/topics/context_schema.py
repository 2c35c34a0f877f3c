"""The statements behind the context schema: fields, slots, moments and counts of a model."""

import math
from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, insert, select, update

from storage.database.dialect import insert_into
from storage.errors import ContextKindError, InvalidValueError, UnknownContextFieldError
from storage.records import ContextCountRecord, ContextKind, ContextRecord, ContextSlotRecord
from storage.schema.tables import ContextCount, ContextField, ContextSlot

SLOT_COLUMNS = (
    ContextSlot.slot,
    ContextSlot.field,
    ContextSlot.level,
    ContextSlot.mean,
    ContextSlot.sd,
    ContextSlot.version,
    ContextSlot.moments_version,
)


def read(connection: Connection, model_id: int) -> ContextRecord:
    """Return the whole schema of a model."""
    fields = connection.execute(
        select(ContextField.field, ContextField.kind)
        .where(ContextField.model_id == model_id)
        .order_by(ContextField.field)
    )
    rows = connection.execute(
        select(*SLOT_COLUMNS).where(ContextSlot.model_id == model_id).order_by(ContextSlot.slot)
    )
    kinds: dict[str, ContextKind] = {row.field: row.kind for row in fields}
    slots = tuple(ContextSlotRecord(**row) for row in rows.mappings())
    version = max((max(slot.version, slot.moments_version or 0) for slot in slots), default=0)
    return ContextRecord(fields=kinds, slots=slots, version=version)


def add_fields(
    connection: Connection, model_id: int, fields: Mapping[str, ContextKind], max_slots: int
) -> ContextRecord:
    """Add the fields that are new, each with its first slot while one is free."""
    known = read(connection, model_id)
    for field, kind in fields.items():
        _check_kind(known, field, kind)
    new = [field for field in fields if field not in known.fields]
    if not new:
        return known
    connection.execute(
        insert(ContextField),
        [{"model_id": model_id, "field": field, "kind": fields[field]} for field in new],
    )
    known = read(connection, model_id)
    for field in new[: max(0, max_slots - len(known.slots))]:
        known = _add_slot(connection, known, model_id, field, None)
    return known


def give_slot(
    connection: Connection, model_id: int, field: str, level: str, *, max_slots: int, max_levels: int
) -> ContextRecord:
    """Give a level its slot, unless it has one or none is free."""
    known = read(connection, model_id)
    _require_field(known, field, "string")
    levels = {slot.level for slot in known.slots if slot.field == field}
    # Without its "other" slot a field is not modelled at all; that slot is not one of the levels.
    if None not in levels or level in levels or len(levels) > max_levels or len(known.slots) >= max_slots:
        return known
    return _add_slot(connection, known, model_id, field, level)


def set_moments(connection: Connection, model_id: int, field: str, mean: float, sd: float) -> ContextRecord:
    """Set a number's moments, unless they are set."""
    if not (math.isfinite(mean) and math.isfinite(sd) and sd > 0):
        raise InvalidValueError(
            f"moments of {field!r}: expected finite numbers and sd above 0, got mean={mean!r}, sd={sd!r}"
        )
    known = read(connection, model_id)
    _require_field(known, field, "number")
    connection.execute(
        update(ContextSlot)
        .where(
            ContextSlot.model_id == model_id,
            ContextSlot.field == field,
            ContextSlot.moments_version.is_(None),
        )
        .values(mean=float(mean), sd=float(sd), moments_version=known.version + 1)
    )
    return read(connection, model_id)


def counts(connection: Connection, model_id: int) -> list[ContextCountRecord]:
    """Return the counts of all levels."""
    rows = connection.execute(
        select(
            ContextCount.field,
            ContextCount.level,
            ContextCount.decisions,
            ContextCount.total,
            ContextCount.total_squares,
        )
        .where(ContextCount.model_id == model_id)
        .order_by(ContextCount.field, ContextCount.level)
    )
    return [ContextCountRecord(**row) for row in rows.mappings()]


def add_counts(connection: Connection, model_id: int, deltas: Iterable[ContextCountRecord]) -> None:
    """Add to the counts of levels, in the learner's transaction."""
    rows = [
        {
            "model_id": model_id,
            "field": delta.field,
            "level": delta.level,
            "decisions": delta.decisions,
            "total": delta.total,
            "total_squares": delta.total_squares,
        }
        for delta in deltas
    ]
    if not rows:
        return
    statement = insert_into(connection, ContextCount)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["model_id", "field", "level"],
            set_={
                "decisions": ContextCount.decisions + statement.excluded.decisions,
                "total": ContextCount.total + statement.excluded.total,
                "total_squares": ContextCount.total_squares + statement.excluded.total_squares,
            },
        ),
        rows,
    )


def _add_slot(
    connection: Connection, known: ContextRecord, model_id: int, field: str, level: str | None
) -> ContextRecord:
    """Give out the next slot, which makes the next version."""
    connection.execute(
        insert(ContextSlot).values(
            model_id=model_id, slot=len(known.slots), field=field, level=level, version=known.version + 1
        )
    )
    return read(connection, model_id)


def _require_field(known: ContextRecord, field: str, kind: ContextKind) -> None:
    if field not in known.fields:
        names = ", ".join(sorted(known.fields)) or "none"
        raise UnknownContextFieldError(f"the model has not seen the context field {field!r}; known: {names}")
    _check_kind(known, field, kind)


def _check_kind(known: ContextRecord, field: str, kind: ContextKind) -> None:
    if known.fields.get(field, kind) != kind:
        raise ContextKindError(
            f"context field {field!r} is known with {known.fields[field]} values, got a {kind}; "
            "send the known kind, or use another name"
        )
