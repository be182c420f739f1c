"""Taking nodes out of use and back, and into another resource group."""

from cluster import access
from cluster.errors import NotFound
from cluster.live import LiveNode, LiveSession
from cluster.models import CordonNode, DrainNode, Effect, MoveNode, NodeStatus, Reason, UncordonNode
from cluster.operations import sessions
from cluster.sentence import S, Sentence
from cluster.serving import standins
from cluster.transaction import Done, Refused, Transaction, nearest
from cluster.units import listed

NAMED = 8
"""So many sessions are named in a warning."""


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
    """No new sessions, and those that run are asked to stop, and killed after the grace.

    Replicas of endpoints leave when they have been replaced (`cluster.serving.rollout`); with a grace of 0 as all else.
    """
    row = _found(tx, op.node)
    if row.status == NodeStatus.DRAINING:
        raise _already(row)
    running = tx.ledger.sessions_on(row.name)
    done = _changed(tx, row, NodeStatus.DRAINING, op.reason)
    message = S("{node} takes no new sessions and is emptied.", node=row.name)
    done.effects.append(Effect(kind="changes", target=row.name, message=message))
    moving = [s for s in running if op.grace != 0 and standins.movable(tx, s)]
    stopped = [s for s in running if s not in moving]
    told = standins.stopped(tx, stopped)
    for session in stopped:
        sessions.stop(tx, session, sessions.GRACE if op.grace is None else op.grace, done)
    done.add(told)
    done.add(standins.moved(tx, moving))
    if running:
        done.undo = S("undo takes new sessions on {node} again; the stopped sessions stay stopped.", node=row.name)
    return done


async def move(tx: Transaction, op: MoveNode) -> Done:
    """Into another resource group. What runs there goes on and keeps its place; what waits is planned anew."""
    node, before = _found(tx, op.node), tx.node(op.node).resource_group
    known = tx.core.directory.groups
    if op.resource_group not in known:
        message = S("There is no resource group {name}.", name=op.resource_group)
        raise NotFound(message, nearest(op.resource_group, known))
    if before == op.resource_group:
        message = S("{node} is in {group} already; nothing to do.", node=node.name, group=before)
        raise Refused(Reason(code="conflict", message=message))
    could = _fitting(tx, before)
    running = len(tx.ledger.sessions_on(node.name))
    _into(tx, node, op.resource_group)
    message = S("{node} moves from {before} to {group}; what runs there goes on ({count}).",
                node=node.name, group=op.resource_group, before=before, count=running)  # fmt: skip
    return Done(
        effects=[Effect(kind="changes", target=node.name, message=message)],
        targets=[node.name],
        warnings=_stranded(tx, before, could),
        undo=S("undo moves {node} back to {group}.", node=node.name, group=before),
        inverse={"op": "_move_node", "node": node.name, "made": op.resource_group, "group": before},
    )


async def back_to_group(tx: Transaction, ref: str, made: str, group: str) -> Done:
    """Undo of a move. Refused when the node is in another group by now than the one it was moved to."""
    node = _found(tx, ref)
    if node.resource_group != made:
        words = {"node": node.name, "group": node.resource_group, "made": made}
        message = S("{node} is in {group} by now, not in {made}; nothing is taken back.", **words)
        raise Refused(Reason(code="conflict", message=message))
    _into(tx, node, group)
    message = S("{node} is in {group} again.", node=node.name, group=group)
    return Done(effects=[Effect(kind="restores", target=node.name, message=message)], targets=[node.name])


def _into(tx: Transaction, node: LiveNode, group: str) -> None:
    words = {"node": node.name, "group": group, "user": tx.user.name}
    tx.event("node_moved", node.name, S("{node} is in {group} now, by {user}.", **words))
    tx.edit_node(node).resource_group = group


def _fitting(tx: Transaction, group: str) -> list[LiveSession]:
    """Those that wait in `group` and could run there some time."""
    waiting = sorted((s for s in tx.ledger.waiting.values() if s.resource_group == group), key=lambda s: s.submitted)
    return [session for session in waiting if not tx.core.outlook.never(session, group, tx.now)]


def _stranded(tx: Transaction, group: str, could: list[LiveSession]) -> list[Sentence]:
    """Of those that could run in `group` before: which no node there could ever hold now."""
    names = [session.name for session in could if tx.core.outlook.never(session, group, tx.now)]
    if not names:
        return []
    told = listed(names, NAMED)
    return [S("No node of {group} could hold these any more, and they wait in vain: {names}.", group=group, names=told)]


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
