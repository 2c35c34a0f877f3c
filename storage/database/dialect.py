"""Parts of statements that SQLite and PostgreSQL say differently, and many rows as columns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Dialect, Double, Select, bindparam
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from storage.schema.columns import Base, Texts, UtcDateTime

T = TypeVar("T")

MAX_PARAMETERS: Final = 10_000  # SQLite takes 32,766 in a statement, PostgreSQL 65,535


def insert_into(connection: Connection, table: type[Base]) -> sqlite.Insert | postgresql.Insert:
    """Start an INSERT that can say ON CONFLICT, in the connection's own dialect."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


@cache
def _insert_or_skip(dialect: str, table: type[Base]) -> sqlite.Insert | postgresql.Insert:
    insert = sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
    return insert.on_conflict_do_nothing()


def insert_or_skip(connection: Connection, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert the rows whose keys are not there, all in one call.

    Returns:
        How many were new, where the rows bring their own primary keys; else it is not known.
    """
    return connection.execute(_insert_or_skip(connection.dialect.name, table), rows).rowcount if rows else 0


def insert_columns(
    connection: Connection, table: type[Base], columns: Mapping[str, Sequence[Any]], *, or_skip: bool = False
) -> int:
    """Insert many rows at once, given as columns; past SQLAlchemy's work on every row, which costs the most.

    Args:
        connection: Inside a write transaction.
        table: Where to.
        columns: The values of each column, all equally many, hashable.
        or_skip: Whether rows whose keys are there already are left out; else they are an error.

    Returns:
        How many were inserted.
    """
    dialect = connection.dialect
    given = [_bound(dialect, table, name, values) for name, values in columns.items()]
    statement = _insert_text(dialect, table, tuple(columns), or_skip=or_skip)
    rows = list(zip(*given, strict=True)) if dialect.name == "sqlite" else tuple(given)
    return connection.exec_driver_sql(statement, rows).rowcount if given[0] else 0


def fetch_raw(
    connection: Connection, statement: Select[*tuple[Any, ...]], parameters: Mapping[str, Any]
) -> Sequence[tuple[Any, ...]]:
    """Return many rows as the driver gives them, for columns that need no turning.

    Python's garbage collector soon forgets tuples of texts and numbers; SQLAlchemy's rows stay in its view.
    """
    cursor = connection.execute(statement, parameters).cursor
    return [] if cursor is None else cursor.fetchall()


def _bound(dialect: Dialect, table: type[Base], name: str, values: Sequence[Any]) -> list[Any]:
    """Return the values of a column as the driver takes them; each distinct one is turned once."""
    process = _bind_processor(dialect, table, name)
    if process is None:
        return list(values)
    bound = {value: process(value) for value in set(values)}
    return [bound[value] for value in values]


@cache
def _bind_processor(dialect: Dialect, table: type[Base], name: str) -> Callable[[Any], Any] | None:
    kind = table.__table__.c[name].type
    # psycopg takes lists of one type only, and a caller may give 1 beside 0.5.
    return _float if isinstance(kind, Double) else kind.dialect_impl(dialect).bind_processor(dialect)


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


@cache
def _insert_text(dialect: Dialect, table: type[Base], names: tuple[str, ...], *, or_skip: bool) -> str:
    """Write the INSERT: of one row that SQLite's driver repeats, of arrays that PostgreSQL takes apart."""
    if dialect.name == "sqlite":
        source = f"VALUES ({', '.join('?' * len(names))})"
    else:
        types = (table.__table__.c[name].type.compile(dialect).split(" COLLATE")[0] for name in names)
        arrays = ", ".join(f"%s::{kind}[]" for kind in types)
        source = f"SELECT * FROM unnest({arrays})"  # noqa: S608  names of types
    skip = " ON CONFLICT DO NOTHING" if or_skip else ""
    return f"INSERT INTO {table.__tablename__} ({', '.join(names)}) {source}{skip}"


class is_among(FunctionElement[bool]):
    """Whether a text is one of those bound to a name: one parameter, so one statement for any number of them.

    An expanding IN would be written anew for every call. It has no type of its own: SQLAlchemy compares a
    Boolean with 1 on SQLite, which then looks at every row of the table.
    """

    inherit_cache = True

    def __init__(self, column: Any, name: str) -> None:
        super().__init__(column, bindparam(name, type_=Texts()))


@compiles(is_among, "sqlite")
def _sqlite_among(element: is_among, compiler: SQLCompiler, **kw: Any) -> str:
    column, texts = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({texts}))"  # noqa: S608  two compiled clauses


@compiles(is_among, "postgresql")
def _postgres_among(element: is_among, compiler: SQLCompiler, **kw: Any) -> str:
    column, texts = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{column} = ANY ({texts})"


def in_chunks(values: Sequence[T], size: int = MAX_PARAMETERS) -> Iterator[Sequence[T]]:
    """Cut a list so that each part fits into one statement's parameters."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


class database_clock(FunctionElement[Any]):
    """The database's own time, `after_s` seconds from now."""

    type = UtcDateTime()
    inherit_cache = False

    def __init__(self, after_s: float = 0.0) -> None:
        self.after_s = float(after_s)
        super().__init__()


@compiles(database_clock, "sqlite")
def _sqlite_clock(element: database_clock, compiler: SQLCompiler, **kw: Any) -> str:
    # SQLite knows milliseconds; the zeros make it as long as the other times, so that text sorts.
    return f"strftime('%Y-%m-%dT%H:%M:%f', 'now', '{element.after_s:+.3f} seconds') || '000Z'"


@compiles(database_clock, "postgresql")
def _postgres_clock(element: database_clock, compiler: SQLCompiler, **kw: Any) -> str:
    return f"clock_timestamp() + interval '{element.after_s:.3f} seconds'"
