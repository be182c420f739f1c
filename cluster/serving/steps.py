"""Doing what an endpoint needs, inside a transaction: for the keeper, and for operations, whose previews show it so."""

from dataclasses import dataclass, field, replace
from zlib import crc32

from sqlalchemy import delete, select

from cluster.db.tables import EndpointRow, ReplicaRow
from cluster.errors import ClusterError, NotAllowed
from cluster.live import LiveSession
from cluster.models import EndpointState, Launch, Reason, SessionResult, SessionType, StartSession, User
from cluster.operations import sessions
from cluster.sentence import Param, S, Sentence
from cluster.serving.endpoints import REMEMBERED, Alive, Known, Picture, forget_failures, move
from cluster.serving.rollout import (
    Deleted,
    Drain,
    Forgiven,
    GiveUp,
    Start,
    Step,
    Stop,
    Updated,
    failed_again,
    next_steps,
)
from cluster.transaction import Done, Refused, Transaction

FIRST_PORT, PORTS = 30000, 10000
TOLD_AFTER = 3
"""So many failures in a row are told in the endpoint's row."""


@dataclass
class Took:
    """What came of it."""

    made: list[LiveSession] = field(default_factory=list)
    drained: list[LiveSession] = field(default_factory=list)
    changed: bool = False


async def take(tx: Transaction, at: Picture) -> Took:
    """Take note of what has ended, and do what is due now. `Refused` when a replica could never start."""
    took = Took()
    for row in at.back:
        row.gone, took.changed = None, True
    for a in at.moved:
        _note_move(tx, at.known.row, a)
        took.changed = True
    for row in at.ended:
        await _note_end(tx, at.known, row)
        took.changed = True
    if at.ended:
        long_gone = delete(ReplicaRow).where(
            ReplicaRow.endpoint == at.known.row.id, ReplicaRow.gone < tx.now - REMEMBERED
        )
        await tx.db.execute(long_gone)
    for step in next_steps(at.known.wish, at.seen, tx.now):
        await _take_one(tx, at, step, took)
        took.changed = True
    return took


async def _take_one(tx: Transaction, at: Picture, step: Step, took: Took) -> None:
    known = at.known
    match step:
        case Start(count):
            for _ in range(count):
                took.made.append(await start(tx, known))
        case Drain(ident):
            _drain(tx, at, ident, took)
        case Stop(ident, why):
            session = tx.ledger.sessions[ident]
            sessions.stop(tx, session, sessions.GRACE, Done(effects=[], targets=[]))
            if why != "drained":
                _failed(tx, known.row, _fault(session.name, why))
        case GiveUp(why):
            _give_up(tx, known, why)
        case Updated():
            known.row.former = known.row.updating = None
            forget_failures(known.row)
            said = S("{name} has revision {revision} now.", name=known.row.name, revision=known.row.revision)
            tx.event("endpoint_updated", known.row.name, said, owner=known.row.owner, project=known.row.project)
        case Forgiven():
            forget_failures(known.row)
        case Deleted():
            move(known.row, EndpointState.DELETED, tx.now)
            row, said = known.row, S("{name} is gone.", name=known.row.name)
            tx.event("endpoint_deleted", row.name, said, owner=row.owner, project=row.project)


# ── starting ─────────────────────────────────────────────────────────────────────────────────────


async def start(tx: Transaction, known: Known) -> LiveSession:
    """One more replica of the endpoint's revision, as its owner's session."""
    row, launch = known.row, known.launch(known.row.revision)
    port = await _free_port(tx, f"{row.name}/{tx.now.isoformat()}/{len(known.replicas)}")
    operation = StartSession(
        name=_free_name(tx, row.name),
        type=SessionType.INFERENCE,
        image=launch.image,
        command=launch.command,
        env=launch.env | _environment(tx, known, launch, port),
        cpu=launch.cpu,
        memory=launch.memory,
        gpu=launch.gpu or None,
        gpu_model=launch.gpu_model,
        project=row.project,
        resource_group=row.resource_group,
    )
    done = await sessions.start(replace(tx, user=_owner(tx, row)), operation)
    session = done.sessions[0]
    session.shown = [launch.files] if launch.files else []
    replica = ReplicaRow(session=session.id, endpoint=row.id, revision=row.revision, port=port)
    tx.db.add(replica)
    await tx.db.flush()
    known.replicas.append(replica)
    return session


def _environment(tx: Transaction, known: Known, launch: Launch, port: int) -> dict[str, str]:
    """What `Launch.command` finds; the model's directory is told by its revision."""
    return {
        "PORT": str(port),
        "GPU_COUNT": str(int(launch.gpu)),
        "MODEL_NAME": known.revisions[known.row.revision].model,
        "HELMSMAN_ENDPOINT": known.row.name,
    }


