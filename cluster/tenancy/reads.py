"""Who there is, and what they may use: as far as the asking person may see it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import select

from cluster import access
from cluster.db.tables import FolderRow, ImageRow, QuotaRow, TokenRow
from cluster.directory import Directory
from cluster.errors import NotAllowed
from cluster.ledger import Ledger
from cluster.live import LiveSession
from cluster.models import Image, Member, Page, Project, QuotaUse, Resources, Token, User
from cluster.sentence import S
from cluster.tenancy.known import no_project, no_user, projects_seen, users_seen

if TYPE_CHECKING:
    from cluster.core import Core


class People:
    """Users, projects, images, quotas and tokens, filtered by what the asking person may see."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    async def users(self, asking: User) -> Page[User]:
        """Of others, the projects that the asking person sees too; and their e-mail, if they share one."""
        directory = await self._core.fresh_directory()
        found = [seen_as(asking, directory.users[name]) for name in users_seen(directory, asking)]
        return Page(items=found, total=len(found))

    async def projects(self, asking: User) -> Page[Project]:
        directory = await self._core.fresh_directory()
        found = [_project(directory, name) for name in projects_seen(directory, asking)]
        return Page(items=found, total=len(found))

    async def images(self) -> Page[Image]:
        async with self._core.db.read() as db:
            rows = await db.scalars(select(ImageRow).order_by(ImageRow.name))
            found = [Image(name=row.name, registry=row.origin) for row in rows]
        return Page(items=found, total=len(found))

    async def tokens(self, asking: User, of: str | None) -> Page[Token]:
        """One's own; those of another, or of the agents (""), for whoever has the right to them."""
        owner = asking.name if of is None else of
        if not access.has_token_rights(asking, owner):
            access.must_be_admin(asking)
        async with self._core.db.read() as db:
            rows = (await db.scalars(select(TokenRow).where(TokenRow.owner == owner))).all()
        dated = sorted(rows, key=lambda row: (str(row.created or ""), row.id))
        found = [Token(id=r.id, user=r.owner, name=r.name, created=r.created, expires=r.expires) for r in dated]
        return Page(items=found, total=len(found))

    # ── quotas ───────────────────────────────────────────────────────────────────────────────────

    async def quotas(self, asking: User, of_user: str | None, of_project: str | None) -> Page[QuotaUse]:
        """Asked for nobody: the asking person's own and those of their projects. Use is the sum of allocations."""
        directory = await self._core.fresh_directory()
        wanted = [("user", _seen_user(asking, directory, of_user))] if of_user else []
        wanted += [("project", _seen_project(asking, directory, of_project))] if of_project else []
        if not wanted:
            wanted = [("user", asking.name), *(("project", p) for p in asking.projects)]
        async with self._core.db.read() as db:
            folders = (await db.scalars(select(FolderRow).where(FolderRow.trash_id.is_(None)))).all()
        async with self._core.still() as ledger:
            rows = self._core.directory.quotas
            found = [self.use_of(ledger, rows.get(key) or _none(*key), folders) for key in wanted]
        return Page(items=found, total=len(found))

    def use_of(self, ledger: Ledger, row: QuotaRow, folders: Sequence[FolderRow] = ()) -> QuotaUse:
        """A quota, and what is held and stored under it; called between two commits."""
        mine = [session for session in ledger.holding.values() if _is_of(session, row)]
        held = [rank for session in mine for rank in session.ranks]
        stored = (f.size for f in folders if (f.owner if row.scope == "user" else f.project) == row.name)
        used = Resources(
            cpu=sum(rank.cpu for rank in held),
            memory=sum(rank.memory for rank in held),
            gpu=sum(sum(rank.devices.values()) for rank in held),
        )
        return QuotaUse(
            scope="user" if row.scope == "user" else "project",
            name=row.name,
            cpu=row.cpu,
            memory=row.memory,
            gpu=row.gpu,
            storage=row.storage,
            sessions=row.sessions,
            borrow_cpu=row.borrow_cpu,
            borrow_memory=row.borrow_memory,
            borrow_gpu=row.borrow_gpu,
            used=used,
            used_storage=sum(stored),
            used_sessions=len(mine),
        )


def _is_of(session: LiveSession, row: QuotaRow) -> bool:
    return (session.user if row.scope == "user" else session.project) == row.name


def _none(scope: str, name: str) -> QuotaRow:
    """No limit at all."""
    return QuotaRow(scope=scope, name=name)


def seen_as(asking: User, user: User) -> User:
    """`user`, as the asking person may see them."""
    projects = [project for project in user.projects if access.sees_project(asking, project)]
    leads = [project for project in user.leads if project in projects]
    known = bool(projects) or user.name == asking.name or access.is_admin(asking)
    return user.model_copy(update={"projects": projects, "leads": leads, "email": user.email if known else None})


def _project(directory: Directory, name: str) -> Project:
    inside = [user for user in directory.users.values() if name in user.projects]
    return Project(
        name=name,
        description=directory.projects[name].description,
        cohort=directory.projects[name].cohort,
        users=[user.name for user in inside],
        members=[Member(user=user.name, role="project_admin" if name in user.leads else "user") for user in inside],
    )


def _seen_user(asking: User, directory: Directory, name: str) -> str:
    """Whose use may be seen. Whoever may not be seen at all is as unknown as one who does not exist."""
    user = directory.users.get(name)
    if user is None or not access.sees_user(asking, name, user.projects):
        raise no_user(name, users_seen(directory, asking))
    if not access.sees_usage(asking, name, user.projects):
        raise NotAllowed(S("Only {user}, an admin of a project of theirs or an admin may see this quota.", user=name))
    return name


def _seen_project(asking: User, directory: Directory, name: str) -> str:
    if name not in directory.projects or not access.sees_project(asking, name):
        raise no_project(name, projects_seen(directory, asking))
    return name
