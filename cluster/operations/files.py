"""Single files of a folder: deleting one, or a directory with all that is in it. There is no trash for them."""

import asyncio
import secrets

from cluster.db.tables import FolderRow
from cluster.models import DeleteFile, Effect, Reason
from cluster.operations.folders import COUNT_FOR, mounted_by
from cluster.sentence import S, Sentence
from cluster.storage import discarding, rights
from cluster.storage.beneath import Missing, parts_of
from cluster.storage.discarding import Weight
from cluster.storage.ready import must_be_ready
from cluster.transaction import Done, Refused, Transaction
from cluster.units import human_size


async def delete(tx: Transaction, op: DeleteFile) -> Done:
    """For good, by whoever may write to the folder: one rename before the commit, the bytes go afterwards
    (`storage/purging.py`). Uploads under way go on; one that is complete later makes its directories anew."""
    row, parts = await tx.folder(op.folder), parts_of(op.path)
    must_be_ready(row)
    rights.must_write(tx.user, row, await rights.grants(tx.db, row.id))
    if not parts:
        message = S("Say which file of {folder}; delete_folder deletes the folder.", folder=row.name)
        raise Refused(Reason(code="invalid", message=message))
    weight = await _weighed(tx, row, parts)
    if weight.directory and not op.recursive:
        raise discarding.is_a_directory(parts)
    row.size, row.modified = max(0, row.size - weight.size), tx.now
    _discard(tx, row, parts, op.recursive)
    path = "/".join(parts)
    said = S("{user} deleted {path} from folder {name}.", user=tx.user.name, path=path, name=row.name)
    tx.event("file_deleted", row.name, said, owner=row.owner, project=row.project)
    effect = Effect(kind="removes", target=path, message=_told(row, path, weight), owner=tx.other(row.owner),
                    stable=weight.complete)  # fmt: skip
    return Done(effects=[effect], targets=[f"{row.name}/{path}"], warnings=_warnings(tx, row))


async def _weighed(tx: Transaction, row: FolderRow, parts: list[str]) -> Weight:
    if tx.volumes is not None:
        top = tx.volumes.path(row.project, row.name)
        return await asyncio.to_thread(discarding.weigh, top, parts, COUNT_FOR)
    path = "/".join(parts)
    inside = [file for file in row.contents if _lies_in(file["path"], path)]
    if not inside:
        raise Missing(S("There is no {path} in {folder}.", path=path, folder=row.name))
    directory = all(file["path"].strip("/") != path for file in inside)
    return Weight(directory, len(inside), sum(int(file["size"]) for file in inside))


def _discard(tx: Transaction, row: FolderRow, parts: list[str], whole: bool) -> None:
    if tx.volumes is None:
        row.contents = [file for file in row.contents if not _lies_in(file["path"], "/".join(parts))]
        return
    top, target = tx.volumes.path(row.project, row.name), tx.volumes.purging(f"file-{secrets.token_hex(16)}")
    tx.on_disk(
        lambda _: discarding.discard(top, parts, target, whole), lambda _: discarding.take_back(top, parts, target)
    )
    tx.core.purges.look_again()


def _lies_in(file: str, path: str) -> bool:
    return f"{file.strip('/')}/".startswith(f"{path}/")


def _told(row: FolderRow, path: str, weight: Weight) -> Sentence:
    words = {"path": path, "folder": row.name, "size": human_size(weight.size)}
    if not weight.directory:
        return S("{path} ({size}) is deleted from {folder}.", **words)
    if weight.complete:
        return S("{path} and all in it (files: {count}, {size}) is deleted from {folder}.", count=weight.files, **words)
    return S("{path} and all in it (files: more than {count}) is deleted from {folder}.", count=weight.files, path=path,
             folder=row.name)  # fmt: skip


def _warnings(tx: Transaction, row: FolderRow) -> list[Sentence]:
    found = [S("It is gone for good: single files don't go to the trash.")]
    if sessions := mounted_by(tx, row):
        names = ", ".join(sessions)
        found.append(S("{folder} is mounted by {sessions}, which may need it.", folder=row.name, sessions=names))
    return found
