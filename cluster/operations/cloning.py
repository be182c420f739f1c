"""Copying a folder. The row comes first, in state `cloning`; its contents come after it (`storage.clones`)."""

import asyncio

from cluster import access
from cluster.db.tables import FolderRow
from cluster.models import CloneFolder, Effect, Reason
from cluster.operations.folders import must_be_free
from cluster.operations.sessions import project_of
from cluster.sentence import S
from cluster.storage import room
from cluster.storage.ready import must_be_ready
from cluster.storage.volumes import checked
from cluster.transaction import Done, Refused, Transaction
from cluster.units import human_size


async def clone(tx: Transaction, op: CloneFolder) -> Done:
    """Whoever may read a folder may copy it. The whole size is reserved before the first byte is copied."""
    source = await tx.folder(op.folder)
    must_be_ready(source)
    name, project = checked(op.name), _project(tx, op, source)
    await must_be_free(tx, project, name)
    size = await _size(tx, source, project, name)
    await room.must_fit(tx, size, project, tx.user.name)
    tx.db.add(
        FolderRow(
            name=name,
            project=project,
            owner=tx.user.name,
            size=size,
            quota=None,
            trash_id=None,
            created=tx.now,
            modified=tx.now,
            state="cloning",
            state_since=tx.now,
            source=source.id,
            contents=source.contents,
        )
    )
    await tx.db.flush()
    tx.core.clones.look_again()
    said = S("{user} is copying folder {source} to {name}.", user=tx.user.name, source=source.name, name=name)
    tx.event("folder_cloning", name, said, owner=tx.user.name, project=project)
    words = {"name": name, "source": source.name, "size": human_size(size), "project": project}
    message = S("{name} becomes a copy of {source} ({size}) in project {project}; it can be used when it is complete.",
                **words)  # fmt: skip
    return Done(
        effects=[Effect(kind="creates", target=name, message=message)],
        targets=[name],
        undo=S("undo deletes the copy."),
        inverse={"op": "delete_folder", "folder": f"{project}/{name}"},
    )


def _project(tx: Transaction, op: CloneFolder, source: FolderRow) -> str:
    """As asked for; else where it comes from, if the person may make folders there."""
    if op.project is None and access.is_in(tx.user, source.project):
        return source.project
    return project_of(tx, op.project)


async def _size(tx: Transaction, source: FolderRow, project: str, name: str) -> int:
    """What the copy will hold; refused where the disk has no room for it or something lies in its place."""
    if tx.volumes is None:
        return source.size
    if await asyncio.to_thread(tx.volumes.exists, project, name):
        message = S("A directory that is no folder lies at {project}/{name}; give another name.", project=project,
                    name=name)  # fmt: skip
        raise Refused(Reason(code="conflict", message=message))
    counted = await asyncio.to_thread(tx.volumes.size_within, source.project, source.name, 5.0)
    size = source.size if counted is None else counted
    free = await asyncio.to_thread(tx.volumes.free)
    if size > free:
        message = S("The disk has {free} left; {source} holds {size}.", free=human_size(free), source=source.name,
                    size=human_size(size))  # fmt: skip
        raise Refused(Reason(code="storage_full", message=message, asked=float(size), available=float(free)))
    return size
