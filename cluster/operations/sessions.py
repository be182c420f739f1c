"""Starting and stopping sessions."""

import math
import re
import secrets
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select

from cluster import access, records
from cluster.db.tables import GroupRow, MemberRow, NodeRow, ProjectRow, SessionRow
from cluster.lifecycle import ENDED, HOLDING, LIVE, WAITING
from cluster.models import Effect, Reason, SessionResult, SessionState, StartSession, TerminateSessions
from cluster.scheduler import feasible
from cluster.scheduler.state import Request, Snapshot
from cluster.sentence import S, Sentence
from cluster.transaction import Done, Refused, Transaction
from cluster.units import human_duration, human_size

DEFAULT_CPU = 1.0
LEAST_MEMORY = 2**30
"""Bytes on each node of a session that does not say how much it needs, at least."""
GRACE = 10.0


async def start(tx: Transaction, op: StartSession) -> Done:
    """A new session, PENDING; refused when no node could ever hold it."""
    row = await _row(tx, op)
    await _fits_somewhere(tx, row, op.resource_group is not None)
    tx.db.add(row)
    tx.event("session_pending", row.name, S("{user} submitted {name}.", user=tx.user.name, name=row.name))
    await tx.db.flush()
    return Done(
        effects=[],
        warnings=_image_unused(tx, op),
        targets=[row.name],
        undo=S("undo stops {name}; what it has done until then stays.", name=row.name),
        inverse={"op": "terminate_sessions", "sessions": [row.id], "force": False},
        session=row,
    )


def _image_unused(tx: Transaction, op: StartSession) -> list[Sentence]:
    """Plain processes have no image; what was asked for is kept, but the person must know."""
    if op.image is None or not tx.same_host:
        return []
    return [S("The nodes here run plain processes: image {image} is noted, but not used.", image=op.image)]


async def _row(tx: Transaction, op: StartSession) -> SessionRow:
    depends = [(await _dependency(tx, d)).id for d in op.depends_on]
    mounts = [await tx.folder(m) for m in op.mounts]
    return SessionRow(
        id=await _fresh_id(tx),
        name=await _name(tx, op),
        user=tx.user.name,
        project=await project_of(tx, op.project),
        type=op.type.value,
        image=op.image,
        command=op.command,
        workdir=_workdir(tx, op.workdir),
        state=SessionState.PENDING.value,
        state_since=tx.now,
        cpu=op.cpu or DEFAULT_CPU * op.node_count,
        memory=op.memory or 0,
        gpu=op.gpu or 0,
        gpu_model=op.gpu_model,
        node_count=op.node_count,
        resource_group=op.resource_group or "",
        priority=op.priority,
        mounts=[f"{m.project}/{m.name}" for m in mounts],
        env=op.env,
        depends_on=depends,
        start_at=op.start_at,
        time_limit=op.time_limit,
        submitted=await _in_turn(tx),
        attempt=0,
        grace=GRACE,
        reasons=[],
    )


async def _in_turn(tx: Transaction) -> datetime:
    """Now, or just behind those that came in the same instant: first come is first served, also when a clock stands."""
    soon = tx.now + timedelta(seconds=1)
    same = select(func.max(SessionRow.submitted)).where(SessionRow.submitted.between(tx.now, soon))
    latest = await tx.db.scalar(same)
    return tx.now if latest is None else latest + timedelta(microseconds=1)


async def _dependency(tx: Transaction, ref: str) -> SessionRow:
    """A session to wait for; one that has ended without success would be waited for in vain."""
    row = await tx.session(ref)
    if row.state in ENDED and row.result != SessionResult.SUCCESS:
        message = S(
            "{name} has ended without success ({result}); nothing can wait for it.",
            name=row.name,
            result=row.result or row.state,
        )
        raise Refused(Reason(code="dependency", message=message))
    return row


async def project_of(tx: Transaction, wanted: str | None) -> str:
    """The project asked for, if the person is in it; else their first one."""
    if wanted is None:
        mine = await tx.db.scalar(
            select(MemberRow.project).where(MemberRow.user == tx.user.name).order_by(MemberRow.project)
        )
        wanted = mine or await tx.db.scalar(select(ProjectRow.name).order_by(ProjectRow.name))
    known = await tx.db.get(ProjectRow, wanted) if wanted else None
    if known is None:
        raise Refused(Reason(code="not_found", message=S("There is no project {name}.", name=wanted or "")))
    access.must_be_in(tx.user, known.name)
    return known.name


