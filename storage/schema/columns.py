"""The column types and the naming convention that all tables share."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Dialect, Double, Integer, LargeBinary, MetaData, Text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator, TypeEngine

from storage.errors import InvalidValueError, NaiveTimeError

# SQLite numbers rows by itself only in a column whose type is spelt INTEGER.
BigInt = BigInteger().with_variant(Integer(), "sqlite")

# PostgreSQL would else compare ids by the server's language; SQLite compares bytes already.
IdText = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

# An even number of backslashes before it, or the "u0000" is text that somebody wrote.
ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")

ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any, *, what: str = "the value") -> str:
    """Write JSON so that equal values give equal text: sorted keys, no spaces, finite numbers.

    Args:
        value: Mappings, sequences, strings, numbers, booleans and None.
        what: How to name the value in an error.

    Returns:
        The text, Unicode as it is.

    Raises:
        InvalidValueError: A number is not finite, a string holds a NUL, or a type has no JSON form.

    Example:
        >>> canonical_json({"b": 1, "a": [0.5, True]})
        '{"a":[0.5,true],"b":1}'
    """
    try:
        text = ENCODER.encode(value)
        if not text.isascii():
            text.encode()  # half of a surrogate pair is refused
    except (TypeError, ValueError) as error:
        raise InvalidValueError(
            f"{what} must consist of strings, booleans, finite numbers, lists and mappings; "
            f"got {value!r} ({error})"
        ) from error
    if "\\u0000" in text and ESCAPED_NUL.search(text):
        raise InvalidValueError(f"{what} holds a NUL, which a database cannot store; remove it: {value!r}")
    return text


def context_hash(context: str) -> str:
    """Return what stands in a key for a context's canonical text, which may be longer than a key can be."""
    return hashlib.blake2b(context.encode(), digest_size=16).hexdigest()


class UtcDateTime(TypeDecorator[datetime]):
    """Aware times, in UTC: timestamptz on PostgreSQL, ISO text with microseconds (sortable) on SQLite."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the database's own type."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Refuse a naive time, and turn any other to UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise NaiveTimeError(f"expected a time with a time zone, got {value!r}; use datetime.now(UTC)")
        utc = value if value.tzinfo is UTC else value.astimezone(UTC)
        if dialect.name == "postgresql":
            return utc
        return utc.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:
        """Read aware times in UTC; not by `process_result_value`, which costs one more call a value."""
        return _read_time


def _read_time(value: Any) -> datetime | None:
    if value is None:
        return None
    time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return time if time.tzinfo is UTC else time.astimezone(UTC)


class CanonicalJson(TypeDecorator[Any]):
    """JSON as text, the same bytes for the same value, so that it can be compared and grouped.

    Columns hold mappings and lists; a string that is bound is such a text already.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any | None, dialect: Dialect) -> str | None:
        """Write canonical JSON."""
        return value if value is None or isinstance(value, str) else canonical_json(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any:
        """Read it back."""
        return None if value is None else json.loads(value)


class Texts(TypeDecorator[Sequence[str]]):
    """Many texts as one parameter: an array on PostgreSQL, a JSON array on SQLite; see `is_among`."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the database's own type."""
        return dialect.type_descriptor(postgresql.ARRAY(Text()) if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: Sequence[str] | None, dialect: Dialect) -> Any:
        """Write JSON for SQLite."""
        return value if value is None or dialect.name == "postgresql" else json.dumps(value)


class Base(DeclarativeBase):
    """The root of all tables: names for every constraint, and a column type for every Python type."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  SQLAlchemy reads it once; its own documentation writes it so
        bool: Boolean(),
        bytes: LargeBinary(),
        datetime: UtcDateTime(),
        dict[str, Any]: CanonicalJson(),
        float: Double(),
        int: BigInt,
        list[Any]: CanonicalJson(),
        str: Text(),
    }
