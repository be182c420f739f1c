"""What is gone for good: renamed to `ROOT/.purging/<id>` right before its commit, its files removed afterwards by a
calm thread, however many they are. What a crash or a failed removal left there is removed after the next start."""

import asyncio
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import select

from cluster.db.tables import FolderRow
from cluster.storage.clones import calm

if TYPE_CHECKING:
    from cluster.core import Core

log = structlog.get_logger(__name__)


class Purges:
    """The keeper of what is to be removed (`core.purges`)."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._look = False
        self._thread = ThreadPoolExecutor(1, "purge", initializer=calm)
        self._removal: asyncio.Future[set[Path]] | None = None
        self._stubborn: set[Path] = set()
        """What could not be removed; tried again after the next start."""
        self._stop = threading.Event()

    def look_again(self) -> None:
        """Something is discarded by a transaction that is about to be committed."""
        self._look = True

    async def load(self) -> None:
        """A folder whose row is still there was about to go when the server ended: it is in the trash again."""
        volumes = self._core.volumes
        if volumes is None:
            return
        async with self._core.db.read() as db:
            trashed = [*await db.scalars(select(FolderRow.trash_id).where(FolderRow.trash_id.is_not(None)))]
        for trash_id in trashed:
            if trash_id:
                await asyncio.to_thread(volumes.take_back, trash_id)
        self._look = True

    async def step(self) -> bool:
        volumes = self._core.volumes
        if self._removal is not None and self._removal.done():
            self._stubborn |= self._removal.result()
            self._removal = None
        if volumes is None or self._removal is not None or not self._look:
            return False
        self._look = False
        async with self._core.still():  # nothing is between its rename and its commit
            found = await asyncio.to_thread(volumes.discarded)
        wanted = [path for path in found if path not in self._stubborn]
        if wanted:
            loop = asyncio.get_running_loop()
            self._removal = loop.run_in_executor(self._thread, _removed, wanted, self._stop)
            self._removal.add_done_callback(lambda _: self._core.wake.set())
        return False

    def due(self) -> datetime | None:
        return None

    async def rest(self) -> None:
        """Return when what is being removed is gone."""
        if self._removal is not None:
            await asyncio.wait([self._removal])

    async def close(self) -> None:
        self._stop.set()
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)


def _removed(paths: list[Path], stop: threading.Event) -> set[Path]:
    """In the thread: remove them; returns those that could not be."""
    stubborn = set()
    for path in paths:
        try:
            remove(path, stop)
        except (OSError, RecursionError) as e:
            log.error("what was deleted can't be removed", path=str(path), why=str(e))
            stubborn.add(path)
    return stubborn


def remove(path: Path, stop: threading.Event) -> None:
    """All of it, up to `stop`. Links are removed, not followed. Directories that may not be written to are made so."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    try:
        _emptied(path, stop)
    except PermissionError:
        for _, _, _, handle in os.fwalk(path):
            os.fchmod(handle, stat.S_IMODE(os.fstat(handle).st_mode) | stat.S_IRWXU)
        _emptied(path, stop)


def _emptied(path: Path, stop: threading.Event) -> None:
    for _, directories, names, handle in os.fwalk(path, topdown=False):
        for name in names:
            if stop.is_set():
                return
            os.unlink(name, dir_fd=handle)
        for name in directories:
            found = os.stat(name, dir_fd=handle, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                os.unlink(name, dir_fd=handle)
            else:
                os.rmdir(name, dir_fd=handle)
    path.rmdir()
