"""Users, projects and who is in them. Nobody is ever deleted: the journal and what they made speak of them."""

import re
import unicodedata
from collections.abc import Iterable

from sqlalchemy import select

from cluster import access
from cluster.db import tables
from cluster.db.tables import MemberRow, ProjectRow, QuotaRow, UserRow
from cluster.lifecycle import LIVE, WAITING
from cluster.live import LiveSession
from cluster.models import (
    AddProjectMember,
    CreateProject,
    CreateUser,
    DeactivateUser,
    Effect,
    ReactivateUser,
    Reason,
    RemoveProjectMember,
)
from cluster.operations import sessions
from cluster.operations.sessions import GRACE
from cluster.sentence import S, Sentence
from cluster.tenancy.known import no_project, no_user, projects_seen, users_seen
from cluster.transaction import Done, Refused, Transaction

_NAME = re.compile(r"[^\W_][\w.@+-]{0,62}")
"""Letters and digits of any script: it goes into paths, sentences and addresses as it is."""
EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,189}")
_RESERVED = ("system", "anyone", "everyone", "me")
CAPS = ("cpu", "memory", "gpu", "storage")


# ── names ────────────────────────────────────────────────────────────────────────────────────────


def tidy(name: str) -> str:
    """As names are kept: composed (NFC), so that the same letters are the same name."""
    return unicodedata.normalize("NFC", name.strip())


def new_name(wanted: str, taken: Iterable[str], taken_by: Sentence) -> str:
    """Tidy, or refused: no name, or the same as another but for case. `taken_by` says that of `{name}`."""
    name = tidy(wanted)
    if not _NAME.fullmatch(name) or name.casefold() in _RESERVED:
        message = S(
            "{name} can't be a name here: up to 63 letters, digits and . _ - @ +, and a letter or digit first.",
            name=wanted,
        )
        raise Refused(Reason(code="invalid", message=message))
    same = next((other for other in taken if other.casefold() == name.casefold()), None)
    if same is not None:
        raise Refused(Reason(code="conflict", message=taken_by.model_copy(update={"params": {"name": same}})))
    return name


async def find_user(tx: Transaction, ref: str) -> UserRow:
    """Somebody whom the asking person may see; whoever else exists is as unknown as one who does not."""
    name = tidy(ref)
    seen = users_seen(tx.core.directory, tx.user)
    row = await tx.db.get(UserRow, name) if name in seen else None
    if row is None:
        raise no_user(name, seen)
    return row


async def find_project(tx: Transaction, ref: str) -> ProjectRow:
    """As `find_user`."""
    name = tidy(ref)
    seen = projects_seen(tx.core.directory, tx.user)
    row = await tx.db.get(ProjectRow, name) if name in seen else None
    if row is None:
        raise no_project(name, seen)
    return row


# ── users ────────────────────────────────────────────────────────────────────────────────────────


async def create_user(tx: Transaction, op: CreateUser) -> Done:
    access.must_may(tx.user, "create", "user")
    name = new_name(op.name, tx.core.directory.users, S("There is a user {name} already.", name=""))
    if op.email is not None and not EMAIL.fullmatch(op.email):
        raise Refused(Reason(code="invalid", message=S("{email} is no e-mail address.", email=op.email)))
    project = await find_project(tx, op.project) if op.project else None
    tx.db.add(UserRow(name=name, email=op.email, full_name=op.full_name, role=op.role, active=True))
    await tx.db.flush()
    effects = [Effect(kind="creates", target=name, message=_new_user(name, op.role))]
    if project is not None:
        tx.db.add(MemberRow(project=project.name, user=name, role=_role_inside(op.role)))
        message = S("{user} is in project {project}.", user=name, project=project.name)
        effects.append(Effect(kind="changes", target=project.name, message=message))
    tx.event("user_created", name, S("{admin} created user {user}.", admin=tx.user.name, user=name), owner=name)
    return Done(
        effects=effects,
        targets=[name],
        undo=S("undo deactivates {user} again.", user=name),
        inverse={"op": "deactivate_user", "user": name},
    )


