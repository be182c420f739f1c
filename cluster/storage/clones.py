"""Clones: folders whose contents are copied in the background, out of sight, and appear all at once.

```
row `cloning` ─ commit ─► copy into ROOT/.clones/<id> ─► on the disk ─► ONE rename to ROOT/<project>/<name>, row `ready`
                              │ the disk is full, no progress, source gone          └ commit
                              └► row `failed` with its reason; what was copied is removed
```

Everything follows from what is written: a row in `cloning` without a thread gets one, what an earlier thread left is
copied anew, and a directory that has its name already only lacks the commit. In a simulated cluster a clone takes its
size at `SPEED`, in virtual time.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import select

from cluster.db.tables import FolderRow
from cluster.errors import ClusterError
from cluster.models import Reason
from cluster.sentence import S, Sentence
from cluster.storage import copying
from cluster.storage.copying import Grown, Progress, Stopped, TooDeep
from cluster.storage.volumes import Volumes
from cluster.transaction import Transaction

if TYPE_CHECKING:
    from cluster.core import Core

log = structlog.get_logger(__name__)

AT_ONCE = 2
"""Clones that are copied at the same time; others wait their turn."""
STALLED = timedelta(minutes=10)
"""A clone that has not moved for so long has failed."""
SPEED = 500e6
"""Bytes a second of a simulated clone."""
NICENESS = 10


@dataclass(eq=False)
class Copy:
    """One that is under way, or over and not yet written down."""

    folder: int
    progress: Progress
    task: asyncio.Future[None]
    moved: datetime
    """When it was last seen to have moved."""
    steps: int = 0

    @property
    def over(self) -> bool:
        return self.task.done()


class Clones:
    """The keeper of all clones (`core.clones`)."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._copies: dict[int, Copy] = {}
        self._rows: dict[int, FolderRow] = {}
        """Those in `cloning`, as last read."""
        self._look = True
        self._threads = ThreadPoolExecutor(AT_ONCE, "clone", initializer=calm)

    def look_again(self) -> None:
        """A clone was asked for, or given up, and that is about to be committed."""
        self._look = True

    async def load(self) -> None:
        """What is no clone's any more is removed."""
        await self._read()
        if self._core.volumes is not None:
            await asyncio.to_thread(_sweep, self._core.volumes, set(self._rows))

    async def step(self) -> bool:
        if not self._look and not self._rows and not self._copies:
            return False
        await self._read()
        if self._core.volumes is None:
            return await self._simulated()
        for ident in [ident for ident in self._copies if ident not in self._rows]:
            self._abandon(ident)
        done = [await self._looked_after(row) for row in [*self._rows.values()]]
        return any(done)

    def due(self) -> datetime | None:
        if self._core.volumes is not None or not self._rows:
            return None
        return min(_ready_at(row) for row in self._rows.values())

    @property
    def copies(self) -> list[Copy]:
        """Those under way."""
        return [*self._copies.values()]

    async def rest(self) -> None:
        """Return when every copy under way is over; their end is written down by the next step."""
        if self._copies:
            await asyncio.wait([copy.task for copy in self._copies.values()])

    async def close(self) -> None:
        for ident in [*self._copies]:
            self._abandon(ident)
        if self._core.volumes is not None:
            await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    async def _read(self) -> None:
        self._look = False
        async with self._core.db.read() as db:
            rows = await db.scalars(select(FolderRow).where(FolderRow.state == "cloning").order_by(FolderRow.id))
            self._rows = {row.id: row for row in rows}

    # ── real folders ─────────────────────────────────────────────────────────────────────────────

    async def _looked_after(self, row: FolderRow) -> bool:
        """Begin it, watch it, or write down how it ended. True when a state changed."""
        copy = self._copies.get(row.id)
        if copy is None:
            return await self._begin(row)
        if copy.over:
            del self._copies[row.id]
            return await self._written(row, _why(copy.task.exception(), copy.progress), copy.progress.left_out)
        now = self._core.clock.now()
        if copy.progress.steps != copy.steps or not timedelta(0) <= now - copy.moved:
            copy.steps, copy.moved = copy.progress.steps, now
        if copy.steps and now - copy.moved > STALLED:
            self._abandon(row.id)
            return await self._written(row, S("It did not move for {minutes} minutes.",
                                              minutes=int(STALLED.total_seconds() // 60)))  # fmt: skip
        return False

    async def _begin(self, row: FolderRow) -> bool:
        """Have it copied, in its turn. True when there is nothing to copy (any more)."""
        volumes = self._core.volumes
        assert volumes is not None
        if sum(not copy.over for copy in self._copies.values()) >= AT_ONCE:
            return False
        if await asyncio.to_thread(volumes.exists, row.project, row.name):
            return await self._written(row, None)  # it was renamed, and the commit did not come to pass
        async with self._core.db.read() as db:
            source = await db.get(FolderRow, row.source) if row.source is not None else None
        if source is None:
            return await self._written(row, S("The folder that it copies is gone."))
        progress = Progress(most=row.size)
        loop = asyncio.get_running_loop()
        task = loop.run_in_executor(self._threads, _copied, volumes, source, row.id, progress)
        task.add_done_callback(lambda _: self._core.wake.set())
        self._copies[row.id] = Copy(row.id, progress, task, self._core.clock.now())
        return False

    def _abandon(self, ident: int) -> None:
        """Its thread removes what it copied, as soon as it can."""
        copy = self._copies.pop(ident)
        copy.progress.stop.set()
        copy.task.add_done_callback(lambda task: task.cancelled() or task.exception())

    # ── how it ends ──────────────────────────────────────────────────────────────────────────────

    async def _written(self, row: FolderRow, why: Sentence | None, left_out: int = 0) -> bool:
        """`ready`, with its directory in place, or `failed` because of `why`."""
        ident = row.id

        async def writes(tx: Transaction) -> Callable[[], bool]:
            current = await tx.db.get(FolderRow, ident)
            if current is None or current.state != "cloning":
                return lambda: False
            if why is None:
                _ready(tx, current, left_out)
            else:
                _failed(tx, current, why)
            return lambda: True

        try:
            changed = await self._core.writer.alone(self._core.system, writes)
        except ClusterError as e:
            if why is not None:
                raise
            return await self._written(row, e.sentence)
        self._look = True
        return changed

    # ── simulated ones ───────────────────────────────────────────────────────────────────────────

    async def _simulated(self) -> bool:
        now = self._core.clock.now()
        ready = [row for row in self._rows.values() if _ready_at(row) <= now]
        for row in ready:
            await self._written(row, None)
        if ready:
            await self._read()
        return bool(ready)


def calm() -> None:
    """This thread makes way for others. Linux has a niceness for each thread."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _ready_at(row: FolderRow) -> datetime:
    return (row.state_since or row.created) + timedelta(seconds=row.size / SPEED)


def _copied(volumes: Volumes, source: FolderRow, ident: int, progress: Progress) -> None:
    """In the thread: the whole copy, in its hidden place; nothing of it when anything goes wrong."""
    target = volumes.hidden(ident)
    try:
        copying.remove(target)
        copying.copy_tree(volumes.place(source.project, source.name, source.trash_id), target, progress)
    except BaseException:
        with suppress(OSError):
            copying.remove(target)
        raise


def _why(error: BaseException | None, progress: Progress) -> Sentence | None:
    """The sentence for people; None when all went well."""
    match error:
        case None:
            return None
        case Grown():
            return S("The folder that it copies grew meanwhile; clone it again.")
        case TooDeep():
            return S("Its directories lie deeper inside each other than can be copied: {path}.", path=str(error)[:80])
        case Stopped():
            return S("Its copying was stopped.")
        case OSError():
            return S("It could not be copied: {why}.", why=error.strerror or str(error))
        case _:
            log.error("clone failed", why=repr(error))
            return S("It could not be copied; the server's log says why.")


def _ready(tx: Transaction, row: FolderRow, left_out: int) -> None:
    project, name, ident = row.project, row.name, row.id
    row.state, row.state_since, row.modified = "ready", tx.now, tx.now
    tx.on_disk(lambda v: v.reveal(ident, project, name), lambda v: v.hide(ident, project, name))
    whose = {"owner": row.owner, "project": project}
    tx.event("folder_cloned", name, S("Folder {name} is complete.", name=name), **whose)
    if left_out:
        message = S("{count} pipes, sockets or devices were left out of {name}.", count=left_out, name=name)
        tx.event("folder_cloned", name, message, "warning", **whose)


def _failed(tx: Transaction, row: FolderRow, why: Sentence) -> None:
    row.state, row.state_since, row.size = "failed", tx.now, 0
    message = S("{name} could not be copied.", name=row.name)
    row.reasons = [Reason(code="unavailable", message=m).model_dump(mode="json") for m in (message, why)]
    tx.event("folder_clone_failed", row.name, why, "error", owner=row.owner, project=row.project)


def _sweep(volumes: Volumes, live: set[int]) -> None:
    for place in volumes.hidden_places():
        if place.name not in {volumes.hidden(ident).name for ident in live}:
            with suppress(OSError):
                copying.remove(place)
