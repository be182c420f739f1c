"""Who goes first: the priority of sessions that wait or run."""

from cluster import access
from cluster.errors import NotAllowed
from cluster.lifecycle import LIVE, WAITING
from cluster.live import LiveSession
from cluster.models import Effect, Reason, SessionState, SetSessionPriority
from cluster.sentence import S, Sentence
from cluster.transaction import Done, Refused, Transaction

USUAL = 10
"""What everybody gets, and the most that an owner may give their own work."""


async def set_priority(tx: Transaction, op: SetSessionPriority) -> Done:
    """A waiting session moves in its queue at once; for one that runs it counts when others need its place."""
    session = await tx.session(op.session)
    _may_change(tx, session)
    if session.priority == op.priority:
        message = S("{name} has priority {priority} already; nothing to do.", name=session.name, priority=op.priority)
        raise Refused(Reason(code="conflict", message=message))
    if op.priority > session.priority:
        must_favour(tx, session, op.priority)
    inverse = {"op": "_set_priority", "session": session.id, "made": op.priority, "priority": session.priority}
    undo = S("undo gives {name} priority {priority} again.", name=session.name, priority=session.priority)
    return _changed(tx, session, op.priority, Done(effects=[], targets=[session.name], undo=undo, inverse=inverse))


def must_favour(tx: Transaction, session: LiveSession, priority: int) -> None:
    """Above the usual, it goes before other people's work: not the owner's to say. Raises `NotAllowed`."""
    if priority > USUAL and not access.favours(tx.user, session.user, session.project):
        raise NotAllowed(
            S(
                "Priority {priority} goes before other people's work: up to {usual} is yours to give, "
                "more is for an admin of {project} or an admin.",
                priority=priority,
                usual=USUAL,
                project=session.project,
            )
        )


async def put_back(tx: Transaction, ident: str, made: int, priority: int) -> Done:
    """Undo: from what was `made` of it back to what it was, as whoever had the right had given it."""
    session = await tx.session(ident)
    _may_change(tx, session)
    if session.priority != made:
        message = S("{name} has priority {priority} by now, not {made}; nothing is taken back.",
                    name=session.name, priority=session.priority, made=made)  # fmt: skip
        raise Refused(Reason(code="conflict", message=message))
    return _changed(tx, session, priority, Done(effects=[], targets=[session.name]))


def _may_change(tx: Transaction, session: LiveSession) -> None:
    access.must_own(tx.user, session.name, session.user, session.project)
    if session.state not in LIVE:
        message = S("{name} has ended already ({state}).", name=session.name, state=session.state)
        raise Refused(Reason(code="conflict", message=message))
    if session.state == SessionState.TERMINATING and not session.requeue:
        message = S("{name} is being stopped; its priority does not matter any more.", name=session.name)
        raise Refused(Reason(code="conflict", message=message))


def _changed(tx: Transaction, session: LiveSession, priority: int, done: Done) -> Done:
    message = S("{name} has priority {priority} now, not {before}.",
                name=session.name, priority=priority, before=session.priority)  # fmt: skip
    tx.edit(session).priority = priority
    tx.ledger.stirred.add(session.id)
    tx.session_event("session_changed", session, message)
    owner = tx.other(session.user)
    said = [(message, True), (_meaning(tx, session), False)]
    done.effects = [Effect(kind="changes", target=session.name, message=m, owner=owner, stable=s) for m, s in said]
    return done


def _meaning(tx: Transaction, session: LiveSession) -> Sentence:
    """What it means for its place in the queue, or for its place on the nodes."""
    group = session.resource_group
    others = [s.priority for s in tx.ledger.waiting.values() if s.resource_group == group and s is not session]
    higher = sum(other > session.priority for other in others)
    if session.state in WAITING:
        lower = sum(other < session.priority for other in others)
        return S("Waiting in {group} with a higher priority: {higher}; with a lower one: {lower}.",
                 group=group, higher=higher, lower=lower)  # fmt: skip
    if session.preemptible and tx.core.directory.groups[group].preemption:
        return S("It goes on; those that wait in {group} with a higher priority may take its place ({higher}).",
                 group=group, higher=higher)  # fmt: skip
    return S("It goes on as before: nothing takes its place in {group}.", group=group)
