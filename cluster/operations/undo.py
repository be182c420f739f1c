"""Taking back what was done: the journal's inverse, run as an operation of its own."""

from typing import Any

from sqlalchemy import select

from cluster import access
from cluster.db.tables import AuditRow
from cluster.errors import NotFound
from cluster.journal.chain import audit_id, number_of
from cluster.lifecycle import ENDED
from cluster.models import (
    AddProjectMember,
    CancelPipelineRun,
    DeactivateUser,
    DeleteEndpoint,
    DeleteFolder,
    DeletePipeline,
    LinkUser,
    Reason,
    RemoveProjectMember,
    ResumePipelineRun,
    RevokeToken,
    ScaleEndpoint,
    SetFolderQuota,
    SetQuota,
    SetSchedulingPolicy,
    TerminateSessions,
    Undo,
)
from cluster.operations import (
    endpoints,
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
    scaling,
    sessions,
    sharing,
    tokens,
)
from cluster.sentence import S
from cluster.transaction import Done, Refused, Transaction


async def undo(tx: Transaction, op: Undo) -> Done:
    """The asking person's last operation that can be taken back, or the one named."""
    row = await _last(tx) if op.action is None else await _named(tx, op.action)
    done = await _run(tx, dict(row.inverse or {}))
    done.undoes = row
    done.targets = [audit_id(row.id), *done.targets]
    done.undo, done.inverse = None, None
    return done


async def _last(tx: Transaction) -> AuditRow:
    query = (
        select(AuditRow)
        .where(AuditRow.user == tx.user.name, AuditRow.undone_by.is_(None), AuditRow.action != "undo")
        .where(AuditRow.result == "done")
        .order_by(AuditRow.id.desc())
        .limit(100)
    )
    rows = (await tx.db.scalars(query)).all()
    if not rows:
        raise Refused(Reason(code="not_found", message=S("You have done nothing yet that could be undone.")))
    earlier = next((r for r in rows[1:] if r.inverse is not None and not set(r.targets) & set(rows[0].targets)), None)
    return _undoable(rows[0], earlier)


async def _named(tx: Transaction, ref: str) -> AuditRow:
    number = number_of(ref)
    row = None if number is None else await tx.db.get(AuditRow, number)
    if row is None or not access.may_undo(tx.user, row.user):
        raise NotFound(S("There is no action {name}; /history lists them.", name=ref))
    return _undoable(row)


def _undoable(row: AuditRow, earlier: AuditRow | None = None) -> AuditRow:
    """`row`, if it can be taken back. The last one is never passed over in silence: `earlier` is only offered."""
    if row.result != "done":
        message = S("{name} was refused or failed; there is nothing to undo.", name=audit_id(row.id))
        raise Refused(Reason(code="conflict", message=message))
    if row.undone_by is not None:
        raise Refused(Reason(code="conflict", message=S("{name} is undone already.", name=audit_id(row.id))))
    if row.inverse is not None:
        return row
    words = {"name": audit_id(row.id), "action": row.action, "targets": ", ".join(row.targets)}
    if earlier is None:
        message = S("{name} ({action} {targets}) can't be undone.", **words)
        raise Refused(Reason(code="conflict", message=message))
    message = S(
        "{name} ({action} {targets}) can't be undone; {earlier} ({before}) before it can.",
        earlier=audit_id(earlier.id),
        before=f"{earlier.action} {', '.join(earlier.targets)}",
        **words,
    )
    raise Refused(Reason(code="conflict", message=message, candidates=[audit_id(earlier.id)]))


async def _run(tx: Transaction, inverse: dict[str, Any]) -> Done:
    match inverse["op"]:
        case "terminate_sessions":
            return await _stop_again(tx, TerminateSessions.model_validate(inverse))
        case "set_scheduling_policy":
            return await groups.set_policy(tx, SetSchedulingPolicy.model_validate(inverse))
        case "delete_folder":
            return await folders.delete(tx, DeleteFolder.model_validate(inverse))
        case "set_folder_quota":
            return await folders.set_quota(tx, SetFolderQuota.model_validate(inverse))
        case "_share":
            return await sharing.put_back(tx, inverse["folder"], inverse["grants"])
        case "_untrash":
            return await folders.untrash(tx, inverse["folder"])
        case "_requeue":
            return await sessions.requeue(tx, inverse["sessions"])
        case "_set_node":
            return await nodes.set_status(tx, inverse["node"], inverse["made"], inverse["status"], inverse["reason"])
        case "_move_node":
            return await nodes.back_to_group(tx, inverse["node"], inverse["made"], inverse["group"])
        case "_set_priority":
            return await priority.put_back(tx, inverse["session"], inverse["made"], inverse["priority"])
        case "_set_autoscaling":
            return await scaling.put_back(tx, inverse)
        case "_uninstall_model":
            return await models.uninstall(tx, inverse["model"], inverse["created"])
        case "scale_endpoint":
            return await endpoints.scale(tx, ScaleEndpoint.model_validate(inverse))
        case "delete_endpoint":
            return await endpoints.delete(tx, DeleteEndpoint.model_validate(inverse))
        case "_restore_endpoint":
            return await endpoints.restore(tx, inverse["endpoint"])
        case "_former_revision":
            return await endpoints.back_to(tx, inverse)
        case "delete_pipeline":
            return await pipelines.delete(tx, DeletePipeline.model_validate(inverse))
        case "_put_pipeline" | "_restore_pipeline":
            return await pipelines.put_back(tx, inverse)
        case "cancel_pipeline_run":
            return await pipelines.cancel(tx, CancelPipelineRun.model_validate(inverse))
        case "resume_pipeline_run":
            return await pipelines.resume(tx, ResumePipelineRun.model_validate(inverse))
        case _:
            return await _run_of_people(tx, inverse)


async def _run_of_people(tx: Transaction, inverse: dict[str, Any]) -> Done:
    """Users, projects, quotas, images and tokens."""
    match inverse["op"]:
        case "deactivate_user":
            return await people.deactivate(tx, DeactivateUser.model_validate(inverse))
        case "_reactivate":
            return await people.let_in(tx, inverse["user"], inverse["sessions"])
        case "link_user":
            return await linking.link(tx, LinkUser.model_validate(inverse))
        case "_remove_project":
            return await people.remove_project(tx, inverse["project"])
        case "add_project_member":
            return await people.add_member(tx, AddProjectMember.model_validate(inverse))
        case "remove_project_member":
            return await people.remove_member(tx, RemoveProjectMember.model_validate(inverse))
        case "_rejoin":
            return await people.rejoin(tx, inverse)
        case "set_quota":
            return await quotas.set_quota(tx, SetQuota.model_validate(inverse))
        case "_restore_image":
            return await images.put_back(tx, inverse["image"], inverse["there"], inverse["registry"])
        case "revoke_token":
            return await tokens.revoke(tx, RevokeToken.model_validate(inverse))
        case other:
            raise ValueError(f"the journal holds an unknown inverse {other!r}")


async def _stop_again(tx: Transaction, op: TerminateSessions) -> Done:
    row = await tx.session(op.sessions[0])
    if row.state in ENDED:
        raise Refused(
            Reason(
                code="conflict", message=S("{name} has ended already; there is nothing to take back.", name=row.name)
            )
        )
    return await sessions.terminate(tx, op)