def _workdir(tx: Transaction, wanted: str | None) -> str | None:
    if wanted is None:
        return None
    if not tx.same_host or not Path(wanted).is_dir():
        message = S("{path} is not a directory on the node; leave it out to get an own one.", path=wanted)
        raise Refused(Reason(code="invalid", message=message))
    return wanted


async def _fresh_id(tx: Transaction) -> str:
    while True:
        ident = f"s-{secrets.token_hex(3)}"
        if await tx.db.get(SessionRow, ident) is None:
            return ident


async def _name(tx: Transaction, op: StartSession) -> str:
    query = select(SessionRow.name, SessionRow.user).where(SessionRow.state.in_([s.value for s in LIVE]))
    live = {(name, user) for name, user in await tx.db.execute(query)}
    taken = {name for name, _ in live}
    if op.name is None:
        base = _slug(op.command or op.image or "session")
        return next(n for n in (base, *(f"{base}-{i}" for i in range(2, 100_000))) if n not in taken)
    if not re.fullmatch(r"[^\s/\x00-\x1f]{1,100}", op.name):
        message = S("{name} can't be a session's name: up to 100 characters, no spaces or slashes.", name=op.name)
        raise Refused(Reason(code="invalid", message=message))
    if (op.name, tx.user.name) in live:
        message = S("A session {name} is live already; give another name.", name=op.name)
        raise Refused(Reason(code="conflict", message=message))
    return op.name


def _slug(text: str) -> str:
    """`python train.py --lr 3` -> `train`; `pytorch:2.8-cuda12` -> `pytorch`."""
    words = [w for w in re.split(r"[\s|;&<>'\"()]+", text) if w and not w.startswith("-")]
    scripts = [w for w in words if re.search(r"\.(py|sh|ipynb|jl|r|m|pl)$", w, re.IGNORECASE)]
    chosen = (scripts or words or ["session"])[0]
    stem = re.sub(r"\.\w+$", "", chosen.rsplit("/", 1)[-1].split(":")[0])
    return re.sub(r"[^\w.-]+", "-", stem)[:40].strip("-._").lower() or "session"


async def _fits_somewhere(tx: Transaction, row: SessionRow, fixed: bool) -> None:
    """Set the resource group: the one asked for, else the first that could ever hold it. Refused when none could."""
    groups = (await tx.db.scalars(select(GroupRow.name).order_by(GroupRow.name))).all()
    if fixed and row.resource_group not in groups:
        message = S("There is no resource group {name}.", name=row.resource_group)
        raise Refused(Reason(code="not_found", message=message, candidates=list(groups)))
    snapshot = await records.snapshot(tx.db, tx.now)
    refusals: list[tuple[Reason, ...]] = []
    unsaid = row.memory == 0
    for group in [row.resource_group] if fixed else await _by_preference(tx, row, list(groups)):
        if unsaid:
            row.memory = _share_of_memory(snapshot, group, row)
        reasons = feasible(snapshot, _request(row, group))
        if not reasons:
            row.resource_group = group
            return
        refusals.append(reasons)
    if not refusals:
        raise Refused(Reason(code="no_alive_node", message=S("The cluster has no node yet.")))
    raise Refused(*min(refusals, key=_shortfall))


async def _by_preference(tx: Transaction, row: SessionRow, groups: list[str]) -> list[str]:
    """Groups with devices first when GPUs are asked for, last when not; `default` before others."""
    nodes = (await tx.db.scalars(select(NodeRow))).all()
    with_gpus = {n.resource_group for n in nodes if n.devices}
    peopled = {n.resource_group for n in nodes}
    wants = row.gpu > 0
    return sorted((g for g in groups if g in peopled), key=lambda g: ((g in with_gpus) != wants, g != "default", g))


