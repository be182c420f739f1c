"""Starting a session again: one that runs in its place in the queue, one that has ended as a new session."""

from sqlalchemy import select

from cluster import access
from cluster.db.tables import EndpointRow, ReplicaRow, StepRow
from cluster.lifecycle import ENDED, WAITING
from cluster.live import LiveSession
from cluster.models import Effect, Reason, RestartSession, SessionState, StartSession
from cluster.operations import priority, sessions
from cluster.sentence import S, Sentence
from cluster.transaction import Done, Refused, Transaction
from cluster.units import human_duration

AS_IT_WAS = (
    "image", "type", "command", "project", "mounts", "env", "depends_on", "cpu", "memory", "gpu", "gpu_model",
    "node_count", "resource_group", "time_limit", "rack", "accelerator", "preemptible", "workdir",
)  # fmt: skip
"""What a new session takes over from one that has ended. Not its `start_at`, which is past."""


async def restart(tx: Transaction, op: RestartSession) -> Done:
    """With the same definition; refused where something else keeps it going, or where there is nothing to restart."""
    session = await tx.session(op.session)
    access.must_own(tx.user, session.name, session.user, session.project)
    await _not_kept_by_others(tx, session)
    if session.state in ENDED:
        return await _anew(tx, session)
    _is_under_way(tx, session)
    tx.edit(session)
    session.grace, session.requeue, session.reasons = sessions.GRACE, True, []
    warning = _loss(tx, session)
    tx.move(session, SessionState.TERMINATING)
    return Done(effects=_what_comes(tx, session), targets=[session.name], warnings=[warning])


async def _not_kept_by_others(tx: Transaction, session: LiveSession) -> None:
    """A replica is replaced by its endpoint, a step repeated by its run."""
    endpoint = (
        select(EndpointRow.name)
        .join(ReplicaRow, ReplicaRow.endpoint == EndpointRow.id)
        .where(ReplicaRow.session == session.id)
    )
    async with tx.look() as db:
        served = await db.scalar(endpoint)
        run = await db.scalar(select(StepRow.run).where(StepRow.session == session.id))
    if served is not None:
        message = S(
            "{name} serves the endpoint {endpoint}, which replaces it when it is stopped.",
            name=session.name,
            endpoint=served,
        )
        raise Refused(Reason(code="conflict", message=message))
    if run is not None:
        message = S("{name} is a step of the run {run}; cancel and resume the run instead.", name=session.name, run=run)
        raise Refused(Reason(code="conflict", message=message))


def _is_under_way(tx: Transaction, session: LiveSession) -> None:
    if session.state in WAITING or (session.state == SessionState.SCHEDULED and not tx.handed_out(session)):
        message = S("{name} has not started yet; there is nothing to restart.", name=session.name)
        raise Refused(Reason(code="conflict", message=message))
    if session.state == SessionState.TERMINATING:
        message = S("{name} is being stopped; start it again when it has ended.", name=session.name)
        raise Refused(Reason(code="conflict", message=message))


def _loss(tx: Transaction, session: LiveSession) -> Sentence:
    if session.started is None:
        return S("{name} is being set up; that begins anew, and undo can't take it back.", name=session.name)
    age = human_duration((tx.now - session.started).total_seconds())
    return S(
        "{name} has run for {age}; what it has not saved is lost, and undo can't bring it back.",
        name=session.name,
        age=age,
    )


def _what_comes(tx: Transaction, session: LiveSession) -> list[Effect]:
    """That it stops, and by the scheduler's plan where it starts again once it is gone from its nodes."""
    owner = tx.other(session.user)
    stops = S("{name} is stopped, and waits in its old place in the queue to start again.", name=session.name)
    effects = [Effect(kind="restarts", target=session.name, message=stops, owner=owner)]
    places = tx.core.outlook.without({session.id}, tx.now).get(session.id)
    if places:
        where = ", ".join(p.node for p in places)
        message = S("{name} starts again on {where} once it is stopped.", name=session.name, where=where)
        return [*effects, Effect(kind="restarts", target=session.name, message=message, owner=owner, stable=False)]
    message = S("{name} does not start again at once: others have a right to its place.", name=session.name)
    return [*effects, Effect(kind="waits", target=session.name, message=message, owner=owner)]


async def _anew(tx: Transaction, old: LiveSession) -> Done:
    """A new session of the same definition. It would be the asking person's, so only the owner may."""
    if old.user != tx.user.name:
        message = S(
            "{name} has ended; a new one would be yours, so only {owner} can start it again.",
            name=old.name,
            owner=old.user,
        )
        raise Refused(Reason(code="not_allowed", message=message))
    allowed = access.favours(tx.user, old.user, old.project)
    first = old.priority if allowed else min(old.priority, priority.USUAL)
    free = old.name not in tx.ledger.named
    asked = {name: getattr(old, name) for name in AS_IT_WAS}
    name = old.name if free else tx.ledger.free_name(old.name)
    done = await sessions.start(tx, StartSession(**asked, name=name, priority=first))
    message = S("{name} has ended ({state}); {new} is started as a new session of the same definition.",
                name=old.name, state=old.state, new=name)  # fmt: skip
    done.effects.insert(0, Effect(kind="creates", target=name, message=message))
    if first != old.priority:
        text = S("It starts with priority {priority}; {before} was given to the one that has ended.",
                 priority=first, before=old.priority)  # fmt: skip
        done.warnings.append(text)
    return done
