"""Folders under concurrent use: whatever several people do at the same time, quotas hold and nothing is lost or half.

Every file is called by what it holds (`<seed>-<length>`), so that a half or mixed one is recognised wherever it lies.
"""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import select

from cluster.clock import VirtualClock
from cluster.core import Core
from cluster.db.tables import FolderRow, MemberRow, ProjectRow, QuotaRow, UploadRow, UserRow
from cluster.errors import ClusterError
from cluster.models import (
    CloneFolder,
    CreateFolder,
    DeleteFolder,
    Operation,
    OperationRequest,
    RestoreFolder,
    SetFolderQuota,
    ShareFolder,
    UnshareFolder,
)

T = TypeVar("T")
PROJECTS = {"ann": "red", "bob": "red", "eve": "blue"}
LIMIT = 4000
"""Bytes that project red may store."""
FOLDER = 2500
"""Bytes that a folder with a quota may hold."""


def contents(name: str) -> bytes:
    seed, length = name.split("-")
    return (seed.encode() + b".") * int(length) if int(length) else b""


class Store:
    """A cluster's storage and what is known of it."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.clock = VirtualClock(datetime(2026, 3, 2, tzinfo=UTC))
        self.known: dict[int, dict[str, bytes]] = {}
        """What each folder held, wherever it lay; that only grows."""
        self.count = 0

    async def found(self) -> None:
        self.core = await self._open()
        async with self.core.db.write() as db:
            db.add_all([ProjectRow(name=p) for p in ("red", "blue")] + [UserRow(name=u) for u in PROJECTS])
            await db.flush()
            db.add_all([MemberRow(project=p, user=u) for u, p in PROJECTS.items()])
            db.add(QuotaRow(scope="project", name="red", storage=LIMIT))

    async def _open(self) -> Core:
        return await Core.open(self.where / "cluster.db", clock=self.clock, data_dir=self.where, name="store")

    async def restart(self) -> None:
        await self.core.close()
        self.core = await self._open()

    async def do(self, user: str, operation: Operation) -> None:
        await self.core.execute(await self.core.user(user), OperationRequest(operation=operation))

    async def upload(self, user: str, folder: str, length: int, part: float) -> None:
        """A part of a new file, or all of it."""
        self.count += 1
        name = f"{self.count:03}-{length}"
        data, asking = contents(name), await self.core.user(user)
        try:
            made = await self.core.uploads.create(asking, folder, name, len(data))
            await self.core.uploads.receive(asking, made.id, 0, pieces(data[: int(len(data) * part)]))
        except ClusterError:
            return

    async def go_on(self, number: int) -> None:
        """The rest of one that was left."""
        async with self.core.db.read() as db:
            rows = (
                await db.scalars(select(UploadRow).where(UploadRow.finished.is_(None)).order_by(UploadRow.id))
            ).all()
        if not rows:
            return
        row = rows[number % len(rows)]
        asking = await self.core.user(row.user)
        try:
            at = (await self.core.uploads.look(asking, row.id)).offset
            await self.core.uploads.receive(asking, row.id, at, pieces(contents(row.path)[at:]))
        except ClusterError:
            return

    async def pass_on(self) -> None:
        """What time brings, with every copy and count to its end."""
        for _ in range(3):
            await self.core.schedule_pass()
            await self.core.clones.rest()
            await self.core.measures.rest()

    async def check(self) -> None:
        async with self.core.db.read() as db:
            rows = list(await db.scalars(select(FolderRow)))
            uploads = list(await db.scalars(select(UploadRow).where(UploadRow.finished.is_(None))))
        self._check_places(rows)
        self._check_contents(rows)
        _check_room(rows, uploads, self.where / "volumes")

    def _check_places(self, rows: list[FolderRow]) -> None:
        """Row and directory are in step, and there are no others."""
        root = self.where / "volumes"
        wanted = {_place(root, r) for r in rows if r.state == "ready"}
        there = {p for top in ("red", "blue", ".trash") for p in (root / top).glob("*")}
        assert there == wanted

    def _check_contents(self, rows: list[FolderRow]) -> None:
        """Every file is whole, nothing that was there is gone, and no folder is lost."""
        assert self.known.keys() <= {r.id for r in rows}
        for row in rows:
            if row.state != "ready":
                continue
            now = {p.name: p.read_bytes() for p in _place(self.where / "volumes", row).iterdir()}
            assert all(data == contents(name) for name, data in now.items())
            assert self.known.get(row.id, {}).items() <= now.items()
            self.known[row.id] = now


def _place(root: Path, row: FolderRow) -> Path:
    return root / ".trash" / row.trash_id if row.trash_id else root / row.project / row.name


def _check_room(rows: list[FolderRow], uploads: list[UploadRow], root: Path) -> None:
    """Neither what is said nor what is there is above a quota."""
    live = [r for r in rows if r.trash_id is None]
    coming = {r.id: sum(u.length for u in uploads if u.folder == r.id) for r in live}
    assert sum(r.size + coming[r.id] for r in live if r.project == "red") <= LIMIT
    for row in live:
        assert row.quota is None or row.size + coming[row.id] <= row.quota
        if row.state == "ready":
            assert sum(p.stat().st_size for p in _place(root, row).iterdir()) == row.size


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 100):
        await asyncio.sleep(0)
        yield data[at : at + 100]


WHO = st.sampled_from([*PROJECTS])
NAME = st.sampled_from(["a", "a", "a", "b", "c"])
AMOUNT = st.sampled_from([600, 400, 300, 50, 0])
OPERATION = st.one_of(
    st.builds(CreateFolder, name=NAME, quota=st.sampled_from([None, FOLDER])),
    st.builds(DeleteFolder, folder=NAME),
    st.builds(RestoreFolder, folder=NAME),
    st.builds(CloneFolder, folder=NAME, name=NAME),
    st.builds(ShareFolder, folder=NAME, permission=st.sampled_from(["read", "write"]), user=st.just("eve")),
    st.builds(UnshareFolder, folder=NAME),
)
UPLOAD = st.tuples(st.just("upload"), WHO, NAME, AMOUNT, st.sampled_from([0.5, 1.0, 0.0]))
DEED = st.one_of(
    UPLOAD,
    st.tuples(st.just("do"), WHO, OPERATION),
    UPLOAD,
    st.tuples(st.just("go_on"), st.integers(0, 5)),
)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.where = Path(tempfile.mkdtemp(prefix="store-"))
        self.store = Store(self.where)
        self.run(self.store.found())
        self.run(self.store.do("ann", CreateFolder(name="a", quota=FOLDER)))

    def run(self, what: Awaitable[T]) -> T:
        async def waits() -> T:
            return await what

        return self.runner.run(waits())

    def teardown(self) -> None:
        self.run(self.store.core.close())
        self.runner.close()
        shutil.rmtree(self.where)

    @rule(deeds=st.lists(DEED, min_size=1, max_size=6))
    def several_at_once(self, deeds: list[tuple[Any, ...]]) -> None:
        async def all_of_them() -> None:
            await asyncio.gather(*(getattr(self.store, deed[0])(*deed[1:]) for deed in deeds))

        self.run(all_of_them())

    @rule(seconds=st.sampled_from([1, 90]))
    def time_passes(self, seconds: int) -> None:
        self.store.clock.advance(timedelta(seconds=seconds))
        self.run(self.store.pass_on())

    @rule(quota=st.sampled_from([None, FOLDER]))
    def a_quota_is_set(self, quota: int | None) -> None:
        async def sets() -> None:
            if quota is None or all(len(c) == 0 for c in self.store.known.values()):
                await self.store.do("ann", SetFolderQuota(folder="a", quota=quota))

        self.run(sets())

    @rule()
    def the_server_starts_anew(self) -> None:
        self.run(self.store.restart())

    @invariant()
    def all_is_well(self) -> None:
        self.run(self.store.check())


TestWhateverPeopleDo = Machine.TestCase
TestWhateverPeopleDo.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
