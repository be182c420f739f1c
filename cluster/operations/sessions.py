"""Starting and stopping sessions."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cluster import access
from cluster.lifecycle import ENDED, HOLDING, LIVE, WAITING
from cluster.live import LiveSession
from cluster.models import Effect, Reason, SessionResult, SessionState, SessionType, StartSession, TerminateSessions
from cluster.operations import priority
from cluster.operations.mounting import mounted, unprotected
from cluster.outlook import Kin
from cluster.sentence import S, Sentence
from cluster.serving import standins
from cluster.tenancy import veil
from cluster.transaction import Done, Refused, Transaction, nearest
from cluster.units import human_duration, human_size

DEFAULT_CPU = 1.0
LEAST_MEMORY = 2**30
"""Bytes on each node of a session that does not say how much it needs, at least."""
GRACE = 10.0
CONTAINERS = ("podman", "docker")
"""Kinds of isolation that use a session's image."""


async def start(tx: Transaction, op: StartSession) -> Done:
    """A new session, PENDING; refused when no node could ever hold it."""
    session = await _session(tx, op)
    priority.must_favour(tx, session, op.priority)
    _fits_somewhere(tx, session, op.resource_group is not None)
    tx.add_session(session)
    tx.session_event("session_pending", session, S("{user} submitted {name}.", user=tx.user.name, name=session.name))
    return Done(
        effects=[],
        warnings=[*_image_unused(tx, session), *unprotected(tx, session)],
        targets=[session.name],
        undo=S("undo stops {name}; what it has done until then stays.", name=session.name),
        inverse={"op": "terminate_sessions", "sessions": [session.id], "force": False},
        sessions=[session],
    )


def _image_unused(tx: Transaction, session: LiveSession) -> list[Sentence]:
    """Plain processes have no image; what was asked for is kept, but the person must know."""
    if session.image is None or tx.core.simulated:
        return []
    nodes = (node for node in tx.ledger.nodes.values() if node.resource_group == session.resource_group)
    if any(node.isolation in CONTAINERS for node in nodes):
        return []
    return [S("The nodes here run plain processes: image {image} is noted, but not used.", image=session.image)]


async def _session(tx: Transaction, op: StartSession) -> LiveSession:
    depends = [await _dependency(tx, ref) for ref in op.depends_on]
    mounts, read_only = await mounted(tx, op.mounts)
    return LiveSession(
        id=tx.fresh_id(),
        name=_name(tx, op),
        user=tx.user.name,
        project=project_of(tx, op.project),
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
        rack=op.rack,
        accelerator=op.accelerator,
        preemptible=op.type is SessionType.BATCH if op.preemptible is None else op.preemptible,
        mounts=mounts,
        read_only=read_only,
        env=op.env,
        depends_on=depends,
        start_at=op.start_at.astimezone(UTC) if op.start_at else None,
        time_limit=op.time_limit,
        submitted=_in_turn(tx),
        grace=GRACE,
    )


def _in_turn(tx: Transaction) -> datetime:
    """Now, or just behind those that came in the same instant: first come is first served, also when a clock stands."""
    latest = tx.ledger.latest
    if latest is None or not tx.now <= latest <= tx.now + timedelta(seconds=1):
        return tx.now
    return latest + timedelta(microseconds=1)


async def _dependency(tx: Transaction, ref: str) -> str:
    """Id of a session to wait for; one that has ended without success would be waited for in vain."""
    other = await tx.session(ref)
    if other.state in ENDED and other.result != SessionResult.SUCCESS:
        message = S(
            "{name} has ended without success ({result}); nothing can wait for it.",
            name=other.name,
            result=other.result or other.state,
        )
        raise Refused(Reason(code="dependency", message=message))
    if other.state in ENDED:
        tx.ledger.past[other.id] = other
    return other.id


def project_of(tx: Transaction, wanted: str | None) -> str:
    """The project asked for, if the person may use it; else their first one. One that they are not in is as unknown as
    one that does not exist."""
    known = tx.core.directory.projects
    if wanted is None:
        wanted = next((project for project in [*tx.user.projects, *known] if access.is_in(tx.user, project)), None)
        if wanted is None:
            message = S("You are in no project yet; an admin can put you into one.")
            raise Refused(Reason(code="not_found", message=message))
    if wanted not in known or not access.is_in(tx.user, wanted):
        message = S("There is no project {name} that you are in.", name=wanted)
        near = nearest(wanted, [project for project in known if access.is_in(tx.user, project)])
        raise Refused(Reason(code="not_found", message=message, candidates=near))
    return wanted


def _workdir(tx: Transaction, wanted: str | None) -> str | None:
    if wanted is None:
        return None
    if not tx.same_host or not Path(wanted).is_dir():
        message = S("{path} is not a directory on the node; leave it out to get an own one.", path=wanted)
        raise Refused(Reason(code="invalid", message=message))
    return wanted


def _name(tx: Transaction, op: StartSession) -> str:
    if op.name is None:
        return tx.ledger.free_name(_slug(op.command or op.image or "session"))
    if not re.fullmatch(r"[^\s/\x00-\x1f]{1,100}", op.name):
        message = S("{name} can't be a session's name: up to 100 characters, no spaces or slashes.", name=op.name)
        raise Refused(Reason(code="invalid", message=message))
    if any(other.user == tx.user.name for other in tx.ledger.named.get(op.name, {}).values()):
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


