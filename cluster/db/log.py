"""The ledger's rows as SQL: what one transaction adds and changes, as a few statements with many rows each.

Made from the tables' columns, without the ORM, which costs more a row than SQLite does. Both database programs
understand the SQL once the `?` are written their way; moments and JSON are text, which both take.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pydantic_core import to_json
from sqlalchemy import JSON, Table

from cluster.db.tables import AllocationRow, AuditRow, Base, EventRow, KeyRow, NodeRow, SessionRow, UsageRow, Utc

Rows = list[Sequence[Any]]
Statement = tuple[str, Rows]
"""SQL with a `?` for each value, and the rows of values."""


def as_json(value: Any) -> str:
    """Of plain values, as the JSON columns have it."""
    return to_json(value).decode() if value else "[]" if value == [] else "{}"


@lru_cache(maxsize=4096)
def as_utc(value: datetime | None) -> str | None:
    """As `tables.Utc` has it in SQLite; PostgreSQL reads it as UTC. A round says the same few again and again."""
    return None if value is None else value.astimezone(UTC).isoformat(" ", "microseconds")[:26]


def _json(value: Any) -> str | None:
    return None if value is None else as_json(value)


def _codecs(table: Table, columns: Sequence[str]) -> list[tuple[int, Callable[[Any], Any]]]:
    """Place in the row and how it is written, of those columns that the databases can't take as they are."""
    found: list[tuple[int, Callable[[Any], Any]]] = []
    for place, name in enumerate(columns):
        kind = table.c[name].type
        if isinstance(kind, Utc):
            found.append((place, as_utc))
        elif isinstance(kind, JSON):
            found.append((place, _json))
    return found


class Verb:
    """One statement on one table, and how a row's values become its parameters."""

    def __init__(self, sql: str, table: Table, columns: Sequence[str]) -> None:
        self.sql = sql
        self._codecs = _codecs(table, columns)

    def of(self, rows: Iterable[Sequence[Any]]) -> Statement:
        """The statement with its parameters."""
        return self.sql, [self._encoded(row) for row in rows]

    def _encoded(self, values: Sequence[Any]) -> list[Any]:
        row = list(values)
        for place, encode in self._codecs:
            row[place] = encode(row[place])
        return row


def _table(kind: type[Base]) -> Table:
    table = kind.__table__
    assert isinstance(table, Table)
    return table


def insert(kind: type[Base], replace: bool = False) -> Verb:
    """Whole rows, their values in the order of the table's columns. `replace`: change those that are there."""
    table = _table(kind)
    names = [column.name for column in table.columns]
    holes = ", ".join("?" * len(names))
    there = ""
    if replace:
        key = [column.name for column in table.primary_key.columns]
        changes = ", ".join(f'"{name}" = excluded."{name}"' for name in names if name not in key)
        there = f" ON CONFLICT ({_quoted(key)}) DO UPDATE SET {changes}"
    return Verb(f"INSERT INTO {table.name} ({_quoted(names)}) VALUES ({holes}){there}", table, names)


def update(kind: type[Base], columns: Sequence[str]) -> Verb:
    """Rows' values of `columns`, followed by those of the primary key."""
    table = _table(kind)
    key = [column.name for column in table.primary_key.columns]
    changes = ", ".join(f'"{name}" = ?' for name in columns)
    return Verb(f"UPDATE {table.name} SET {changes} WHERE {_is(key)}", table, [*columns, *key])


def delete(kind: type[Base]) -> Verb:
    """Rows' primary keys."""
    table = _table(kind)
    key = [column.name for column in table.primary_key.columns]
    return Verb(f"DELETE FROM {table.name} WHERE {_is(key)}", table, key)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _is(names: Iterable[str]) -> str:
    return " AND ".join(f'"{name}" = ?' for name in names)


CHANGING = (
    "state", "state_since", "result", "priority", "time_limit", "started", "ended", "exit_code", "attempt", "grace",
    "requeue", "reasons", "utilization",
)  # fmt: skip
"""Columns of a session that change after it was submitted."""
BEGUN = tuple(name for name in CHANGING if name != "ended")
"""Of one that still has no end: the index on `ended` is left alone."""
NODE_CHANGING = tuple(c.name for c in _table(NodeRow).columns if c.name != "name")

NEW_SESSION = insert(SessionRow)
CHANGED_SESSION = update(SessionRow, CHANGING)
BEGUN_SESSION = update(SessionRow, BEGUN)
NEW_NODE = insert(NodeRow)
CHANGED_NODE = update(NodeRow, NODE_CHANGING)
NEW_RANK = insert(AllocationRow)
CHANGED_RANK = update(AllocationRow, ("state", "exit_code"))
GONE_RANK = delete(AllocationRow)
USAGE = insert(UsageRow, replace=True)
EVENT = insert(EventRow)
AUDIT = insert(AuditRow)
KEY = insert(KeyRow)
MEASURED_NODE = update(NodeRow, ("devices", "sample", "last_beat"))
MEASURED_SESSION = update(SessionRow, ("utilization",))
