"""PostgreSQL: one connection that writes, a pool of others that read.

The lock of the one who is `alone` belongs to the connection that writes: who loses one, loses the other. A new
connection goes on only if nobody else has had the lock in between, since memory would not know what they wrote.
"""

import asyncio
import secrets
import socket
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import asyncpg
from alembic.util import CommandError
from sqlalchemy import URL, Connection, event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from cluster.db.address import place
from cluster.db.backend import BEGIN
from cluster.db.log import Statement
from cluster.db.schema import migrate
from cluster.errors import ClusterError, Invalid, StorageFull, Unavailable
from cluster.sentence import S

LOCKS = 1214606445
"""The first half of our advisory locks' keys; the second is one of these."""
WRITER, ALONE = 1, 2
PATIENCE = 5.0
"""Seconds for the lock of somebody who was killed to be noticed as free."""
CONNECT = 10.0
"""Seconds."""
LONGEST = 60.0
"""Seconds for the answer to one statement, but for a migration's."""
READERS, MORE_READERS = 5, 25
SETTINGS = {"application_name": "helmsman", "timezone": "UTC", "datestyle": "ISO", "client_encoding": "UTF8"}
ALIVE = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
"""So that the server gives up the lock of a machine that is gone. Seconds."""
WAIT = {"lock_timeout": "10000"}
"""Milliseconds."""


class Postgres:
    """The database at `url`. `durable`: a commit is on the disk when it returns. `alone`: nobody else has it so."""

    def __init__(self, url: URL, durable: bool, alone: bool) -> None:
        self._dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._place = place(url)
        self._durable = durable
        self._alone = alone
        self._mine: str | None = None
        """What is written in the database while this process has it for itself."""
        self._log: AsyncConnection | None = None
        """Between BEGIN and COMMIT."""
        self.writing = _engine(self._connect_to_write, pool_size=1, max_overflow=0)
        self.reading = _engine(self._connect, pool_size=READERS, max_overflow=MORE_READERS).execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )

    # ── connections ──────────────────────────────────────────────────────────────────────────────

    async def _connect(self, **settings: str) -> "asyncpg.Connection[Any]":
        """A new connection. Raises `Unavailable`; the address and its password are never told."""
        try:
            connection = await asyncpg.connect(self._dsn, timeout=CONNECT, server_settings=SETTINGS | ALIVE | settings)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as e:
            raise self._unreachable(_why(e)) from None  # with its cause, a traceback could show the address
        except Exception as e:
            raise self._unreachable(type(e).__name__) from None
        _notice_silence(connection)
        await connection.set_type_codec(
            "timestamptz", schema="pg_catalog", encoder=_moment, decoder=datetime.fromisoformat, format="text"
        )
        return connection

    async def _connect_to_write(self) -> "asyncpg.Connection[Any]":
        commit = {} if self._durable else {"synchronous_commit": "off"}
        connection = await self._connect(**WAIT, **commit)
        try:
            if self._durable:
                await connection.execute(_DURABLE)
            if self._alone:
                await self._claim(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _claim(self, connection: "asyncpg.Connection[Any]") -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1, $2)", LOCKS, ALONE):
            if loop.time() > end:
                if self._mine is not None:
                    raise self._unreachable("the connection that was lost holds its lock still")
                raise Unavailable(S("Another server uses the database {place}; stop it first.", place=self._place))
            await asyncio.sleep(0.1)
        if self._mine is not None and self._mine != await connection.fetchval(_WHOSE):
            raise Unavailable(
                S("Another server has used the database {place} meanwhile; restart this one.", place=self._place)
            )

    # ── opening ──────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        try:
            async with self.writing.begin() as connection:
                await self._check(connection)
                await connection.execute(_HOLD)
                await connection.run_sync(migrate)
                await connection.run_sync(_sort_by_code_point)
                if self._alone:
                    mine = secrets.token_hex(8)
                    await connection.execute(text(_TAKE), {"mine": mine})
            if self._alone:
                self._mine = mine
            for engine in (self.writing, self.reading):
                _limit_statements(engine)  # not before: a migration takes what it takes
        except CommandError as e:
            raise Unavailable(
                S("The database {path} was made by a newer Helmsman; update this one to use it.", path=self._place)
            ) from e
        except SQLAlchemyError as e:
            raise (self.told(e) if isinstance(e, DBAPIError) else None) or self._unreachable(_why(e)) from e

    async def _check(self, connection: AsyncConnection) -> None:
        encoding = await connection.scalar(text("SELECT current_setting('server_encoding')"))
        if encoding != "UTF8":
            raise Unavailable(
                S(
                    "The database {place} keeps text as {encoding}; make one with encoding UTF8.",
                    place=self._place,
                    encoding=str(encoding),
                )
            )

    async def close(self) -> None:
        await self.give_up()
        await self.writing.dispose()
        await self.reading.dispose()

    # ── reading and writing ──────────────────────────────────────────────────────────────────────

    async def begin_reading(self, db: AsyncSession) -> None:
        """The engine's settings do it: REPEATABLE READ, from the first question on."""

    async def begin_writing(self, db: AsyncSession) -> None:
        await db.execute(_HOLD)

    async def say(self, what: str) -> None:
        if what == BEGIN:
            await self.give_up()
            self._log = await self.writing.connect()
            await self._log.execute(_HOLD)
            return
        assert self._log is not None, "it was begun"
        await self._log.commit()
        await self._log.close()
        self._log = None

    async def write(self, statements: Sequence[Statement], to: AsyncSession | None = None) -> None:
        connection = self._log if to is None else await to.connection()
        assert connection is not None, "it was begun"
        for sql, rows in statements:
            await connection.exec_driver_sql(numbered(sql), [tuple(row) for row in rows])

    async def give_up(self) -> None:
        log, self._log = self._log, None
        if log is None:
            return
        try:
            await log.close()
        except (SQLAlchemyError, OSError):
            await log.invalidate()

    # ── what went wrong ──────────────────────────────────────────────────────────────────────────

    def told(self, e: Exception) -> ClusterError | None:
        if isinstance(e, ClusterError):
            return e
        code = _code(e)
        if code in _FULL:
            return StorageFull(S("The disk of the cluster's database is full. Nothing was changed; free some space."))
        if code in _LOCKED:
            return Unavailable(
                S("Another program has had the cluster's database locked for 10 s. Nothing was changed; close it.")
            )
        if code in _UNSTORABLE:
            return Invalid(S("There is a character in it (NUL) that the cluster's database can't keep."))
        if code in _READ_ONLY:
            return Unavailable(S("The database {place} takes no changes; it is read-only.", place=self._place))
        return self._unreachable(_why(e)) if _is_away(e) else None

    def lost(self, e: Exception) -> ClusterError | None:
        if isinstance(e, ClusterError) or not _is_away(e):
            return None  # it was not reached at all
        return Unavailable(
            S(
                "The cluster's database {place} went away in the middle ({why}). Look whether it was done before you "
                "try again.",
                place=self._place,
                why=_why(e),
            )
        )

    def _unreachable(self, why: str) -> Unavailable:
        return Unavailable(
            S("The cluster's database {place} does not answer ({why}). Try again.", place=self._place, why=why)
        )