def _new_user(name: str, role: str) -> Sentence:
    match role:
        case "admin":
            return S("User {user} is created, as an admin of the whole cluster.", user=name)
        case "project_admin":
            return S("User {user} is created, as an admin of the projects they are in.", user=name)
        case _:
            return S("User {user} is created.", user=name)


def _role_inside(role: str) -> str:
    """In a project there are two: who is called an admin there leads it, and no more than it."""
    return "user" if role == "user" else "project_admin"


async def deactivate(tx: Transaction, op: DeactivateUser) -> Done:
    """Their sessions end, and nothing that they hold opens anything any more."""
    access.must_may(tx.user, "deactivate", "user")
    row = await find_user(tx, op.user)
    if not row.active:
        raise Refused(Reason(code="conflict", message=S("{user} is deactivated already.", user=row.name)))
    await _not_the_last_admin(tx, row)
    row.active = False
    await tx.db.flush()
    message = S("{user} can't log in or start anything any more; their tokens stop working.", user=row.name)
    done = Done(effects=[Effect(kind="changes", target=row.name, message=message)], targets=[row.name])
    stopped = await _stop_all(tx, _live_of(tx, row.name), done)
    served = await _served(tx, row.name)
    if served:
        names = ", ".join(served)
        done.warnings.append(S("What {user} serves goes on: {names}.", user=row.name, names=names))
    said = S("{admin} deactivated {user}.", admin=tx.user.name, user=row.name)
    tx.event("user_deactivated", row.name, said, owner=row.name)
    done.inverse = {"op": "_reactivate", "user": row.name, "sessions": stopped}
    done.undo = S(
        "undo lets {user} in again and puts what was waiting back; sessions that ran can't come back.", user=row.name
    )
    return done


async def reactivate(tx: Transaction, op: ReactivateUser) -> Done:
    return await let_in(tx, op.user, [])


async def let_in(tx: Transaction, name: str, waiting: list[str]) -> Done:
    """Active again, with the sessions `waiting` (ids) back in the queue."""
    access.must_may(tx.user, "deactivate", "user")
    row = await find_user(tx, name)
    if row.active:
        raise Refused(Reason(code="conflict", message=S("{user} is active already.", user=row.name)))
    row.active = True
    await tx.db.flush()
    message = S("{user} can log in again; their tokens work as before.", user=row.name)
    done = Done(effects=[Effect(kind="restores", target=row.name, message=message)], targets=[row.name])
    await _put_back(tx, waiting, done)
    said = S("{admin} let {user} in again.", admin=tx.user.name, user=row.name)
    tx.event("user_reactivated", row.name, said, owner=row.name)
    done.inverse = {"op": "deactivate_user", "user": row.name}
    done.undo = S("undo deactivates {user} again.", user=row.name)
    return done


async def _not_the_last_admin(tx: Transaction, row: UserRow) -> None:
    if row.role != "admin":
        return
    others = select(UserRow.name).where(UserRow.role == "admin", UserRow.active, UserRow.name != row.name)
    if await tx.db.scalar(others.limit(1)) is None:
        message = S("{user} is the last admin; make another one first.", user=row.name)
        raise Refused(Reason(code="conflict", message=message))


# ── their sessions ───────────────────────────────────────────────────────────────────────────────


def _live_of(tx: Transaction, user: str, project: str | None = None) -> list[LiveSession]:
    found = (s for s in tx.ledger.in_order() if s.user == user and s.state in LIVE)
    return [s for s in found if project in (None, s.project)]


