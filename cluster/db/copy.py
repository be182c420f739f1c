"""`python -m cluster.db.copy FILE URL`: move a cluster from a SQLite file to an empty database on a PostgreSQL server.

All or nothing, and the file is only read; its server must not run meanwhile. Folders, logs and tokens stay where they
are: start the server on the same --data with `--database URL`. Exit 1 with one sentence on stderr when it can't.
"""

import argparse
import asyncio
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Boolean, Table, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from cluster.db import log
from cluster.db.address import parsed, place
from cluster.db.engine import Database
from cluster.db.tables import Base
from cluster.errors import ClusterError, Conflict, Invalid
from cluster.sentence import S
from cluster.server import locked

AT_A_TIME = 2000
"""Rows."""
OURS = "database_writer"
"""Row of `meta` that an empty database has."""


async def copy(file: Path, url: URL) -> dict[str, int]:
    """How many rows each table has, there and here. Raises `ClusterError`, and then nothing was copied."""
    with tempfile.TemporaryDirectory(prefix="helmsman-copy-") as folder:
        source = Path(folder) / "cluster.db"
        await asyncio.to_thread(_take_over, file, source)
        await (await Database.open(source, durable=False)).close()  # brought up to date: a copy, not the file itself
        target = await Database.open(url, alone=True)
        try:
            async with target.write() as db:
                await _refuse_unless_empty(db, url)
                return await _copied(source, target, db)
        finally:
            await target.close()


def _take_over(file: Path, to: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(to)) as new,
        ):
            old.backup(new)
    except sqlite3.Error as e:
        raise Invalid(S("The file {path} can't be read as a database ({why}).", path=str(file), why=str(e))) from e


async def _refuse_unless_empty(db: AsyncSession, url: URL) -> None:
    for table in Base.metadata.sorted_tables:
        count = select(func.count()).select_from(table)
        if table.name == "meta":
            count = count.where(table.c.key != OURS)
        if await db.scalar(count):
            raise Conflict(
                S("There is a cluster in the database {place} already; give an empty one.", place=place(url))
            )


async def _copied(source: Path, target: Database, db: AsyncSession) -> dict[str, int]:
    kinds = {mapper.local_table: mapper.class_ for mapper in Base.registry.mappers}
    counts: dict[str, int] = {}
    with closing(sqlite3.connect(source)) as old:
        for table in Base.metadata.sorted_tables:
            verb = log.insert(kinds[table])
            for rows in _bites(old, table):
                await target.append([(verb.sql, rows)], db)
            await _count_on(db, table)
            counts[table.name] = await _compared(old, db, table)
    return counts


def _bites(old: sqlite3.Connection, table: Table) -> Iterator[list[Any]]:
    """The rows as SQLite has them, which is as `Database.append` wants them but for what is true or false."""
    columns = [*table.columns]
    flags = [place for place, column in enumerate(columns) if isinstance(column.type, Boolean)]
    names = ", ".join(f'"{column.name}"' for column in columns)
    found = old.execute(f'SELECT {names} FROM "{table.name}"')
    while rows := [list(row) for row in found.fetchmany(AT_A_TIME)]:
        for row in rows:
            for place_ in flags:
                row[place_] = None if row[place_] is None else bool(row[place_])
        yield rows


async def _count_on(db: AsyncSession, table: Table) -> None:
    """The next number that the database gives is one more than the last."""
    number = table.autoincrement_column
    if number is not None:
        last = f'(SELECT max("{number.name}") FROM "{table.name}")'
        counter = f"pg_get_serial_sequence('{table.name}', '{number.name}')"
        await db.execute(text(f"SELECT setval({counter}, {last}) WHERE {last} IS NOT NULL"))


async def _compared(old: sqlite3.Connection, db: AsyncSession, table: Table) -> int:
    there = int(await db.scalar(select(func.count()).select_from(table)) or 0)
    there -= table.name == "meta"  # its own row
    (here,) = old.execute(f'SELECT count(*) FROM "{table.name}"').fetchone()
    if here != there:
        raise Conflict(
            S("{table} has {here} rows in the file and {there} in the copy; nothing was copied.",
              table=table.name, here=here, there=there)
        )  # fmt: skip
    return there


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster.db.copy", description=__doc__)
    parser.add_argument("file", type=Path, help="cluster.db of a server that does not run")
    parser.add_argument("url", help="postgresql://USER@HOST/NAME of an empty database; a password from ~/.pgpass")
    given = parser.parse_args()
    try:
        if not given.file.is_file():
            raise Invalid(S("There is no file {path}.", path=str(given.file)))
        with locked(given.file.parent):
            counts = asyncio.run(copy(given.file, parsed(given.url)))
    except ClusterError as e:
        print(e, file=sys.stderr)  # noqa: T201 - the one sentence for whoever started us
        return 1
    print(*(f"{count:9} {name}" for name, count in counts.items() if count), sep="\n")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
