"""Opening the database: SQLite in WAL mode, brought up to date by Alembic."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from cluster.errors import ClusterError, StorageFull, Unavailable
from cluster.sentence import S

PRAGMAS = ("journal_mode=WAL", "foreign_keys=ON", "busy_timeout=10000")


class Database:
    """One SQLite file. Writers come one after another (`write`), readers see the last commit (`read`)."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._session = async_sessionmaker(engine, expire_on_commit=False)
        self._writing = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path, durable: bool = True) -> "Database":
        """Create or migrate the file at `path`, all or nothing; raises `Unavailable` when it can't be used.

        `durable`: a commit is on the disk when it returns. Without, what a power cut may undo is faster.
        """
        engine = create_async_engine(URL.create("sqlite+aiosqlite", database=str(path)))
        event.listen(engine.sync_engine, "connect", partial(_prepare, synchronous="FULL" if durable else "OFF"))
        try:
            await _bring_up(engine, path)
        except BaseException:
            await engine.dispose()
            raise
        return cls(engine)

    async def close(self) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """One moment of the database, however long the reading takes."""
        async with self._session() as db:
            await db.execute(text("BEGIN"))
            yield db

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A transaction that has the write lock from its start; commits at the end, rolls back on any exception."""
        async with self._writing, self._session() as db:
            try:
                await db.execute(text("BEGIN IMMEDIATE"))
                yield db
                await db.commit()
            except OperationalError as e:
                await db.rollback()
                told = _told(e)
                if told is None:
                    raise
                raise told from e


def _told(e: OperationalError) -> ClusterError | None:
    """What a person can do something about."""
    why = str(e.orig)
    if "disk is full" in why or "disk I/O" in why:
        return StorageFull(S("The disk of the cluster's database is full. Nothing was changed; free some space."))
    if "database is locked" in why:
        return Unavailable(
            S("Another program has had the cluster's database locked for 10 s. Nothing was changed; close it.")
        )
    return None


async def _bring_up(engine: AsyncEngine, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        async with engine.begin() as connection:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")  # a migration that is killed leaves nothing behind
            await connection.run_sync(migrate)
    except CommandError as e:
        raise Unavailable(
            S("The database {path} was made by a newer Helmsman; update this one to use it.", path=str(path))
        ) from e
    except (OSError, OperationalError, sqlite3.Error) as e:
        why = str(e.__cause__ or e)
        raise Unavailable(
            S(
                "The cluster's database {path} can't be opened ({why}). Check that its folder is writable.",
                path=str(path),
                why=why,
            )
        ) from e


def _prepare(connection: Any, _record: Any, synchronous: str) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    for pragma in (*PRAGMAS, f"synchronous={synchronous}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def migrate(connection: Any) -> None:
    """Bring the schema up to date (Alembic, batch mode)."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