def _share_of_memory(snapshot: Snapshot, group: str, row: SessionRow) -> int:
    """Memory in step with the cores asked for, as the group's leanest node has it; whole GiB."""
    per_core = min((n.memory / n.cpu for n in snapshot.nodes if n.group == group and n.cpu), default=0)
    return max(LEAST_MEMORY * row.node_count, int(per_core * row.cpu) // 2**30 * 2**30)


def _shortfall(reasons: tuple[Reason, ...]) -> float:
    """How much is short; endless where it is not a matter of amounts, so that the nearest miss is told."""
    return sum((r.asked or 0) - r.available if r.available is not None else math.inf for r in reasons)


def _request(row: SessionRow, group: str) -> Request:
    return Request(
        id=row.id,
        name=row.name,
        user=row.user,
        project=row.project,
        group=group,
        submitted=row.submitted,
        cpu=row.cpu,
        memory=row.memory,
        gpu=row.gpu,
        node_count=row.node_count,
        gpu_model=row.gpu_model,
        priority=row.priority,
        time_limit=row.time_limit,
    )


async def terminate(tx: Transaction, op: TerminateSessions) -> Done:
    """Waiting ones are cancelled and can be put back; those that hold something are stopped, and may lose work."""
    rows = list({row.id: row for row in [await tx.session(ref) for ref in op.sessions]}.values())
    for row in rows:
        access.must_own(tx.user, row.name, row.user, row.project)
        if row.state not in LIVE:
            message = S("{name} has ended already ({state}).", name=row.name, state=row.state)
            raise Refused(Reason(code="conflict", message=message))
        if row.state == SessionState.TERMINATING and not op.force:
            message = S("{name} is being stopped already; with force it is killed at once.", name=row.name)
            raise Refused(Reason(code="conflict", message=message))
    done = Done(effects=[], targets=[r.name for r in rows])
    waiting = [r.id for r in rows if r.state in WAITING]
    for row in rows:
        await stop(tx, row, 0 if op.force else GRACE, done)
    if len(waiting) == len(rows):
        done.inverse = {"op": "_requeue", "sessions": waiting}
        done.undo = S("undo puts it back in its place in the queue.")
    return done


async def stop(tx: Transaction, row: SessionRow, grace: float, done: Done) -> None:
    """Cancel `row` if it waits, else have its agents stop it; adds effects and warnings to `done`."""
    owner = row.user if row.user != tx.user.name else None
    if row.state in WAITING:
        await tx.move(row, SessionState.CANCELLED)
        message = S("{name} is taken out of the queue.", name=row.name)
    elif row.state in HOLDING:
        message = _gives_back(row)
        done.warnings.append(_loss(row, tx))
        row.grace = grace
        await _let_go(tx, row)
    done.effects.append(Effect(kind="stops", target=row.name, message=message, owner=owner))
    for name in await _dependents(tx, row):
        text = S("{name} depends on {other} and is cancelled with it.", name=name, other=row.name)
        done.effects.append(Effect(kind="stops", target=name, message=text))


async def _let_go(tx: Transaction, row: SessionRow) -> None:
    """To TERMINATING, until its agents say that it is gone; at once to its end where no agent has heard of it."""
    if row.state == SessionState.SCHEDULED and not await tx.handed_out(row):
        await tx.move(row, SessionState.TERMINATED, SessionResult.CANCELLED)
    elif row.state != SessionState.TERMINATING:
        await tx.move(row, SessionState.TERMINATING)


def _loss(row: SessionRow, tx: Transaction) -> Sentence:
    if row.started is None:
        return S("{name} has its place already; undo can't put it back in the queue.", name=row.name)
    age = human_duration((tx.now - row.started).total_seconds())
    return S(
        "{name} has run for {age}; what it has not saved is lost, and undo can't bring it back.", name=row.name, age=age
    )


def _gives_back(row: SessionRow) -> Sentence:
    memory = human_size(row.memory)
    if not row.gpu:
        return S(
            "{name} is stopped; it gives back {cpu} CPU, {memory}.", name=row.name, cpu=f"{row.cpu:g}", memory=memory
        )
    return S(
        "{name} is stopped; it gives back {gpu} GPU, {cpu} CPU, {memory}.",
        name=row.name,
        gpu=f"{row.gpu:g}",
        cpu=f"{row.cpu:g}",
        memory=memory,
    )


async def _dependents(tx: Transaction, row: SessionRow) -> list[str]:
    waiting = await tx.db.scalars(select(SessionRow).where(SessionRow.state == SessionState.HELD.value))
    return [w.name for w in waiting if row.id in w.depends_on]


async def requeue(tx: Transaction, idents: list[str]) -> Done:
    """Undo of cancelling waiting sessions: back to PENDING with their old place (`submitted` stays)."""
    done = Done(effects=[], targets=[])
    for ident in idents:
        row = await tx.db.get(SessionRow, ident)
        if row is None or row.state != SessionState.CANCELLED:
            raise Refused(
                Reason(
                    code="conflict",
                    message=S(
                        "{name} can't be put back; it is not cancelled any more.", name=row.name if row else ident
                    ),
                )
            )
        await tx.move(row, SessionState.PENDING)
        done.targets.append(row.name)
        done.effects.append(
            Effect(kind="restores", target=row.name, message=S("{name} is back in the queue.", name=row.name))
        )
    return done
