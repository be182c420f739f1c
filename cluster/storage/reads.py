"""What can be asked of folders, and of the files in them."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from cluster.db.tables import FolderRow
from cluster.errors import Conflict, Unavailable
from cluster.models import FilePage, Folder, FolderGrant, Page, Reason, User
from cluster.paging import Order, cut
from cluster.records import folder as plain
from cluster.sentence import S
from cluster.storage import beneath, files, rights
from cluster.storage.beneath import parts_of
from cluster.transaction import Transaction

if TYPE_CHECKING:
    from cluster.core import Core


class FolderQuery(BaseModel):
    """Filters of GET /v1/folders."""

    model_config = ConfigDict(extra="forbid")

    project: str | None = None
    user: str | None = None
    trashed: bool = False
    sort_by: Literal["name", "size", "modified"] = "name"
    order: Order | None = None
    limit: int = Field(default=50, ge=1, le=1000)


class FileQuery(BaseModel):
    """Filters of GET /v1/folders/{ref}/files. `project`: of the folder, where two have the name."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(default="", max_length=4096)
    project: str | None = None
    sort_by: Literal["name", "size", "modified"] = "name"
    order: Order | None = None
    offset: int = Field(default=0, ge=0, le=2**31)
    limit: int = Field(default=100, ge=1, le=1000)


@dataclass(frozen=True)
class Opened:
    """A regular file in a folder, open for reading: whoever gets this closes `handle`."""

    handle: int
    name: str


class Folders:
    """One method for each reading route, filtered by what the asking person may see."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    async def folders(self, user: User, query: FolderQuery) -> Page[Folder]:
        wanted = FolderRow.trash_id.is_not(None) if query.trashed else FolderRow.trash_id.is_(None)
        async with self._core.db.read() as db:
            rows = (await db.scalars(select(FolderRow).where(wanted))).all()
            known = await rights.grants(db)
        found = [shown(user, r, known) for r in rows if rights.sees(user, r, known)]
        found = [f for f in found if query.project in (None, f.project) and query.user in (None, f.owner)]
        return cut(found, lambda f: getattr(f, query.sort_by), query.order, query.sort_by, query.limit)

    async def files(self, user: User, ref: str, query: FileQuery) -> FilePage:
        """The names in a directory of a folder."""
        row, parts = await self.row(user, ref, query.project), parts_of(query.path)
        if self._core.volumes is None:
            entries, complete = files.simulated(row.name, row.contents, parts), True
        else:
            top = self._core.volumes.path(row.project, row.name)
            entries, complete = await asyncio.to_thread(files.entries, top, parts)
        upwards = query.order == "asc" if query.order else query.sort_by == "name"
        entries.sort(key=lambda e: files.key(e, query.sort_by), reverse=not upwards)
        return FilePage(
            folder=f"{row.project}/{row.name}",
            path="/".join(parts),
            items=entries[query.offset : query.offset + query.limit],
            offset=query.offset,
            total=len(entries),
            complete=complete,
        )

    async def open_file(self, user: User, ref: str, project: str | None, path: str) -> Opened:
        """A file to be read. Raises `NotFound`, `Conflict` (not a regular file)."""
        row, parts = await self.row(user, ref, project), parts_of(path)
        handle = await asyncio.to_thread(beneath.file, self._directory(row), parts)
        return Opened(handle, parts[-1])

    async def row(self, user: User, ref: str, project: str | None) -> FolderRow:
        """The folder meant, if the person may see it and it can be used."""
        tx = Transaction(self._core, user, self._core.clock.now(), dry_run=True)
        row = await tx.folder(f"{project}/{ref}" if project else ref)
        if row.state != "ready":
            raise Conflict(S("{folder} is not complete; its files can be read when it is.", folder=row.name))
        return row

    def _directory(self, row: FolderRow) -> Path:
        if self._core.volumes is None:
            raise Unavailable(S("In a simulated cluster, files have names and sizes, but no contents."))
        return self._core.volumes.path(row.project, row.name)


def shown(user: User, row: FolderRow, known: rights.Grants) -> Folder:
    """The folder as the asking person sees it, with its shares."""
    grants = [FolderGrant.model_validate({"scope": g.scope, "name": g.name, "permission": g.permission})
              for g in known.get(row.id, ())]  # fmt: skip
    more = {
        "state": row.state,
        "reasons": [Reason.model_validate(reason) for reason in row.reasons],
        "permission": "write" if rights.writes(user, row, known) else "read",
        "shared": grants,
    }
    return plain(row).model_copy(update=more)
