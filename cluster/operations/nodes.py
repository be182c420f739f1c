"""Taking nodes out of use and back."""

from cluster import access
from cluster.live import LiveNode
from cluster.models import CordonNode, DrainNode, Effect, NodeStatus, Reason, UncordonNode
from cluster.operations import sessions
from cluster.sentence import S
from cluster.transaction import Done, Refused, Transaction


async def cordon(tx: Transaction, op: CordonNode) -> Done:
    """No new sessions on the node; those that run go on."""
    row = _found(tx, op.node)
    if row.status == NodeStatus.CORDONED:
        raise _already(row)
    running = tx.ledger.sessions_on(row.name)
    done = _changed(tx, row, NodeStatus.CORDONED, op.reason)
    message = S(
        "{node} takes no new sessions; those that run there go on ({count}).", node=row.name, count=len(running)
    )
    done.effects.append(Effect(kind="changes", target=row.name, message=message))
    return done


async def uncordon(tx: Transaction, op: UncordonNode) -> Done:
    """The node takes new sessions again, whether it was cordoned or draining."""
    row = _found(tx, op.node)
    if row.status == NodeStatus.ALIVE:
        raise _already(row)
    done = _changed(tx, row, NodeStatus.ALIVE, None)
    done.effects.append(
        Effect(kind="changes", target=row.name, message=S("{node} takes new sessions again.", node=row.name))
    )
    return done


async def drain(tx: Transaction, op: DrainNode) -> Done:
    """No new sessions, and those that run are asked to stop, and killed after the grace."""
    row = _found(tx, op.node)
    if row.status == NodeStatus.DRAINING:
        raise _already(row)
    running = tx.ledger.sessions_on(row.name)
    done = _changed(tx, row, NodeStatus.DRAINING, op.reason)
    message = S("{node} takes no new sessions and is emptied.", node=row.name)
    done.effects.append(Effect(kind="changes", target=row.name, message=message))
    for session in running:
        sessions.stop(tx, session, sessions.GRACE if op.grace is None else op.grace, done)
    if running:
        done.undo = S("undo takes new sessions on {node} again; the stopped sessions stay stopped.", node=row.name)
    return done


async def set_status(tx: Transaction, node: str, made: str, status: str, reason: str | None) -> Done:
    """Undo of the three: from what they `made` of the node back to what it was. Refused when it is neither now."""
    row = _found(tx, node)
    if row.status != made:
        message = S(
            "{node} is {status} by now, not {made}; nothing is taken back.", node=row.name, status=row.status, made=made
        )
        raise Refused(Reason(code="conflict", message=message))
    done = _changed(tx, row, NodeStatus(status), reason)
    message = S("{node} is {status} again.", node=row.name, status=status)
    done.effects.append(Effect(kind="restores", target=row.name, message=message))
    return done


def _found(tx: Transaction, ref: str) -> LiveNode:
    access.must_be_admin(tx.user)
    row = tx.node(ref)
    if row.status == NodeStatus.LOST:
        message = S(
            "{node} is lost: its agent does not answer. It comes back by itself when the agent does.", node=row.name
        )
        raise Refused(Reason(code="conflict", message=message))
    return row


def _already(row: LiveNode) -> Refused:
    return Refused(
        Reason(
            code="conflict", message=S("{node} is {status} already; nothing to do.", node=row.name, status=row.status)
        )
    )


def _changed(tx: Transaction, row: LiveNode, status: NodeStatus, reason: str | None) -> Done:
    before = {
        "op": "_set_node",
        "node": row.name,
        "made": status.value,
        "status": row.status,
        "reason": row.reason,
    }
    undo = S("undo makes {node} {status} again.", node=row.name, status=row.status)
    tx.event(
        f"node_{status.value}",
        row.name,
        S("{node} is {status} now, by {user}.", node=row.name, status=status.value, user=tx.user.name),
    )
    tx.edit_node(row)
    row.status, row.reason = status.value, reason
    return Done(effects=[], targets=[row.name], undo=undo, inverse=before)
