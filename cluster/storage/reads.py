"""What can be asked of folders."""

import asyncio
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from cluster import access, records
from cluster.db.tables import FolderRow
from cluster.models import Folder, Page, User
from cluster.paging import Order, cut

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


class Folders:
    """One method for each reading route, filtered by what the asking person may see."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    async def folders(self, user: User, query: FolderQuery) -> Page[Folder]:
        wanted = FolderRow.trash_id.is_not(None) if query.trashed else FolderRow.trash_id.is_(None)
        async with self._core.db.read() as db:
            rows = [
                r for r in await db.scalars(select(FolderRow).where(wanted)) if access.sees(user, r.owner, r.project)
            ]
        if self._core.volumes is not None and not query.trashed:
            for row in rows:
                row.size = await asyncio.to_thread(self._core.volumes.size, row.project, row.name)
        found = [records.folder(r) for r in rows]
        found = [f for f in found if query.project in (None, f.project) and query.user in (None, f.owner)]
        return cut(found, lambda f: getattr(f, query.sort_by), query.order, query.sort_by, query.limit)
