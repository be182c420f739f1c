"""Who may use a folder: its owner and project as ever, and whoever it is shared with. The judgement is `access`'s."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from cluster import access
from cluster.db.tables import FolderRow, GrantRow
from cluster.errors import NotAllowed
from cluster.models import User
from cluster.sentence import S

Permission = Literal["read", "write"]
Grants = Mapping[int, Sequence[GrantRow]]
"""By the folder's id."""


async def grants(db: AsyncSession, folder: int | None = None) -> Grants:
    """Of one folder, or of all."""
    query = select(GrantRow).order_by(GrantRow.folder, GrantRow.scope, GrantRow.name)
    if folder is not None:
        query = query.where(GrantRow.folder == folder)
    found: defaultdict[int, list[GrantRow]] = defaultdict(list)
    for row in await db.scalars(query):
        found[row.folder].append(row)
    return found


def granted(user: User, given: Iterable[GrantRow]) -> Permission | None:
    """The strongest that is given to the person or to one of their projects."""
    mine = {g.permission for g in given if g.name in ((user.name,) if g.scope == "user" else user.projects)}
    return "write" if "write" in mine else "read" if "read" in mine else None


def sees(user: User, row: FolderRow, known: Grants) -> bool:
    return access.sees_folder(user, row.owner, row.project, granted(user, known.get(row.id, ())))


def writes(user: User, row: FolderRow, known: Grants) -> bool:
    return access.writes_folder(user, row.owner, row.project, granted(user, known.get(row.id, ())))


def must_write(user: User, row: FolderRow, known: Grants) -> None:
    if not writes(user, row, known):
        raise NotAllowed(
            S("{folder} is shared with you to read only; {owner} may let you write.", folder=row.name, owner=row.owner)
        )


def names(rows: Iterable[FolderRow]) -> list[str]:
    """How people may name them: by the name alone, but `project/name` where several have it."""
    of: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        of[row.name].add(row.project)
    return sorted(name if len(projects) == 1 else f"{project}/{name}" for name, projects in of.items()
                  for project in projects)  # fmt: skip