def _fits_somewhere(tx: Transaction, session: LiveSession, fixed: bool) -> None:
    """Set the resource group: the one asked for, else the first that could ever hold it. Refused when none could."""
    groups = list(tx.core.directory.groups)
    if fixed and session.resource_group not in groups:
        message = S("There is no resource group {name}.", name=session.resource_group)
        raise Refused(Reason(code="not_found", message=message, candidates=groups))
    refusals: list[tuple[Reason, ...]] = []
    kin, unsaid = tx.core.outlook.kin, session.memory == 0
    for group in [session.resource_group] if fixed else _by_preference(kin, session.gpu > 0, groups):
        if unsaid:
            session.memory = _share_of_memory(kin.get(group), session)
        reasons = tx.core.outlook.never(session, group, tx.now)
        if not reasons:
            session.resource_group = group
            return
        refusals.append(reasons)
    if not refusals:
        raise Refused(Reason(code="no_alive_node", message=S("The cluster has no node yet.")))
    raise Refused(*min(refusals, key=_shortfall))


def _by_preference(kin: Mapping[str, Kin], wants: bool, groups: list[str]) -> list[str]:
    """Groups with devices first when GPUs are wanted, last when not; `default` before others."""
    peopled = [group for group in groups if group in kin]
    return sorted(peopled, key=lambda group: (kin[group].devices != wants, group != "default", group))


def _share_of_memory(kin: Kin | None, session: LiveSession) -> int:
    """Memory in step with the cores asked for, as the group's leanest node has it; whole GiB."""
    per_core = kin.memory_per_core if kin else 0.0
    return max(LEAST_MEMORY * session.node_count, int(per_core * session.cpu) // 2**30 * 2**30)


def _shortfall(reasons: tuple[Reason, ...]) -> float:
    """How much is short; endless where it is not a matter of amounts, so that the nearest miss is told."""
    return sum((r.asked or 0) - r.available if r.available is not None else math.inf for r in reasons)


async def terminate(tx: Transaction, op: TerminateSessions) -> Done:
    """Waiting ones are cancelled and can be put back; those that hold something are stopped, and may lose work."""
    sessions = list({s.id: s for s in [await tx.session(ref) for ref in op.sessions]}.values())
    for session in sessions:
        _may_stop(tx, session, op.force)
    done, replaced = Done(effects=[], targets=[s.name for s in sessions]), standins.stopped(tx, sessions)
    waiting = [s.id for s in sessions if s.state in WAITING]
    for session in sessions:
        stop(tx, session, 0 if op.force else GRACE, done)
    done.add(replaced)
    if len(waiting) == len(sessions):
        done.inverse = {"op": "_requeue", "sessions": waiting}
        done.undo = S("undo puts it back in its place in the queue.")
    return done


def _may_stop(tx: Transaction, session: LiveSession, force: bool) -> None:
    access.must_own(tx.user, session.name, session.user, session.project)
    if session.state not in LIVE:
        message = S("{name} has ended already ({state}).", name=session.name, state=session.state)
        raise Refused(Reason(code="conflict", message=message))
    if session.state == SessionState.TERMINATING and not force and not session.requeue:
        message = S("{name} is being stopped already; with force it is killed at once.", name=session.name)
        raise Refused(Reason(code="conflict", message=message))


def stop(tx: Transaction, session: LiveSession, grace: float, done: Done) -> None:
    """Cancel it if it waits, else have its agents stop it; adds effects and warnings to `done`."""
    owner = tx.other(session.user)
    dependents = _dependents(tx, session)
    if session.state in WAITING:
        tx.move(session, SessionState.CANCELLED)
        message = S("{name} is taken out of the queue.", name=session.name)
    elif session.state in HOLDING:
        message = _gives_back(session)
        done.warnings.append(_loss(session, tx))
        _let_go(tx, session, grace)
    done.effects.append(Effect(kind="stops", target=session.name, message=message, owner=owner))
    for name in dependents:
        text = S("{name} depends on {other} and is cancelled with it.", name=name, other=session.name)
        done.effects.append(Effect(kind="stops", target=name, message=text))


def _let_go(tx: Transaction, session: LiveSession, grace: float) -> None:
    """To TERMINATING, until its agents say that it is gone; at once to its end where no agent has heard of it.

    One that was making room for another does not come back.
    """
    tx.edit(session)
    session.grace, session.requeue = grace, False
    if session.state == SessionState.SCHEDULED and not tx.handed_out(session):
        tx.move(session, SessionState.TERMINATED, SessionResult.CANCELLED)
    elif session.state != SessionState.TERMINATING:
        tx.move(session, SessionState.TERMINATING)
    else:
        tx.nudge(session)


def _loss(row: LiveSession, tx: Transaction) -> Sentence:
    if row.started is None:
        return S("{name} has its place already; undo can't put it back in the queue.", name=row.name)
    age = human_duration((tx.now - row.started).total_seconds())
    return S(
        "{name} has run for {age}; what it has not saved is lost, and undo can't bring it back.", name=row.name, age=age
    )


def _gives_back(row: LiveSession) -> Sentence:
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


def _dependents(tx: Transaction, session: LiveSession) -> list[str]:
    """Names, as far as the asking person may see them."""
    held = (other for other in tx.ledger.dependents.get(session.id, {}).values() if other.state == "held")
    return [o.name if access.sees(tx.user, o.user, o.project) else veil.label(tx.ledger, o.name) for o in held]


async def requeue(tx: Transaction, idents: list[str]) -> Done:
    """Undo of cancelling waiting sessions: back to PENDING with their old place (`submitted` stays)."""
    done = Done(effects=[], targets=[])
    for ident in idents:
        session = await tx.recall(ident)
        if session is None or session.state != SessionState.CANCELLED:
            name = session.name if session else ident
            message = S("{name} can't be put back; it is not cancelled any more.", name=name)
            raise Refused(Reason(code="conflict", message=message))
        tx.move(session, SessionState.PENDING)
        done.targets.append(session.name)
        message = S("{name} is back in the queue.", name=session.name)
        done.effects.append(Effect(kind="restores", target=session.name, message=message))
    return done
