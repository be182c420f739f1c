"""Conversations on disk: threads, their events, open questions, approvals in advance. SQLite in WAL mode.

Several processes (a terminal, a web server) hold the same file. Three things keep them in step: an event's `seq` is
given by the one INSERT that writes it; deciding a question is a compare-and-set on its row; and a thread's turn belongs
to whoever holds its lease, which dies with its holder.
"""

import asyncio
import os
import secrets
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiosqlite
import psutil

from cluster.models import S
from helmsman.approve import Rule
from helmsman.conversation import ThreadInfo
from helmsman.errors import Busy, Stale, unkept
from helmsman.events import Decided, Event, Happening, happening
from helmsman.kit import Opened
from helmsman.turn import Given

STALE = 10.0
"""Seconds without a beat after which a lease is dead, even if its process seems to live (it was suspended)."""
TICK = 0.1
"""Seconds between two looks at whether another process has written."""

_SCHEMA = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 5000;
CREATE TABLE IF NOT EXISTS threads (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, title TEXT NOT NULL, updated TEXT NOT NULL, turns INTEGER NOT NULL,
    turn TEXT, holder TEXT, pid INTEGER, born REAL, beat REAL, stop INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS events (
    thread TEXT NOT NULL, seq INTEGER NOT NULL, at TEXT NOT NULL, once TEXT, body TEXT NOT NULL,
    PRIMARY KEY (thread, seq)) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS said_once ON events (thread, once) WHERE once IS NOT NULL;
CREATE TABLE IF NOT EXISTS questions (
    id TEXT PRIMARY KEY, thread TEXT NOT NULL, digest TEXT NOT NULL, opened TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'decided', 'dropped')), given TEXT, at REAL);
