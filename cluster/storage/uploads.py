"""Resumable uploads: what has arrived stays, whatever happens to the connection or to this process.

```
create: row + empty file ROOT/.uploads/<id>, one commit      quota: the whole length is reserved from here on
receive: bytes behind what is there, to the disk, then the answer; a new connection takes over from an old one
complete: ONE rename into the folder, and `finished` in the row, one commit
```

The offset is the file's length, asked of the file. A crash between the rename and its commit is seen at the next start:
a row that is not finished and has no file has landed. Without progress for a day, an upload is given up.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import structlog
from sqlalchemy import func, select

from cluster import errors
from cluster.db.tables import FolderRow, UploadRow
from cluster.models import Reason, UploadFile, User
from cluster.sentence import S
from cluster.storage import incoming, rights, room
from cluster.storage.beneath import parts_of
from cluster.storage.ready import must_be_ready
from cluster.storage.volumes import Volumes
from cluster.transaction import Refused, Transaction, reasons_of
from cluster.units import human_size

if TYPE_CHECKING:
    from cluster.core import Core

log = structlog.get_logger(__name__)
T = TypeVar("T")

LASTS = timedelta(days=1)
"""An upload is given up when nothing has come for so long."""
AT_ONCE = 1000
"""Unfinished uploads of one person."""
PIECE = 1 << 20
"""Bytes gathered before they are written."""
IDLE = 120.0
"""Seconds that a connection may be silent."""
CLEAR_EVERY = timedelta(minutes=1)
RECEIVES = "receives"
"""Name of a task that may be ended by a newer connection, unlike one that only asks."""


class Hash(Protocol):
    """Of hashlib's."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


@dataclass(frozen=True)
class Check:
    """A checksum of what one request carries, and what it must come to."""

    hash: Hash
    wanted: bytes


@dataclass(frozen=True)
class Upload:
    """How far one is. Bytes."""

    id: str
    folder: str
    path: str
    length: int
    offset: int
    expires: datetime
    finished: bool


class Mismatch(errors.Invalid):
    """What arrived is not what its checksum says."""

    status = 460  # as tus has it


class TooMuch(errors.Invalid):
    """More arrives than was announced."""

    status = 413


