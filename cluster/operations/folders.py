"""Folders: rows here, directories in `cluster.storage`. The directory moves just before the commit and is put in
step with its row again at start-up (`reconcile`), so that a crash in between leaves nothing half-done."""

import asyncio
import contextlib
from pathlib import Path

from sqlalchemy import select

from cluster import access
from cluster.db.tables import FolderRow, ModelRow
from cluster.errors import ClusterError
from cluster.models import CreateFolder, DeleteFolder, Effect, Reason, RestoreFolder, SetFolderQuota
from cluster.operations.sessions import project_of
from cluster.records import TRASH_DAYS
from cluster.sentence import S
from cluster.serving import store
from cluster.storage import rights, room
from cluster.storage.volumes import Volumes, checked
from cluster.tenancy import veil
from cluster.transaction import Done, Refused, Transaction
from cluster.units import human_size

COUNT_FOR = 0.25
"""Seconds that a preview may spend on counting what a folder holds; other operations wait meanwhile."""


def trash_id(row: FolderRow) -> str:
    """A folder is in the trash at most once, so its row's id names it there."""
    return f"folder-{row.id}"


async def create(tx: Transaction, op: CreateFolder) -> Done:
    name, project = checked(op.name), project_of(tx, op.project)
    await must_be_free(tx, project, name)
    await room.must_fit(tx, 0, project, tx.user.name)
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
    said = S("{user} created folder {name}.", user=tx.user.name, name=name)
    tx.event("folder_created", name, said, owner=tx.user.name, project=project)
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
    """To the trash, kept for seven days. Refused while a live session mounts it, or while it is being cloned.

    One that is being filled, or could not be, has nothing to keep: it is simply gone.
    """
    row = await tx.folder(op.folder)
    access.must_own(tx.user, row.name, row.owner, row.project)
    await _not_in_use(tx, row)
    if row.state != "ready":
        return await _give_up(tx, row)
    size = row.size = await _size_now(tx, row)
    row.trash_id, row.trashed_at = trash_id(row), tx.now
    where, project, name = trash_id(row), row.project, row.name
    tx.on_disk(lambda v: v.trash(project, name, where), lambda v: v.restore(where, project, name))
    said = S("{user} moved folder {name} to the trash.", user=tx.user.name, name=row.name)
    tx.event("folder_deleted", row.name, said, owner=row.owner, project=row.project)
    message = S(
        "{folder} ({size}) goes to the trash and is kept there for {days} days.",
        folder=row.name,
        size=human_size(size),
        days=TRASH_DAYS,
    )
    return Done(
        effects=[Effect(kind="removes", target=row.name, message=message, owner=tx.other(row.owner))],
        targets=[row.name],
        undo=S("undo, or restore_folder, puts it back within {days} days.", days=TRASH_DAYS),
        inverse={"op": "_untrash", "folder": row.id},
    )


async def _give_up(tx: Transaction, row: FolderRow) -> Done:
    """A clone that is not finished: its row goes, and its copy with it (`storage.clones`)."""
    message = S("{folder} is not filled yet; it is given up, and what was copied is removed.", folder=row.name)
    said = S("{user} gave up folder {name}.", user=tx.user.name, name=row.name)
    tx.event("folder_deleted", row.name, said, owner=row.owner, project=row.project)
    await tx.db.delete(row)
    tx.core.clones.look_again()
    effect = Effect(kind="removes", target=row.name, message=message, owner=tx.other(row.owner))
    return Done(effects=[effect], targets=[row.name])


async def _not_in_use(tx: Transaction, row: FolderRow) -> None:
    if users := mounted_by(tx, row):
        message = S("{folder} is mounted by {sessions}; stop them first.", folder=row.name, sessions=", ".join(users))
        raise Refused(Reason(code="conflict", message=message, ahead=users))
    query = select(FolderRow).where(FolderRow.source == row.id, FolderRow.state == "cloning").limit(1)
    if clone := await tx.db.scalar(query):
        message = (
            S("{folder} is being copied to {clone}; wait for that, or delete {clone} first.", folder=row.name,
              clone=clone.name)
            if rights.sees(tx.user, clone, await rights.grants(tx.db, clone.id))
            else S("{folder} is being copied by somebody; wait for that.", folder=row.name)
        )  # fmt: skip
        raise Refused(Reason(code="conflict", message=message))
    await _no_model_in(tx, row)


async def _no_model_in(tx: Transaction, row: FolderRow) -> None:
    """Refused while a model of the store is served from the folder: its endpoints read it at every start."""
    usable = select(ModelRow).where(ModelRow.state != store.FAILED).order_by(ModelRow.name)
    found = [model for model in await tx.db.scalars(usable) if _lies_in(tx, model, row)]
    if not found:
        return
    seen = next((model.name for model in found if store.sees(tx.user, model)), None)
    message = (
        S("Model {model} of the store is served from {folder}; take its installation back first (undo).", model=seen,
          folder=row.name)
        if seen
        else S("A model of the store, which you can't see, is served from {folder}; ask an admin.", folder=row.name)
    )  # fmt: skip
    raise Refused(Reason(code="conflict", message=message))