_HOLD = text(f"SELECT pg_advisory_xact_lock({LOCKS}, {WRITER})")
_WHOSE = "SELECT value FROM meta WHERE key = 'database_writer'"
_TAKE = "INSERT INTO meta (key, value) VALUES ('database_writer', :mine) ON CONFLICT (key) DO UPDATE SET value = :mine"
_DURABLE = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
"""Stricter settings of the server's are left alone."""
_FULL = ("53100",)
_LOCKED = ("55P03",)
_UNSTORABLE = ("22021", "22P05")
_READ_ONLY = ("25006",)
_AWAY = ("08", "57P", "53300")
"""The connection is lost, the server stops or starts, has too many connections."""


def _is_away(e: Exception) -> bool:
    code = _code(e)
    if code is None:
        return isinstance(e, DBAPIError) and e.connection_invalidated
    return code.startswith(_AWAY)


def _code(e: BaseException | None) -> str | None:
    """PostgreSQL's five characters for what went wrong."""
    while e is not None:
        code = getattr(e, "sqlstate", None)
        if isinstance(code, str):
            return code
        e = getattr(e, "orig", None) or e.__cause__
    return None


def _why(e: BaseException) -> str:
    """In the words of whoever said it first."""
    inner = getattr(e, "orig", None)
    cause = (inner.__cause__ if inner is not None else None) or e
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, OSError):
        return cause.strerror or str(cause)
    return str(cause)


def _engine(connect: Any, **pool: int) -> AsyncEngine:
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, **pool)
    event.listen(engine.sync_engine.pool, "checkout", _still_there)
    return engine


def _still_there(connection: Any, _record: Any, _proxy: Any) -> None:
    """A connection that the server has closed in the meantime is replaced, before anything is asked on it."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _limit_statements(engine: AsyncEngine) -> None:
    """A connection that gives no answer for `LONGEST` is cut, as if it had been lost: nobody waits for ever."""
    sync = engine.sync_engine
    event.listen(sync, "before_cursor_execute", lambda connection, *_: _begins(connection))
    event.listen(sync, "after_cursor_execute", lambda connection, *_: _ends(connection.info))
    event.listen(sync, "commit", _begins)
    event.listen(sync, "rollback", _begins)
    event.listen(sync.pool, "checkin", lambda _, record: _ends(record.info))


def _begins(connection: Connection) -> None:
    if connection.invalidated:
        return  # there is nobody to wait for
    _ends(connection.info)
    wire = connection.connection.driver_connection
    assert wire is not None
    connection.info["deadline"] = asyncio.get_running_loop().call_later(LONGEST, wire.terminate)


def _ends(info: dict[str, Any]) -> None:
    if deadline := info.pop("deadline", None):
        deadline.cancel()


def _notice_silence(connection: "asyncpg.Connection[Any]") -> None:
    """On a network that swallows everything, the connection is lost after 30 s."""
    wire = connection._transport.get_extra_info("socket")
    if wire is not None and wire.family != socket.AF_UNIX:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)


def _moment(value: datetime | str) -> str:
    return value if isinstance(value, str) else value.isoformat(" ")


@lru_cache(maxsize=256)
def numbered(sql: str) -> str:
    """`$1`, `$2` … for each `?`; none of our statements has one in a word of its own."""
    first, *rest = sql.split("?")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))


def _sort_by_code_point(connection: Connection) -> None:
    """Names sort as in SQLite and in Python, whatever language the server was set up for."""
    lacking = connection.execute(text(_UNSORTED)).all()
    tables: dict[str, list[str]] = {}
    for table, column, kind in lacking:
        tables.setdefault(table, []).append(f'ALTER COLUMN "{column}" TYPE {kind} COLLATE "C"')
    for table, changes in tables.items():
        connection.execute(text(f'ALTER TABLE "{table}" {", ".join(changes)}'))


_UNSORTED = """
    SELECT table_name, column_name, data_type FROM information_schema.columns
    WHERE table_schema = current_schema() AND data_type IN ('character varying', 'text')
    AND collation_name IS DISTINCT FROM 'C' AND table_name != 'alembic_version'
"""
