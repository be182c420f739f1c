"""Is there room? A folder's quota, and what its project and its owner may store in all.

What counts: every folder outside the trash with its size, and every upload under way with the whole length that it
announced. A clone counts with the size of what it copies from its first moment on.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from cluster.db.tables import FolderRow, UploadRow
from cluster.directory import Directory
from cluster.models import Reason
from cluster.sentence import S, Sentence
from cluster.transaction import Refused, Transaction
from cluster.units import human_size


@dataclass(frozen=True)
class Account:
    """Something with a limit. Bytes; no limit is None."""

    kind: str
    """folder, project, user."""
    name: str
    limit: int | None
    used: int


def short(accounts: Iterable[Account], more: int) -> list[Reason]:
    """Why `more` bytes do not fit; empty when they do."""
    return [_reason(a, a.limit, more) for a in accounts if a.limit is not None and a.used + more > a.limit]


def _reason(account: Account, limit: int, more: int) -> Reason:
    message = _sentence(account, limit, more)
    free = max(0, limit - account.used)
    return Reason(code="quota", message=message, resource="storage", asked=float(more), available=float(free))


def _sentence(account: Account, limit: int, more: int) -> Sentence:
    words = {"name": account.name, "limit": human_size(limit), "used": human_size(account.used)}
    size = human_size(more)
    match account.kind:
        case "folder":
            return S("{size} more do not fit into {name}: {used} of {limit} are used.", size=size, **words)
        case "project":
            return S("{size} more do not fit into project {name}: {used} of {limit} are used.", size=size, **words)
        case _:
            return S("{size} more are above the quota of {name}: {used} of {limit} are used.", size=size, **words)


async def accounts(
    db: AsyncSession, directory: Directory, project: str, owner: str, folder: FolderRow | None = None
) -> list[Account]:
    """Those that a folder of `owner` in `project` counts in, with what they hold now."""
    found = []
    if folder is not None:
        found.append(Account("folder", folder.name, folder.quota, folder.size + await announced(db, folder.id)))
    for scope, name, column in (("project", project, FolderRow.project), ("user", owner, FolderRow.owner)):
        quota = directory.quotas.get((scope, name))
        if quota is not None and quota.storage is not None:
            here = (column == name, FolderRow.trash_id.is_(None))
            stored = await db.scalar(select(func.coalesce(func.sum(FolderRow.size), 0)).where(*here))
            coming = _coming().join(FolderRow).where(*here)
            used = int(stored or 0) + int(await db.scalar(coming) or 0)
            found.append(Account(scope, name, quota.storage, used))
    return found


async def announced(db: AsyncSession, folder: int) -> int:
    """Bytes of the uploads under way into it."""
    return int(await db.scalar(_coming().where(UploadRow.folder == folder)) or 0)


def _coming() -> Select[int]:
    return select(func.coalesce(func.sum(UploadRow.length), 0)).where(UploadRow.finished.is_(None))


async def must_fit(tx: Transaction, more: int, project: str, owner: str, folder: FolderRow | None = None) -> None:
    """Raises `Refused` with all that is short."""
    if reasons := short(await accounts(tx.db, tx.core.directory, project, owner, folder), more):
        raise Refused(*reasons)