def _owner(tx: Transaction, row: EndpointRow) -> User:
    owner = tx.core.directory.users.get(row.owner)
    if owner is None or not owner.active:
        raise NotAllowed(
            S(
                "{owner}, whose endpoint {name} is, is not active any more; deploy it anew.",
                owner=row.owner,
                name=row.name,
            )
        )
    return owner


def _free_name(tx: Transaction, endpoint: str) -> str:
    number = 1
    while f"{endpoint}-{number}" in tx.ledger.named:
        number += 1
    return f"{endpoint}-{number}"


async def _free_port(tx: Transaction, seed: str) -> int:
    """One that no live replica has; not always the same, in case something else on the node has it."""
    taken = set(await tx.db.scalars(select(ReplicaRow.port).where(ReplicaRow.gone.is_(None))))
    first = crc32(seed.encode()) % PORTS
    free = (FIRST_PORT + (first + i) % PORTS for i in range(PORTS))
    port = next((port for port in free if port not in taken), None)
    if port is None:
        raise Refused(Reason(code="conflict", message=S("All {count} ports for replicas are in use.", count=PORTS)))
    return port


# ── ending ───────────────────────────────────────────────────────────────────────────────────────


def _drain(tx: Transaction, at: Picture, ident: str, took: Took) -> None:
    alive = next(a for a in at.alive if a.session.id == ident)
    alive.row.draining = tx.now
    took.drained.append(alive.session)
    said = S(
        "{replica} of {name} gets no new requests and is stopped.", replica=alive.session.name, name=at.known.row.name
    )
    row = at.known.row
    tx.event("replica_draining", row.name, said, owner=row.owner, project=row.project)


def _note_move(tx: Transaction, row: EndpointRow, a: Alive) -> None:
    """Its node is being emptied from now on, or is not any more."""
    a.row.leaving = a.seen.leaving
    words: dict[str, Param] = {"replica": a.session.name, "name": row.name, "node": a.node.name if a.node else ""}
    said = (
        S("{replica} of {name} has to leave {node}; it serves until a stand-in does.", **words)
        if a.row.leaving is not None
        else S("{replica} of {name} stays on {node}.", **words)
    )
    tx.event("replica_moving", row.name, said, owner=row.owner, project=row.project)


async def _note_end(tx: Transaction, known: Known, row: ReplicaRow) -> None:
    """A replica that has ended by itself is a failure; one that was stopped, or whose node was lost, is none."""
    row.gone = tx.now
    session = await tx.recall(row.session)
    if session is None or row.draining is not None or known.row.state != EndpointState.ACTIVE:
        return
    if session.result in (SessionResult.FAILURE, SessionResult.SUCCESS):
        said = S("{replica} ended by itself (exit code {code}).", replica=session.name, code=str(session.exit_code))
        _failed(tx, known.row, said)


def _fault(replica: str, why: str) -> Sentence:
    if why == "late":
        return S("{replica} was not ready in time and is stopped.", replica=replica)
    return S("{replica} does not answer its health checks any more and is stopped.", replica=replica)


def _failed(tx: Transaction, row: EndpointRow, said: Sentence) -> None:
    row.failures = failed_again(row.failures, row.failed_at, tx.now)
    row.failed_at = tx.now
    tx.event("replica_failed", row.name, said, "error", owner=row.owner, project=row.project)
    if row.failures >= TOLD_AFTER and row.former is None:
        many = S("{count} replicas in a row have failed; see the output of the last one.", count=row.failures)
        row.reasons = [_reason(many), _reason(said)]


def refused(tx: Transaction, row: EndpointRow, why: Refused | ClusterError) -> None:
    """No replica can be started just now; it is tried again after a pause."""
    row.failures = failed_again(row.failures, row.failed_at, tx.now)
    row.failed_at = tx.now
    reasons = why.reasons if isinstance(why, Refused) else [Reason(code="unavailable", message=why.sentence)]
    row.reasons = [reason.model_dump(mode="json") for reason in reasons]
    said = S("No replica of {name} can be started: {why}", name=row.name, why=str(reasons[0].message))
    tx.event("replica_refused", row.name, said, "warning", owner=row.owner, project=row.project)


def _give_up(tx: Transaction, known: Known, why: str) -> None:
    """Back to the former revision; the reason stays in the row until the next update."""
    row = known.row
    words: dict[str, Param] = {"name": row.name, "revision": row.revision, "former": row.former or 0}
    said = {
        "room": S("{name} stays at revision {former}: there was no room for a replica of {revision}.", **words),
        "late": S("{name} stays at revision {former}: a replica of {revision} was not ready in time.", **words),
        "failed": S("{name} stays at revision {former}: replicas of {revision} kept failing.", **words),
    }[why]
    row.revision, row.former, row.updating = row.former or row.revision, None, None
    forget_failures(row)
    row.reasons = [_reason(said)]
    tx.event("endpoint_update_given_up", row.name, said, "error", owner=row.owner, project=row.project)


def _reason(said: Sentence) -> dict[str, object]:
    return Reason(code="unavailable", message=said).model_dump(mode="json")
