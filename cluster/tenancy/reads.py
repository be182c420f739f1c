"""Who there is, and what they may use."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import select

from cluster import access
from cluster.db.tables import FolderRow, ImageRow
from cluster.directory import Directory
from cluster.errors import NotAllowed
from cluster.ledger import Ledger
from cluster.models import Image, Page, Project, QuotaUse, Resources, User
from cluster.sentence import S

if TYPE_CHECKING:
    from cluster.core import Core


class People:
    """Users, projects, images and quotas, filtered by what the asking person may see."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    async def users(self) -> Page[User]:
        found = [*(await self._core.fresh_directory()).users.values()]
        return Page(items=found, total=len(found))

    async def projects(self) -> Page[Project]:
        directory = await self._core.fresh_directory()
        members = {p: [u.name for u in directory.users.values() if p in u.projects] for p in directory.projects}
        found = [Project(name=name, users=users) for name, users in members.items()]
        return Page(items=found, total=len(found))

    async def images(self) -> Page[Image]:
        async with self._core.db.read() as db:
            found = [Image(name=n) for n in await db.scalars(select(ImageRow.name).order_by(ImageRow.name))]
        return Page(items=found, total=len(found))

    async def quotas(self, user: User, of_user: str | None, of_project: str | None) -> Page[QuotaUse]:
        """Asked for nobody: the asking person's own and those of their projects. Use is the sum of allocations."""
        if of_user not in (None, user.name) and not access.is_admin(user):
            raise NotAllowed(S("Only an admin may see the quota of {user}.", user=of_user or ""))
        if of_project is not None:
            access.must_be_in(user, of_project)
        wanted = [("user", of_user)] if of_user else []
        wanted += [("project", of_project)] if of_project else []
        if not wanted:
            wanted = [("user", user.name), *(("project", p) for p in user.projects)]
        async with self._core.db.read() as db:
            folders = (await db.scalars(select(FolderRow).where(FolderRow.trash_id.is_(None)))).all()
        async with self._core.still() as ledger:
            found = [_quota(ledger, self._core.directory, folders, scope, name) for scope, name in wanted if name]
        return Page(items=found, total=len(found))


def _quota(ledger: Ledger, directory: Directory, folders: Sequence[FolderRow], scope: str, name: str) -> QuotaUse:
    limit = directory.quotas.get((scope, name))
    mine = [s for s in ledger.holding.values() if (s.user if scope == "user" else s.project) == name]
    held = [rank for session in mine for rank in session.ranks]
    used = Resources(
        cpu=sum(a.cpu for a in held), memory=sum(a.memory for a in held), gpu=sum(sum(a.devices.values()) for a in held)
    )
    return QuotaUse(
        scope="user" if scope == "user" else "project",
        name=name,
        cpu=limit.cpu if limit else None,
        memory=limit.memory if limit else None,
        gpu=limit.gpu if limit else None,
        storage=limit.storage if limit else None,
        sessions=limit.sessions if limit else None,
        used=used,
        used_storage=sum(f.size for f in folders if (f.owner if scope == "user" else f.project) == name),
        used_sessions=len(mine),
    )