async def _stop_all(tx: Transaction, live: list[LiveSession], done: Done) -> list[str]:
    """All but replicas, which their endpoint would start again; ids of those that had only waited."""
    replicas = set(await tx.db.scalars(select(tables.ReplicaRow.session)))
    mine = [session for session in live if session.id not in replicas]
    waiting = [session.id for session in mine if session.state in WAITING]
    for session in mine:
        if session.state in LIVE:  # not ended yet by the end of one that it depends on
            sessions.stop(tx, session, GRACE, done)
    return waiting


async def _put_back(tx: Transaction, waiting: list[str], done: Done) -> None:
    back = [each for each in [await tx.recall(ident) for ident in waiting] if each and each.state == "cancelled"]
    if back:
        requeued = await sessions.requeue(tx, [session.id for session in back])
        done.effects += requeued.effects
        done.targets += requeued.targets


async def _served(tx: Transaction, user: str) -> list[str]:
    rows = tables.EndpointRow
    wanted = select(rows.name).where(rows.owner == user, rows.state == "active").order_by(rows.name)
    return list(await tx.db.scalars(wanted.limit(20)))


# ── projects ─────────────────────────────────────────────────────────────────────────────────────


async def create_project(tx: Transaction, op: CreateProject) -> Done:
    access.must_may(tx.user, "create", "project")
    name = new_name(op.name, tx.core.directory.projects, S("There is a project {name} already.", name=""))
    cohort = tidy(op.cohort) if op.cohort else None
    tx.db.add(ProjectRow(name=name, description=op.description, cohort=cohort))
    caps = {cap: getattr(op, cap) for cap in CAPS}
    limited = any(value is not None for value in caps.values())
    if limited:
        tx.db.add(QuotaRow(scope="project", name=name, **caps))
    await tx.db.flush()
    message = (
        S("Project {project} is created, with a quota.", project=name)
        if limited
        else S("Project {project} is created, without a limit.", project=name)
    )
    said = S("{admin} created project {project}.", admin=tx.user.name, project=name)
    tx.event("project_created", name, said, project=name)
    return Done(
        effects=[Effect(kind="creates", target=name, message=message)],
        targets=[name],
        undo=S("undo removes {project} again, as long as nothing is in it.", project=name),
        inverse={"op": "_remove_project", "project": name},
    )


async def remove_project(tx: Transaction, name: str) -> Done:
    """Undo of `create_project`: only of one in which nothing ever was."""
    access.must_may(tx.user, "create", "project")
    row = await find_project(tx, name)
    used = await _used(tx, row.name)
    if used is not None:
        raise Refused(Reason(code="conflict", message=used))
    for member in await tx.db.scalars(select(MemberRow).where(MemberRow.project == row.name)):
        await tx.db.delete(member)
    quota = await tx.db.get(QuotaRow, ("project", row.name))
    if quota is not None:
        await tx.db.delete(quota)
    await tx.db.flush()
    await tx.db.delete(row)
    await tx.db.flush()
    said = S("{admin} removed project {project}.", admin=tx.user.name, project=name)
    tx.event("project_removed", name, said, project=name)
    message = S("Project {project} is removed.", project=name)
    return Done(effects=[Effect(kind="removes", target=name, message=message)], targets=[name])


async def _used(tx: Transaction, project: str) -> Sentence | None:
    """What is in it, if anything is."""
    if any(session.project == project for session in tx.ledger.sessions.values()):
        return S("Project {project} has sessions; it can't be removed any more.", project=project)
    said = (
        (tables.SessionRow, S("Project {project} has had sessions; it can't be removed any more.", project=project)),
        (tables.FolderRow, S("Project {project} has folders; it can't be removed any more.", project=project)),
        (tables.ModelRow, S("Project {project} has models; it can't be removed any more.", project=project)),
        (tables.EndpointRow, S("Project {project} has endpoints; it can't be removed any more.", project=project)),
        (tables.PipelineRow, S("Project {project} has pipelines; it can't be removed any more.", project=project)),
    )
    for table, sentence in said:
        kept = table.__table__.c.project
        if await tx.db.scalar(select(kept).where(kept == project).limit(1)) is not None:
            return sentence
    return None


