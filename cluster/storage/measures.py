"""How much each folder holds, counted now and then: sessions write to their folders without asking anybody.

One thread walks one folder after another, calmly. Each is counted again after `EVERY`, or after `PATIENCE` times as
long as counting it took, so that a folder of millions of files costs a fiftieth of a core and not a whole one. A folder
that is found above its quota is told of once, as it goes above; from then on uploads to it are refused, since they are
weighed against what was counted.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select

from cluster.db.tables import FolderRow
from cluster.sentence import S
from cluster.storage.clones import calm
from cluster.storage.volumes import Volumes
from cluster.transaction import Transaction
from cluster.units import human_size

if TYPE_CHECKING:
    from cluster.core import Core

EVERY = timedelta(minutes=1)
PATIENCE = 50
LOOK = timedelta(seconds=15)
"""Folders that are due are looked for so often."""


@dataclass(frozen=True)
class Count:
    """What a folder held, and how long it took to find out."""

    size: int
    took: timedelta


def due(rows: list[FolderRow], last: Mapping[int, tuple[datetime, timedelta]], now: datetime) -> list[FolderRow]:
    """Those that are to be counted now. `last`: when each was counted and how long that took."""
    return [row for row in rows if row.id not in last or _again(*last[row.id]) <= now]


def _again(at: datetime, took: timedelta) -> datetime:
    return at + max(EVERY, took * PATIENCE)


class Measures:
    """The keeper of folders' sizes (`core.measures`)."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._thread = ThreadPoolExecutor(1, "measure", initializer=calm)
        self._walk: asyncio.Future[dict[int, Count]] | None = None
        self._stamps: dict[int, datetime] = {}
        """`modified` of the folders under way: one that an upload has changed meanwhile is counted again."""
        self._last: dict[int, tuple[datetime, timedelta]] = {}
        self._looked: datetime | None = None
        self._closing = False

    async def load(self) -> None:
        """Nothing is known at the start: every folder is counted soon."""

    async def step(self) -> bool:
        if self._core.volumes is None:
            return False
        if self._walk is not None:
            if not self._walk.done():
                return False
            counts, self._walk = self._walk.result(), None
            return await self._written(counts)
        now = self._core.clock.now()
        if self._looked is not None and timedelta(0) <= now - self._looked < LOOK:
            return False
        self._looked = now
        await self._begin(self._core.volumes, now)
        return False

    def due(self) -> datetime | None:
        return None

    async def rest(self) -> None:
        """Return when the counting under way is over; the next step writes it down."""
        if self._walk is not None:
            await asyncio.wait([self._walk])

    async def close(self) -> None:
        self._closing = True
        if self._core.volumes is not None:
            await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    async def _begin(self, volumes: Volumes, now: datetime) -> None:
        here = (FolderRow.trash_id.is_(None), FolderRow.state == "ready")
        async with self._core.db.read() as db:
            rows = list(await db.scalars(select(FolderRow).where(*here)))
        wanted = due(rows, self._last, now)
        if not wanted:
            return
        self._stamps = {row.id: row.modified for row in wanted}
        places = [(row.id, row.project, row.name) for row in wanted]
        self._walk = asyncio.get_running_loop().run_in_executor(self._thread, self._counted, volumes, places)
        self._walk.add_done_callback(lambda _: self._core.wake.set())

    def _counted(self, volumes: Volumes, places: list[tuple[int, str, str]]) -> dict[int, Count]:
        """In the thread."""
        found: dict[int, Count] = {}
        for ident, project, name in places:
            began = self._core.clock.now()
            with suppress(OSError):
                size = volumes.size(project, name, lambda: self._closing)
                found[ident] = Count(size, self._core.clock.now() - began)
            if self._closing:
                return {}
        return found

    async def _written(self, counts: dict[int, Count]) -> bool:
        """Sizes that are others than before; no commit when there are none."""
        now = self._core.clock.now()
        self._last |= {ident: (now, count.took) for ident, count in counts.items()}
        async with self._core.db.read() as db:
            rows = await db.scalars(select(FolderRow).where(FolderRow.id.in_(counts)))
            changed = {row.id for row in rows if row.size != counts[row.id].size}
        if not changed:
            return False

        async def writes(tx: Transaction) -> Callable[[], bool]:
            for row in await tx.db.scalars(select(FolderRow).where(FolderRow.id.in_(changed))):
                if row.modified == self._stamps[row.id] and row.trash_id is None:
                    _set(tx, row, counts[row.id].size)
                else:
                    self._last.pop(row.id, None)
            return lambda: True

        return await self._core.writer.alone(self._core.system, writes)


def _set(tx: Transaction, row: FolderRow, size: int) -> None:
    """`modified` moves with it: what is in the folder has changed."""
    before, row.size, row.modified = row.size, size, tx.now
    if row.quota is not None and before <= row.quota < size:
        message = S(
            "{folder} holds {size}, more than its quota of {limit}; nothing can be uploaded to it until some of it is "
            "removed.",
            folder=row.name,
            size=human_size(size),
            limit=human_size(row.quota),
        )
        tx.event("folder_over_quota", row.name, message, "warning", owner=row.owner, project=row.project)