class Uploads:
    """What the tus routes ask, and the keeper of what is under way (`core.uploads`)."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._busy: dict[str, asyncio.Task[Any]] = {}
        """Who receives just now, by upload."""
        self._cleared: datetime | None = None

    # ── for the routes ───────────────────────────────────────────────────────────────────────────

    async def create(self, user: User, folder: str, path: str, length: int) -> Upload:
        """Begin one. Raises `NotFound`, `NotAllowed`, `Invalid`, `Conflict`, `StorageFull` (quota or disk)."""
        asked = UploadFile(folder=folder, path=path, size=length)
        row = await self._noted(user, asked, self._create(user, folder, path, length))
        if length == 0:
            await self._exclusively(row.id, self._finish(user, row))
        return await self.look(user, row.id)

    async def _create(self, user: User, folder: str, path: str, length: int) -> UploadRow:
        root, parts = self._volumes().root, parts_of(path)
        if not parts or path.endswith("/"):
            raise errors.Invalid(S("The upload does not say what its file is to be called."))
        ident = secrets.token_hex(16)
        free = await asyncio.to_thread(self._volumes().free)
        if length > free:
            raise errors.StorageFull(
                S("The disk has {free} left; {path} needs {size}.", free=human_size(free), path=path,
                  size=human_size(length))
            )  # fmt: skip

        async def begins(tx: Transaction) -> Callable[[], UploadRow]:
            row = await self._begun(tx, folder, "/".join(parts), length, ident)
            tx.on_disk(lambda _: incoming.begin(root, ident), lambda _: incoming.forget(root, ident))
            return lambda: row

        return await self._core.writer.alone(user, begins)

    async def look(self, user: User, ident: str) -> Upload:
        """How far it is. Whoever asks is the only one at it: an older connection is given up."""

        await self._mine(user, ident)
        return await self._exclusively(ident, self._seen(user, ident))

    async def receive(
        self, user: User, ident: str, offset: int, chunks: AsyncIterator[bytes], check: Check | None = None
    ) -> Upload:
        """Take what comes, from `offset` on. What arrived before a connection broke is kept, without a checksum.

        Raises `Conflict` for another offset than the one it is at, `TooMuch`, `Mismatch`, `StorageFull`.
        """

        async def receives() -> Upload:
            row, _ = await self._mine(user, ident)
            at = await self._offset(row)
            if at != offset:
                raise errors.Conflict(
                    S("The upload is at {at} bytes, not at {offset}; go on from there.", at=at, offset=offset)
                )
            if row.finished is None and await self._taken(row, offset, chunks, check) == row.length:
                await self._finish(user, row)
            return await self._seen(user, ident)

        await self._mine(user, ident)
        return await self._exclusively(ident, receives(), RECEIVES)

    async def give_up(self, user: User, ident: str) -> None:
        """Forget it, and what has arrived of it. A finished one's file stays where it is."""

        async def gives_up() -> None:
            row, _ = await self._mine(user, ident)
            await surely(self._forget([row.id]))

        await self._mine(user, ident)
        await self._exclusively(ident, gives_up())

    # ── receiving ────────────────────────────────────────────────────────────────────────────────

    async def _exclusively(self, ident: str, work: Coroutine[Any, Any, T], name: str = "asks") -> T:
        """Do `work` as the only one at this upload; whoever still receives ends first, as if cut off."""
        while (before := self._busy.get(ident)) is not None and not before.done():
            if before.get_name() == RECEIVES:
                before.cancel()
            try:
                await asyncio.wait([before])
            except asyncio.CancelledError:
                work.close()
                raise
        task: asyncio.Task[T] = asyncio.create_task(work, name=name)
        self._busy[ident] = task
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            if self._busy.get(ident) is task:
                del self._busy[ident]
        if task.cancelled():
            raise errors.Conflict(S("Another connection goes on with this upload."))
        return task.result()

    async def _taken(self, row: UploadRow, at: int, chunks: AsyncIterator[bytes], check: Check | None) -> int:
        """Write what comes; returns how far that is, on the disk."""
        handle = await asyncio.to_thread(incoming.open_to_write, self._volumes().root, row.id)
        try:
            end = await self._written(handle, at, row.length, chunks, check)
        except OSError as e:
            raise _full(e, row.path) from e
        finally:
            await surely(asyncio.to_thread(_let_go, handle))
        await self._prolonged(row)
        return end

    async def _written(
        self, handle: int, start: int, length: int, chunks: AsyncIterator[bytes], check: Check | None
    ) -> int:
        at, gathered, whole = start, bytearray(), False

        async def out() -> None:
            nonlocal at
            data = bytes(gathered)
            await surely(asyncio.to_thread(incoming.write, handle, data, at))
            at += len(data)
            gathered.clear()

        try:
            async for chunk in _in_time(chunks):
                if at + len(gathered) + len(chunk) > length:
                    raise TooMuch(S("More bytes come than the {length} that were announced.", length=length))
                gathered += chunk
                if check:
                    check.hash.update(chunk)
                if len(gathered) >= PIECE:
                    await out()
            whole = True
        except (TimeoutError, ConnectionError):
            log.info("an upload was cut", at=at + len(gathered))
        finally:
            await out()
            if check and not (whole and check.hash.digest() == check.wanted):
                await surely(asyncio.to_thread(os.ftruncate, handle, start))
        if check and check.hash.digest() != check.wanted:
            raise Mismatch(S("What arrived does not fit its checksum; it was put away. Send it again."))
        return at if whole or not check else start

    async def _seen(self, user: User, ident: str) -> Upload:
        row, folder = await self._mine(user, ident)
        where, at = f"{folder.project}/{folder.name}", await self._offset(row)
        return Upload(ident, where, row.path, row.length, at, row.expires, row.finished is not None)

    async def _offset(self, row: UploadRow) -> int:
        """How far it is."""
        if row.finished is not None:
            return row.length
        try:
            return await asyncio.to_thread(incoming.length, self._volumes().root, row.id)
        except FileNotFoundError as e:
            raise errors.NotFound(S("What had arrived of {path} is gone; upload it again.", path=row.path)) from e

    async def _prolonged(self, row: UploadRow) -> None:
        """It moves, so it lives on; written down when that makes a difference."""
        until = self._core.clock.now() + LASTS
        if until - row.expires < LASTS / 24:
            return
        async with self._core.db.write() as db:
            current = await db.get(UploadRow, row.id)
            if current is not None:
                current.expires = until

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────

    async def _mine(self, user: User, ident: str) -> tuple[UploadRow, FolderRow]:
        """An upload is its beginner's alone."""
        async with self._core.db.read() as db:
            row = await db.get(UploadRow, ident)
            folder = await db.get(FolderRow, row.folder) if row is not None else None
        if row is None or folder is None or row.user != user.name:
            raise errors.NotFound(S("There is no such upload; it may have been given up."))
        return row, folder

    async def _begun(self, tx: Transaction, ref: str, path: str, length: int, ident: str) -> UploadRow:
        """Its row, when the person may write there and all of it has room."""
        folder = await tx.folder(ref)
        must_be_ready(folder)
        rights.must_write(tx.user, folder, await rights.grants(tx.db, folder.id))
        mine = select(func.count()).where(UploadRow.user == tx.user.name, UploadRow.finished.is_(None))
        if (await tx.db.scalar(mine) or 0) >= AT_ONCE:
            message = S("You have {count} unfinished uploads; finish or end some first.", count=AT_ONCE)
            raise Refused(Reason(code="conflict", message=message))
        await room.must_fit(tx, length, folder.project, folder.owner, folder)
        row = UploadRow(
            id=ident, folder=folder.id, path=path, length=length, user=tx.user.name, created=tx.now,
            expires=tx.now + LASTS, finished=None,
        )  # fmt: skip
        tx.db.add(row)
        await tx.db.flush()
        return row

    async def _finish(self, user: User, row: UploadRow) -> None:
        """All has arrived: the file goes to its place. When it can't just now, the upload stays complete, and another
        (empty) request tries again."""

        async def lands(tx: Transaction) -> Callable[[], None]:
            await self._landing(tx, row.id)
            return lambda: None

        _, folder = await self._mine(user, row.id)
        asked = UploadFile(folder=f"{folder.project}/{folder.name}", path=row.path, size=row.length)
        await surely(self._noted(user, asked, self._core.writer.alone(user, lands)))
        root = self._volumes().root
        await surely(asyncio.to_thread(incoming.forget, root, row.id))

    async def _landing(self, tx: Transaction, ident: str) -> None:
        row = await tx.db.get(UploadRow, ident)
        folder = await tx.db.get(FolderRow, row.folder) if row is not None else None
        if row is None or row.finished is not None:
            return
        if folder is None or folder.trash_id is not None:
            message = S("The folder of {path} is in the trash; restore it, and the upload can be finished.",
                        path=row.path)  # fmt: skip
            raise Refused(Reason(code="conflict", message=message))
        rights.must_write(tx.user, folder, await rights.grants(tx.db, folder.id))
        volumes, parts = self._volumes(), parts_of(row.path)
        top = volumes.path(folder.project, folder.name)
        before = await asyncio.to_thread(incoming.replaces, top, parts)
        folder.size = max(0, folder.size - before) + row.length
        folder.modified, row.finished = tx.now, tx.now
        tx.on_disk(
            lambda _: incoming.land(volumes.root, ident, top, parts),
            lambda _: incoming.take_back(volumes.root, ident, top, parts),
        )
        self._to_journal(tx, row, folder)
        words = {"user": tx.user.name, "path": row.path, "name": folder.name}
        message = S("{user} uploaded {path} to folder {name}.", **words)
        tx.event("file_uploaded", folder.name, message, owner=folder.owner, project=folder.project)

    def _to_journal(self, tx: Transaction, row: UploadRow, folder: FolderRow) -> None:
        told = UploadFile(folder=f"{folder.project}/{folder.name}", path=row.path, size=row.length)
        targets = [f"{folder.name}/{row.path}"]
        self._core.draft.audit(tx.now, row.user, told.op, told.model_dump_json(), targets, None)

    async def _noted(self, user: User, asked: UploadFile, work: Awaitable[T]) -> T:
        """What is refused is in the journal, and is told as the error that a route answers with."""
        try:
            return await work
        except Refused as e:
            await self._core.refusals.note(user, asked, e.reasons, "refused")
            full = any(reason.code == "quota" for reason in e.reasons)
            raise (errors.StorageFull if full else errors.Conflict)(e.reasons[0].message) from e
        except errors.ClusterError as e:
            await self._core.refusals.note(user, asked, reasons_of(e), "failed" if e.status >= 500 else "refused")
            raise

    async def _forget(self, idents: list[str], late: bool = False) -> None:
        """Rows first: a row without a file would be one that has landed."""

        async def forgets(tx: Transaction) -> Callable[[], None]:
            query = select(UploadRow, FolderRow).join(FolderRow).where(UploadRow.id.in_(idents))
            for row, folder in await tx.db.execute(query):
                await tx.db.delete(row)
                if late and row.finished is None:
                    message = S("Nothing came of {path} for a day; its upload to {name} was given up.", path=row.path,
                                name=folder.name)  # fmt: skip
                    whose = {"owner": folder.owner, "project": folder.project}
                    tx.event("upload_given_up", folder.name, message, "warning", **whose)
            return lambda: None

        await self._core.writer.alone(self._core.system, forgets)
        root = self._volumes().root
        for ident in idents:
            await asyncio.to_thread(incoming.forget, root, ident)

    # ── the keeper ───────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """In step with the disk again: what has landed is finished, what is nobody's is removed."""
        volumes = self._core.volumes
        if volumes is None:
            return
        root = volumes.root
        async with self._core.db.read() as db:
            open_ones = {*await db.scalars(select(UploadRow.id).where(UploadRow.finished.is_(None)))}
        gone = {ident for ident in open_ones if not incoming.place(root, ident).exists()}
        if gone:
            await self._core.writer.alone(self._core.system, partial(self._mends, gone, volumes))
        await asyncio.to_thread(incoming.sweep, root, open_ones - gone)

    async def _mends(self, idents: set[str], volumes: Volumes, tx: Transaction) -> Callable[[], None]:
        """Those without a file of their own have landed, and the commit did not come to pass: that is written down now.
        Or they are gone."""
        query = select(UploadRow, FolderRow).join(FolderRow).where(UploadRow.id.in_(idents))
        for row, folder in (await tx.db.execute(query)).all():
            top = volumes.place(folder.project, folder.name, folder.trash_id)
            if await asyncio.to_thread(incoming.landed, top, parts_of(row.path), row.length):
                row.finished = folder.modified = tx.now
                folder.size += row.length  # what it may have replaced is found at the next counting
                self._to_journal(tx, row, folder)
            else:
                await tx.db.delete(row)
        return lambda: None

    async def step(self) -> bool:
        now = self._core.clock.now()
        if self._core.volumes is None or (self._cleared and timedelta(0) <= now - self._cleared < CLEAR_EVERY):
            return False
        self._cleared = now
        query = select(UploadRow.id).where(UploadRow.expires < now)
        async with self._core.db.read() as db:
            late = [ident for ident in await db.scalars(query.limit(AT_ONCE)) if ident not in self._busy]
        if late:
            await self._forget(late, late=True)
        return bool(late)

    def due(self) -> datetime | None:
        return None

    @property
    def receiving(self) -> int:
        """Uploads that somebody is at just now."""
        return len(self._busy)

    async def close(self) -> None:
        """End those under way as if their connections had broken."""
        tasks = [*self._busy.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _volumes(self) -> Volumes:
        if self._core.volumes is None:
            raise errors.Unavailable(S("In a simulated cluster, files have names and sizes, but no contents."))
        return self._core.volumes


async def surely(work: Awaitable[T]) -> T:
    """`work` to its end, even when this task is cancelled; the cancellation comes after it."""
    task, cancelled = asyncio.ensure_future(work), False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    return task.result()


async def _in_time(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same, but silence ends in a TimeoutError."""
    more = partial(anext, aiter(chunks), b"")
    while True:
        async with asyncio.timeout(IDLE):
            chunk = await more()
        if not chunk:
            return
        yield chunk


def _full(e: OSError, path: str) -> errors.ClusterError:
    return errors.StorageFull(
        S("{path} can't be written ({why}); what has arrived is kept.", path=path, why=e.strerror or str(e))
    )


def _let_go(handle: int) -> None:
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