async def add_member(tx: Transaction, op: AddProjectMember) -> Done:
    """In the project, or in another role than before."""
    project = await find_project(tx, op.project)
    access.must_lead(tx.user, project.name)
    user = await find_user(tx, op.user)
    if not user.active:
        raise Refused(Reason(code="conflict", message=S("{user} is deactivated; let them in first.", user=user.name)))
    row = await tx.db.get(MemberRow, (project.name, user.name))
    role = _role_inside(op.role or "user")
    if row is not None and (op.role is None or row.role == role):
        message = S("{user} is in project {project} already.", user=user.name, project=project.name)
        raise Refused(Reason(code="conflict", message=message))
    before = row.role if row is not None else None
    await tx.db.merge(MemberRow(project=project.name, user=user.name, role=role))
    await tx.db.flush()
    said = {"user": user.name, "project": project.name}
    message = S("{user} is in project {project}.", **said)
    tx.event("member_added", project.name, message, owner=user.name, project=project.name)
    done = Done(effects=[Effect(kind="changes", target=user.name, message=_joined(role, before, said))],
                targets=[project.name, user.name])  # fmt: skip
    if before is not None:
        done.undo = S("undo gives {user} the former role back.", user=user.name)
        done.inverse = {"op": "add_project_member", "role": before, **said}
    else:
        done.undo = S("undo takes {user} out again, and stops what they have there by then.", user=user.name)
        done.inverse = {"op": "remove_project_member", **said}
    return done


def _joined(role: str, before: str | None, said: dict[str, str]) -> Sentence:
    if role == "project_admin":
        return S("{user} is an admin of project {project} now.", **said)
    if before is not None:
        return S("{user} is a plain member of project {project} now.", **said)
    return S("{user} is in project {project} and may use its quota.", **said)


async def remove_member(tx: Transaction, op: RemoveProjectMember) -> Done:
    """Out of the project; what they run and wait for there is stopped."""
    project = await find_project(tx, op.project)
    access.must_lead(tx.user, project.name)
    user = await find_user(tx, op.user)
    row = await tx.db.get(MemberRow, (project.name, user.name))
    said = {"user": user.name, "project": project.name}
    if row is None:
        raise Refused(Reason(code="conflict", message=S("{user} is not in project {project}.", **said)))
    role = row.role
    await tx.db.delete(row)
    await tx.db.flush()
    message = S("{user} is not in project {project} any more.", **said)
    done = Done(effects=[Effect(kind="changes", target=user.name, message=message)], targets=[project.name, user.name])
    waiting = await _stop_all(tx, _live_of(tx, user.name, project.name), done)
    done.warnings += await _kept_folders(tx, said)
    tx.event("member_removed", project.name, message, owner=user.name, project=project.name)
    done.inverse = {"op": "_rejoin", "role": role, "sessions": waiting, **said}
    done.undo = S("undo takes {user} in again and puts what was waiting back; what ran can't come back.", **said)
    return done


async def _kept_folders(tx: Transaction, said: dict[str, str]) -> list[Sentence]:
    rows = tables.FolderRow
    mine = select(rows.name).where(rows.owner == said["user"], rows.project == said["project"])
    names = list(await tx.db.scalars(mine.where(rows.trash_id.is_(None)).order_by(rows.name).limit(20)))
    if not names:
        return []
    return [S("Folders of {user} in {project} stay theirs: {names}.", names=", ".join(names), **said)]


async def rejoin(tx: Transaction, inverse: dict[str, object]) -> Done:
    """Undo of `remove_member`: as before, with what was waiting back in the queue."""
    said = {"user": str(inverse["user"]), "project": str(inverse["project"])}
    done = await add_member(tx, AddProjectMember.model_validate({"role": inverse["role"], **said}))
    waiting = inverse["sessions"]
    await _put_back(tx, [str(ident) for ident in waiting] if isinstance(waiting, list) else [], done)
    return done
