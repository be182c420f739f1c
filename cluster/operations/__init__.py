"""What can be done, one function per operation: authorise, change rows, say what it means and how it is put back.

`apply` finds the function by the operation's type. A refusal is raised as `Refused` and becomes an outcome.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from cluster.models import Operation
from cluster.operations import (
    cloning,
    endpoints,
    files,
    folders,
    groups,
    images,
    linking,
    models,
    nodes,
    people,
    pipelines,
    priority,
    quotas,
    restarting,
    scaling,
    sessions,
    sharing,
    tokens,
    undo,
)
from cluster.transaction import Done, Transaction

_APPLY: dict[str, Callable[[Transaction, Any], Awaitable[Done]]] = {
    "start_session": sessions.start,
    "terminate_sessions": sessions.terminate,
    "restart_session": restarting.restart,
    "set_session_priority": priority.set_priority,
    "cordon_node": nodes.cordon,
    "uncordon_node": nodes.uncordon,
    "drain_node": nodes.drain,
    "move_node": nodes.move,
    "set_scheduling_policy": groups.set_policy,
    "create_folder": folders.create,
    "delete_folder": folders.delete,
    "delete_file": files.delete,
    "restore_folder": folders.restore,
    "share_folder": sharing.share,
    "unshare_folder": sharing.unshare,
    "clone_folder": cloning.clone,
    "set_folder_quota": folders.set_quota,
    "create_project": people.create_project,
    "create_user": people.create_user,
    "deactivate_user": people.deactivate,
    "reactivate_user": people.reactivate,
    "link_user": linking.link,
    "add_project_member": people.add_member,
    "remove_project_member": people.remove_member,
    "set_quota": quotas.set_quota,
    "register_image": images.register,
    "create_token": tokens.create,
    "revoke_token": tokens.revoke,
    "install_model": models.install,
    "deploy_model": endpoints.deploy,
    "scale_endpoint": endpoints.scale,
    "set_autoscaling": scaling.set_autoscaling,
    "delete_endpoint": endpoints.delete,
    "put_pipeline": pipelines.put,
    "delete_pipeline": pipelines.delete,
    "run_pipeline": pipelines.run,
    "cancel_pipeline_run": pipelines.cancel,
    "resume_pipeline_run": pipelines.resume,
    "undo": undo.undo,
}


async def apply(tx: Transaction, operation: Operation) -> Done:
    """Carry `operation` out inside `tx`. Raises `Refused` or a `ClusterError`; the caller rolls back."""
    return await _APPLY[operation.op](tx, operation)
