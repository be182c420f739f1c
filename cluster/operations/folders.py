"""Folders: rows here, directories in `cluster.storage`. The directory moves just before the commit and is put in
step with its row again at start-up (`reconcile`), so that a crash in between leaves nothing half-done."""

import asyncio
import contextlib

from sqlalchemy import select

from cluster import access
from cluster.db.tables import FolderRow
from cluster.errors import ClusterError
from cluster.models import CreateFolder, DeleteFolder, Effect, Reason, RestoreFolder
from cluster.operations.sessions import project_of
from cluster.records import TRASH_DAYS
from cluster.sentence import S
from cluster.storage.volumes import Volumes, checked
from cluster.transaction import Done, Refused, Transaction
from cluster.units import human_size


def trash_id(row: FolderRow) -> str:
    """A folder is in the trash at most once, so its row's id names it there."""
    return f"folder-{row.id}"


async def create(tx: Transaction, op: CreateFolder) -> Done:
    name, project = checked(op.name), project_of(tx, op.project)
    await _free(tx, project, name)
    row = FolderRow(
        name=name,
        project=project,
        owner=tx.user.name,
        size=0,
        quota=op.quota,
        trash_id=None,
        created=tx.now,
        modified=tx.now,
    )
    tx.db.add(row)
    await tx.db.flush()
    tx.on_disk(lambda v: v.create(project, name), lambda v: _unmake(v, project, name))
    tx.event("folder_created", name, S("{user} created folder {name}.", user=tx.user.name, name=name))
    limit = human_size(op.quota) if op.quota else ""
    message = (
        S("Folder {name} is made in project {project}, for at most {limit}.", name=name, project=project, limit=limit)
        if limit
        else S("Folder {name} is made in project {project}.", name=name, project=project)
    )
    return Done(
        effects=[Effect(kind="creates", target=name, message=message)],
        targets=[name],
        undo=S("undo moves it to the trash."),
        inverse={"op": "delete_folder", "folder": f"{project}/{name}"},
    )


async def delete(tx: Transaction, op: DeleteFolder) -> Done:
    """To the trash, kept for seven days. Refused while a live session mounts it."""
    row = await tx.folder(op.folder)
    access.must_own(tx.user, row.name, row.owner, row.project)
    users = _mounted_by(tx, row)
    if users:
        message = S("{folder} is mounted by {sessions}; stop them first.", folder=row.name, sessions=", ".join(users))
        raise Refused(Reason(code="conflict", message=message, ahead=users))
    size = row.size
    if tx.volumes is not None:
        size = row.size = await asyncio.to_thread(tx.volumes.size, row.project, row.name)
    row.trash_id, row.trashed_at = trash_id(row), tx.now
    where, project, name = trash_id(row), row.project, row.name
    tx.on_disk(lambda v: v.trash(project, name, where), lambda v: v.restore(where, project, name))
    tx.event(
        "folder_deleted", row.name, S("{user} moved folder {name} to the trash.", user=tx.user.name, name=row.name)
    )
    message = S(
        "{folder} ({size}) goes to the trash and is kept there for {days} days.",
        folder=row.name,
        size=human_size(size),
        days=TRASH_DAYS,
    )
    owner = row.owner if row.owner != tx.user.name else None
    return Done(
        effects=[Effect(kind="removes", target=row.name, message=message, owner=owner)],
        targets=[row.name],
        undo=S("undo, or restore_folder, puts it back within {days} days.", days=TRASH_DAYS),
        inverse={"op": "_untrash", "folder": row.id},
    )


async def restore(tx: Transaction, op: RestoreFolder) -> Done:
    return await untrash(tx, (await tx.folder(op.folder, trashed=True)).id)


async def untrash(tx: Transaction, ident: int) -> Done:
    """Back from the trash. Refused when its name is taken by now, or when it was purged."""
    row = await tx.db.get(FolderRow, ident)
    if row is None or row.trash_id is None:
        raise Refused(Reason(code="not_found", message=S("The folder is not in the trash any more.")))
    access.must_own(tx.user, row.name, row.owner, row.project)
    await _free(tx, row.project, row.name)
    where, project, name = row.trash_id, row.project, row.name
    row.trash_id = row.trashed_at = None
    await tx.db.flush()
    tx.on_disk(lambda v: v.restore(where, project, name), lambda v: v.trash(project, name, where))
    tx.event("folder_restored", row.name, S("{user} restored folder {name}.", user=tx.user.name, name=row.name))
    message = S(
        "{folder} ({size}) is back in project {project}.",
        folder=row.name,
        size=human_size(row.size),
        project=row.project,
    )
    return Done(
        effects=[Effect(kind="restores", target=row.name, message=message)],
        targets=[row.name],
        undo=S("undo moves it to the trash again."),
        inverse={"op": "delete_folder", "folder": f"{row.project}/{row.name}"},
    )


async def _free(tx: Transaction, project: str, name: str) -> None:
    query = select(FolderRow).where(FolderRow.project == project, FolderRow.name == name, FolderRow.trash_id.is_(None))
    if await tx.db.scalar(query) is not None:
        message = S("Project {project} has a folder {name} already; give another name.", project=project, name=name)
        raise Refused(Reason(code="conflict", message=message))


def _mounted_by(tx: Transaction, row: FolderRow) -> list[str]:
    place = f"{row.project}/{row.name}"
    return sorted(session.name for session in tx.ledger.sessions.values() if place in session.mounts)


def _unmake(volumes: Volumes, project: str, name: str) -> None:
    """Take back a directory that was just made; one with something in it stays."""
    with contextlib.suppress(OSError):
        volumes.path(project, name).rmdir()


def reconcile(rows: list[FolderRow], volumes: Volumes) -> None:
    """After a crash: put each directory where its row says. Blocks; call it in a thread, before the server answers."""
    for row in rows:
        try:
            if row.trash_id is not None:
                volumes.trash(row.project, row.name, row.trash_id)
            elif not volumes.exists(row.project, row.name):
                _bring_back(row, volumes)
        except ClusterError:
            continue  # neither place has it: nothing to put in step; the folder's reads will say so


def _bring_back(row: FolderRow, volumes: Volumes) -> None:
    try:
        volumes.restore(trash_id(row), row.project, row.name)
    except ClusterError:
        volumes.create(row.project, row.name)