CREATE INDEX IF NOT EXISTS open_questions ON questions (thread, state);
CREATE TABLE IF NOT EXISTS approvals (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, rule TEXT NOT NULL, UNIQUE (owner, rule));
"""


@dataclass(frozen=True)
class ThreadState:
    """Where a thread stands: no turn, a turn that somebody runs, or one that waits or was broken off."""

    turn: str | None
    running: bool
    """Somebody alive holds the lease."""
    broken: bool
    """Somebody held it and is dead."""
    title: str = ""


class Store:
    """One file, one connection; safe to use from many tasks of one event loop."""

    def __init__(self, db: aiosqlite.Connection, path: Path) -> None:
        self.path = path
        self.holder = uuid.uuid4().hex
        """Who this store is, among the holders of leases."""
        self._db = db
        self._lock = asyncio.Lock()
        self._wakers: set[asyncio.Event] = set()
        self._watch: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: Path) -> "Store":
        """Open or create. Raises `HelmsmanError` when the place cannot be written."""
        with _disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            db = await aiosqlite.connect(path, isolation_level=None)
            try:
                db.row_factory = sqlite3.Row
                await db.executescript(_SCHEMA)
            except BaseException:
                await db.close()
                raise
        return cls(db, path)

    async def close(self) -> None:
        """End the watching and close the file."""
        if self._watch:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._db.close()

    # ── events ───────────────────────────────────────────────────────────────────────────────────

    async def append(self, thread: str, body: Happening, once: str | None = None) -> None:
        """Write an event; one that was said `once` already is left alone."""
        async with self._write():
            await self._insert(thread, body, once)

    async def _insert(self, thread: str, body: Happening, once: str | None) -> None:
        await self._db.execute(
            "INSERT INTO events (thread, seq, at, once, body) "
            "SELECT ?1, COALESCE((SELECT MAX(seq) FROM events WHERE thread = ?1), 0) + 1, ?2, ?3, ?4 "
            "WHERE NOT EXISTS (SELECT 1 FROM events WHERE thread = ?1 AND once = ?3)",
            (thread, datetime.now(UTC).isoformat(), once, body.model_dump_json()),
        )

    async def events(self, thread: str, after: int) -> list[Event]:
        """Those with seq > after, oldest first."""
        rows = await self._all(
            "SELECT seq, at, body FROM events WHERE thread = ? AND seq > ? ORDER BY seq", thread, after
        )
        return [_event(thread, row) for row in rows]

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever something was written, here or elsewhere. Clear it before you read."""
        waker = asyncio.Event()
        self._wakers.add(waker)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look())
        try:
            yield waker
        finally:
            self._wakers.discard(waker)

    async def _look(self) -> None:
        """Wake the watchers when another process has written."""
        version = None
        while self._wakers:
            row = await self._one("PRAGMA data_version")
            if row is not None and row[0] != version:
                version = row[0]
                self._wake()
            await asyncio.sleep(TICK)

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()

    # ── threads and their lease ──────────────────────────────────────────────────────────────────

    async def threads(self, owner: str) -> list[ThreadInfo]:
        """The owner's, newest first."""
        rows = await self._all("SELECT * FROM threads WHERE owner = ? ORDER BY updated DESC LIMIT 200", owner)
        return [ThreadInfo(id=r["id"], title=r["title"], updated=r["updated"], turns=r["turns"]) for r in rows]

    async def owns(self, owner: str, thread: str) -> bool:
        """Whether there is such a thread of this owner."""
        return await self._one("SELECT 1 FROM threads WHERE id = ? AND owner = ?", thread, owner) is not None

    async def state(self, thread: str) -> ThreadState:
        """Where the thread stands; a thread without a first line has no turn."""
        row = await self._one("SELECT * FROM threads WHERE id = ?", thread)
        if row is None:
            return ThreadState(None, running=False, broken=False)
        alive = row["holder"] is not None and _alive(row)
        return ThreadState(row["turn"], alive, row["holder"] is not None and not alive, row["title"])

    async def begin(self, thread: str, owner: str, turn: str, said: Happening | None, title: str) -> None:
        """Take the lease for a new turn. Raises `Busy`. Open questions of the thread end with it."""
        now = datetime.now(UTC).isoformat()
        async with self._write():
            await self._db.execute(
                "INSERT INTO threads (id, owner, title, updated, turns) VALUES (?, ?, ?, ?, 0) ON CONFLICT DO NOTHING",
                (thread, owner, title, now),
            )
            await self._take(thread)
            await self._db.execute(
                "UPDATE threads SET turn = ?, turns = turns + 1, updated = ? WHERE id = ?", (turn, now, thread)
            )
            await self._drop(thread)
            if said:
                await self._insert(thread, said, None)

    async def take(self, thread: str) -> None:
        """Take the lease of a turn that is there already. Raises `Busy`."""
        async with self._write():
            await self._take(thread)

    async def _take(self, thread: str) -> None:
        row = await self._fetch("SELECT * FROM threads WHERE id = ?", thread)
        if row is not None and row["holder"] is not None and _alive(row):
            raise Busy(S("Another request of this conversation is still being worked on. Wait for it, or stop it."))
        await self._db.execute(
            "UPDATE threads SET holder = ?, pid = ?, born = ?, beat = ?, stop = 0 WHERE id = ?",
            (self.holder, os.getpid(), psutil.Process().create_time(), time.time(), thread),
        )

    async def beat(self, thread: str) -> tuple[bool, bool]:
        """Stay the holder. (Whether it still is, whether somebody wants the turn stopped.)"""
        async with self._write(quiet=True):
            await self._db.execute(
                "UPDATE threads SET beat = ? WHERE id = ? AND holder = ?", (time.time(), thread, self.holder)
            )
            row = await self._fetch("SELECT holder, stop FROM threads WHERE id = ?", thread)
        return (row is not None and row["holder"] == self.holder, bool(row and row["stop"]))

    async def release(self, thread: str, ended: Happening | None = None, turn: str | None = None) -> None:
        """Give the lease back; with `ended`, the turn is over and that is said."""
        async with self._write():
            await self._db.execute(
                "UPDATE threads SET holder = NULL WHERE id = ? AND holder = ?", (thread, self.holder)
            )
            if ended:
                await self._insert(thread, ended, f"{turn}.ended")
                await self._db.execute("UPDATE threads SET turn = NULL WHERE id = ? AND turn = ?", (thread, turn))

    async def ask_to_stop(self, thread: str) -> None:
        """Tell the holder, whichever process it is, that the turn is to be stopped."""
        async with self._write():
            await self._db.execute("UPDATE threads SET stop = 1 WHERE id = ? AND holder IS NOT NULL", (thread,))

    async def wants_stop(self, thread: str) -> bool:
        """Whether the turn is to be stopped."""
        row = await self._one("SELECT stop FROM threads WHERE id = ?", thread)
        return bool(row and row["stop"])

    # ── questions ────────────────────────────────────────────────────────────────────────────────

    async def open_question(self, thread: str, question: Opened, shown: Happening) -> None:
        """Keep a question and show it; it takes the place of any other one of the thread."""
        async with self._write():
            await self._drop(thread)
            await self._db.execute(
                "INSERT INTO questions (id, thread, digest, opened, state) VALUES (?, ?, ?, ?, 'open') "
                "ON CONFLICT (id) DO UPDATE SET digest = excluded.digest, opened = excluded.opened, state = 'open'",
                (question.id, thread, question.digest, question.model_dump_json()),
            )
            await self._insert(thread, shown, f"{question.id}.{question.digest}")

    async def question(self, thread: str) -> Opened | None:
        """The open one."""
        row = await self._one("SELECT opened FROM questions WHERE thread = ? AND state = 'open'", thread)
        return Opened.model_validate_json(row["opened"]) if row else None

    async def decide(self, thread: str, given: Given) -> None:
        """Answer a plan, once, and take the lease to go on with it. Raises `Stale`, `Busy`."""
        decided = Decided(question=given.question, decision=given.decision, comment=given.comment, face=given.face)
        async with self._write():
            done = await self._db.execute(
                "UPDATE questions SET state = 'decided', given = ?, at = ? "
                "WHERE id = ? AND thread = ? AND digest = ? AND digest <> '' AND state = 'open'",
                (given.model_dump_json(), time.time(), given.question, thread, given.digest),
            )
            if done.rowcount != 1:
                raise Stale(S("This plan was answered already, or another one has taken its place; nothing was done."))
            await self._take(thread)
            await self._insert(thread, decided, f"{given.question}.{given.digest}.decided")

    async def given(self, question: str) -> tuple[Given, float] | None:
        """What was decided on a question, and how many seconds ago."""
        row = await self._one("SELECT given, at FROM questions WHERE id = ? AND state = 'decided'", question)
        return (Given.model_validate_json(row["given"]), time.time() - row["at"]) if row else None

    async def _drop(self, thread: str) -> None:
        await self._db.execute("UPDATE questions SET state = 'dropped' WHERE thread = ? AND state = 'open'", (thread,))

    # ── approvals in advance ─────────────────────────────────────────────────────────────────────

    async def rules(self, owner: str) -> dict[str, Rule]:
        """Those of one person, by id."""
        rows = await self._all("SELECT id, rule FROM approvals WHERE owner = ? ORDER BY rowid", owner)
        return {r["id"]: Rule.model_validate_json(r["rule"]) for r in rows}

    async def allow(self, owner: str, rule: Rule) -> str:
        """Keep a rule; the same one twice is one."""
        async with self._write():
            await self._db.execute(
                "INSERT INTO approvals (id, owner, rule) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (f"r-{secrets.token_hex(2)}", owner, rule.model_dump_json()),
            )
            row = await self._fetch(
                "SELECT id FROM approvals WHERE owner = ? AND rule = ?", owner, rule.model_dump_json()
            )
        assert row is not None
        return str(row["id"])

    async def revoke(self, owner: str, rule: str) -> bool:
        """Take a rule back; False when there is none of this id."""
        async with self._write():
            done = await self._db.execute("DELETE FROM approvals WHERE owner = ? AND id = ?", (owner, rule))
        return done.rowcount == 1

    # ── plumbing ─────────────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def _write(self, quiet: bool = False) -> AsyncIterator[None]:
        """One transaction: all of it or nothing."""
        async with self._lock:
            with _disk_errors(self.path):
                try:
                    await self._db.execute("BEGIN IMMEDIATE")
                    yield
                    await self._db.execute("COMMIT")
                except BaseException:
                    # whoever was cancelled doesn't know how far the connection's thread has come
                    with suppress(sqlite3.OperationalError):
                        await self._db.execute("ROLLBACK")
                    raise
        if not quiet:
            self._wake()

    async def _fetch(self, sql: str, *values: Any) -> sqlite3.Row | None:
        """One row, inside a transaction of ours."""
        async with self._db.execute(sql, values) as cursor:
            return await cursor.fetchone()

    async def _one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        async with self._lock:
            return await self._fetch(sql, *values)

    async def _all(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        async with self._lock, self._db.execute(sql, values) as cursor:
            return list(await cursor.fetchall())


def _event(thread: str, row: sqlite3.Row) -> Event:
    at = datetime.fromisoformat(row["at"])
    return Event(seq=row["seq"], at=at, thread=thread, body=happening.validate_json(row["body"]))


def _alive(row: sqlite3.Row) -> bool:
    """Whether the process that took the lease is there and beats. A pid used again has another birth."""
    if time.time() - row["beat"] > STALE:
        return False
    try:
        return bool(abs(psutil.Process(row["pid"]).create_time() - row["born"]) < 1)
    except psutil.Error:
        return False


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as e:
        raise unkept(path, e) from e
