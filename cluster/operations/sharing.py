"""Sharing folders: who besides a folder's owner and project may read it, or write to it."""

from sqlalchemy import select

from cluster import access
from cluster.db.tables import FolderRow, GrantRow
from cluster.models import Effect, Reason, ShareFolder, UnshareFolder, User
from cluster.sentence import S, Sentence
from cluster.storage import rights
from cluster.transaction import Done, Refused, Transaction


async def share(tx: Transaction, op: ShareFolder) -> Done:
    """Give a user or a project the permission; who had another one has this one then."""
    row = await tx.folder(op.folder)
    access.must_own(tx.user, row.name, row.owner, row.project)
    scope, name = _with_whom(tx, op.user, op.project)
    _is_needed(tx, row, scope, name)
    before = await _permission(tx, row, scope, name)
    if before == op.permission:
        message = S("{folder} is shared with {name} like that already.", folder=row.name, name=name)
        raise Refused(Reason(code="conflict", message=message))
    await _give(tx, row, scope, name, op.permission)
    said = S("{user} shared folder {name} with {other}.", user=tx.user.name, name=row.name, other=name)
    tx.event("folder_shared", row.name, said, owner=row.owner, project=row.project)
    undo = S("undo takes the share back.") if before is None else S("undo gives the earlier permission again.")
    return Done(
        effects=[Effect(kind="changes", target=row.name, message=_shared(row, name, op.permission))],
        targets=[row.name],
        undo=undo,
        inverse={"op": "_share", "folder": row.id, "grants": [[scope, name, before]]},
    )


async def unshare(tx: Transaction, op: UnshareFolder) -> Done:
    """Take back one share, or all of them. A session that mounts it already keeps it until it ends; that is said."""
    row = await tx.folder(op.folder)
    access.must_own(tx.user, row.name, row.owner, row.project)
    gone = await _grants(tx, row, op)
    for grant in gone:
        await tx.db.delete(grant)
    names = ", ".join(grant.name for grant in gone)
    said = S("{user} no longer shares folder {name} with {other}.", user=tx.user.name, name=row.name, other=names)
    tx.event("folder_unshared", row.name, said, owner=row.owner, project=row.project)
    message = S("{folder} is no longer shared with {names}.", folder=row.name, names=names)
    return Done(
        effects=[Effect(kind="changes", target=row.name, message=message)],
        targets=[row.name],
        undo=S("undo shares it again."),
        inverse={"op": "_share", "folder": row.id, "grants": [[g.scope, g.name, g.permission] for g in gone]},
        warnings=_still_mounted(tx, row, gone),
    )


async def put_back(tx: Transaction, ident: int, grants: list[tuple[str, str, str | None]]) -> Done:
    """Undo of both: each grant as it was, None for none."""
    row = await tx.db.get(FolderRow, ident)
    if row is None or row.trash_id is not None:
        raise Refused(Reason(code="not_found", message=S("The folder is not there any more.")))
    access.must_own(tx.user, row.name, row.owner, row.project)
    for scope, name, permission in grants:
        await _give(tx, row, scope, name, permission)
    message = S("{folder} is shared as before.", folder=row.name)
    return Done(effects=[Effect(kind="restores", target=row.name, message=message)], targets=[row.name])


async def _permission(tx: Transaction, row: FolderRow, scope: str, name: str) -> str | None:
    known = await tx.db.get(GrantRow, (row.id, scope, name))
    return known.permission if known else None


async def _give(tx: Transaction, row: FolderRow, scope: str, name: str, permission: str | None) -> None:
    """This permission from now on; None takes back what there was."""
    known = await tx.db.get(GrantRow, (row.id, scope, name))
    if permission is None:
        if known is not None:
            await tx.db.delete(known)
    elif known is not None:
        known.permission = permission
    else:
        tx.db.add(GrantRow(folder=row.id, scope=scope, name=name, permission=permission))


def _with_whom(tx: Transaction, user: str | None, project: str | None) -> tuple[str, str]:
    """Scope and name of exactly one that exists."""
    if (user is None) == (project is None):
        message = S("Say with whom: one user, or one project.")
        raise Refused(Reason(code="invalid", message=message))
    known = tx.core.directory.users if user is not None else tx.core.directory.projects
    name = user or project or ""
    if name not in known:
        who = S("There is no user {name}.", name=name) if user else S("There is no project {name}.", name=name)
        raise Refused(Reason(code="not_found", message=who))
    return ("user" if user is not None else "project"), name


def _is_needed(tx: Transaction, row: FolderRow, scope: str, name: str) -> None:
    """Refused for those who can write to it anyway."""
    if scope == "project" and name == row.project:
        message = S("Everybody in project {name} can write to {folder} already.", name=name, folder=row.name)
        raise Refused(Reason(code="conflict", message=message))
    other = tx.core.directory.users.get(name) if scope == "user" else None
    if other is not None and rights.writes(_as_member(other), row, {}):
        message = S("{name} can write to {folder} already.", name=name, folder=row.name)
        raise Refused(Reason(code="conflict", message=message))


def _as_member(user: User) -> User:
    """Without what an admin may: somebody who is made a plain user later keeps what was shared with them."""
    return user.model_copy(update={"role": "user"})


async def _grants(tx: Transaction, row: FolderRow, op: UnshareFolder) -> list[GrantRow]:
    """Those that are meant; refused when there are none."""
    query = select(GrantRow).where(GrantRow.folder == row.id).order_by(GrantRow.scope, GrantRow.name)
    every = (await tx.db.scalars(query)).all()
    wanted = {("user", op.user), ("project", op.project)}
    found = [g for g in every if (op.user is None and op.project is None) or (g.scope, g.name) in wanted]
    if not found:
        names = [name for name in (op.user, op.project) if name]
        message = (
            S("{folder} is not shared with {names}.", folder=row.name, names=", ".join(names))
            if names
            else S("{folder} is not shared with anybody.", folder=row.name)
        )
        raise Refused(Reason(code="not_found", message=message, candidates=[g.name for g in every]))
    return list(found)


def _shared(row: FolderRow, name: str, permission: str) -> Sentence:
    if permission == "write":
        return S("{name} can read and write {folder} of project {project}.", name=name, folder=row.name,
                 project=row.project)  # fmt: skip
    return S("{name} can read {folder} of project {project}.", name=name, folder=row.name, project=row.project)


def _still_mounted(tx: Transaction, row: FolderRow, gone: list[GrantRow]) -> list[Sentence]:
    """Sessions of those who lose it that have it mounted, or will when they start."""
    place = f"{row.project}/{row.name}"
    users, projects = ({g.name for g in gone if g.scope == scope} for scope in ("user", "project"))
    people = tx.core.directory.users
    lose = users | {u.name for u in people.values() if projects & set(u.projects)}
    theirs = [s for s in tx.ledger.sessions.values()
              if place in s.mounts and s.user in lose and s.project != row.project]  # fmt: skip
    started = sum(tx.handed_out(s) for s in theirs)
    waiting, found = len(theirs) - started, []
    if started:
        found.append(S("{count} of their sessions mount it, and keep it until they end.", count=started))
    if waiting:
        found.append(S("{count} of their sessions wait to start with it, and fail unless they have another right.",
                       count=waiting))  # fmt: skip
    return found