def _lies_in(tx: Transaction, model: ModelRow, row: FolderRow) -> bool:
    if tx.volumes is None:
        return model.source == f"{row.project}/{row.name}" and model.recipe.get("source") is None
    place = tx.volumes.path(row.project, row.name)
    told = (model.recipe.get("source"), model.recipe.get("launch", {}).get("env", {}).get("MODEL_PATH"))
    return any(Path(path).is_relative_to(place) for path in told if path)


async def _size_now(tx: Transaction, row: FolderRow) -> int:
    """Counted, if that takes no longer than a person waits; else as it was when it was counted last."""
    if tx.volumes is None:
        return row.size
    counted = await asyncio.to_thread(tx.volumes.size_within, row.project, row.name, COUNT_FOR)
    return row.size if counted is None else counted


async def set_quota(tx: Transaction, op: SetFolderQuota) -> Done:
    """What it may hold. Less than it holds already is allowed: then nothing can be added until something is removed."""
    row = await tx.folder(op.folder)
    access.must_own(tx.user, row.name, row.owner, row.project)
    before, row.quota = row.quota, op.quota
    told = human_size(op.quota) if op.quota else ""
    message = (
        S("{folder} may hold {limit}; it holds {size}.", folder=row.name, limit=told, size=human_size(row.size))
        if op.quota
        else S("{folder} may hold as much as its project may.", folder=row.name)
    )
    said = S("{user} set the quota of folder {name}.", user=tx.user.name, name=row.name)
    tx.event("folder_quota", row.name, said, owner=row.owner, project=row.project)
    warnings = []
    if op.quota is not None and op.quota < row.size:
        warnings.append(S("{folder} holds more than that already; nothing can be uploaded to it until some of it is "
                          "removed.", folder=row.name))  # fmt: skip
    return Done(
        effects=[Effect(kind="changes", target=row.name, message=message, owner=tx.other(row.owner))],
        targets=[row.name],
        undo=S("undo sets the earlier quota again."),
        inverse={"op": "set_folder_quota", "folder": f"{row.project}/{row.name}", "quota": before},
        warnings=warnings,
    )


async def restore(tx: Transaction, op: RestoreFolder) -> Done:
    return await untrash(tx, (await tx.folder(op.folder, trashed=True)).id)


async def untrash(tx: Transaction, ident: int) -> Done:
    """Back from the trash. Refused when its name is taken by now, or when it was purged."""
    row = await tx.db.get(FolderRow, ident)
    if row is None or row.trash_id is None:
        raise Refused(Reason(code="not_found", message=S("The folder is not in the trash any more.")))
    access.must_own(tx.user, row.name, row.owner, row.project)
    await must_be_free(tx, row.project, row.name)
    await room.must_fit(tx, row.size + await room.announced(tx.db, row.id), row.project, row.owner)
    where, project, name = row.trash_id, row.project, row.name
    row.trash_id = row.trashed_at = None
    await tx.db.flush()
    tx.on_disk(lambda v: v.restore(where, project, name), lambda v: v.trash(project, name, where))
    said = S("{user} restored folder {name}.", user=tx.user.name, name=row.name)
    tx.event("folder_restored", row.name, said, owner=row.owner, project=row.project)
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


async def must_be_free(tx: Transaction, project: str, name: str) -> None:
    query = select(FolderRow).where(FolderRow.project == project, FolderRow.name == name, FolderRow.trash_id.is_(None))
    if await tx.db.scalar(query) is not None:
        message = S("Project {project} has a folder {name} already; give another name.", project=project, name=name)
        raise Refused(Reason(code="conflict", message=message))


def mounted_by(tx: Transaction, row: FolderRow) -> list[str]:
    place = f"{row.project}/{row.name}"
    users = [session for session in tx.ledger.sessions.values() if place in session.mounts]
    seen = veil.seen_by(tx.user)
    return sorted(s.name if seen(s) else veil.label(tx.ledger, s.name) for s in users)


def _unmake(volumes: Volumes, project: str, name: str) -> None:
    """Take back a directory that was just made; one with something in it stays."""
    with contextlib.suppress(OSError):
        volumes.path(project, name).rmdir()


def reconcile(rows: list[FolderRow], volumes: Volumes) -> None:
    """After a crash: put each directory where its row says. Blocks; call it in a thread, before the server answers."""
    for row in rows:
        if row.state != "ready":
            continue  # its directory comes with the end of its clone
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
