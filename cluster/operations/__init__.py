"""What can be done, one function per operation: authorise, change rows, say what it means and how it is put back.

`apply` finds the function by the operation's type. A refusal is raised as `Refused` and becomes an outcome.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from cluster.models import Operation
from cluster.operations import folders, groups, nodes, sessions, undo
from cluster.transaction import Done, Transaction

_APPLY: dict[str, Callable[[Transaction, Any], Awaitable[Done]]] = {
    "start_session": sessions.start,
    "terminate_sessions": sessions.terminate,
    "cordon_node": nodes.cordon,
    "uncordon_node": nodes.uncordon,
    "drain_node": nodes.drain,
    "set_scheduling_policy": groups.set_policy,
    "create_folder": folders.create,
    "delete_folder": folders.delete,
    "restore_folder": folders.restore,
    "undo": undo.undo,
}


async def apply(tx: Transaction, operation: Operation) -> Done:
    """Carry `operation` out inside `tx`. Raises `Refused` or a `ClusterError`; the caller rolls back."""
    return await _APPLY[operation.op](tx, operation)
