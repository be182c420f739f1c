"""How an endpoint scales itself: the policy, and taking it back."""

from typing import Any

from cluster.db.tables import EndpointRow
from cluster.models import Autoscaling, Effect, Reason, SetAutoscaling
from cluster.operations.endpoints import to_change, to_put_back
from cluster.sentence import Param, S, Sentence
from cluster.serving.autoscale import Memory, decide
from cluster.serving.endpoints import read
from cluster.serving.scaling import seen_of
from cluster.transaction import Done, Refused, Transaction


async def set_autoscaling(tx: Transaction, op: SetAutoscaling) -> Done:
    """From now on its number of replicas follows from what is measured; what that would be now is told."""
    policy = _policy(op)
    row = await to_change(tx, op.endpoint)
    before = row.autoscaling
    if before is not None and Autoscaling.model_validate(before) == policy:
        raise Refused(Reason(code="conflict", message=S("{name} scales itself that way already.", name=row.name)))
    return await _set(tx, row, policy.model_dump(mode="json"), before)


async def put_back(tx: Transaction, inverse: dict[str, Any]) -> Done:
    """Undo: the former policy. Refused when it has yet another by now."""
    row = await to_put_back(tx, inverse["endpoint"])
    if row.autoscaling != inverse["made"]:
        message = S("{name} scales itself otherwise by now; nothing is taken back.", name=row.name)
        raise Refused(Reason(code="conflict", message=message))
    return await _set(tx, row, inverse["policy"], row.autoscaling)


async def _set(tx: Transaction, row: EndpointRow, policy: dict[str, Any] | None, before: dict[str, Any] | None) -> Done:
    row.autoscaling = policy
    await tx.db.flush()
    tx.core.autoscaler.look_again()
    owner = tx.other(row.owner)
    effects = [Effect(kind="changes", target=row.name, message=_told(row, policy), owner=owner)]
    if policy is not None and (now := await _now(tx, row, Autoscaling.model_validate(policy))):
        effects.append(Effect(kind="changes", target=row.name, message=now, owner=owner, stable=False))
    said = (
        S("{user} had {name} scale itself.", user=tx.user.name, name=row.name)
        if policy is not None
        else S("{user} ended that {name} scales itself.", user=tx.user.name, name=row.name)
    )
    tx.event("endpoint_policy", row.name, said, owner=row.owner, project=row.project)
    undo = (
        S("undo puts the former policy of {name} back.", name=row.name)
        if before is not None
        else S("undo ends it; {name} keeps as many replicas as it then has.", name=row.name)
    )
    inverse = {"op": "_set_autoscaling", "endpoint": row.id, "policy": before, "made": policy}
    return Done(effects=effects, targets=[row.name], undo=undo, inverse=inverse)


async def _now(tx: Transaction, row: EndpointRow, policy: Autoscaling) -> Sentence | None:
    """What would be decided at this moment."""
    for known in await read(tx.db, tx.now, row.id):
        seen = seen_of(tx.core, tx.core.serving.picture(known, tx.ledger), Memory())
        return decide(policy, seen).reason
    return None


def _policy(op: SetAutoscaling) -> Autoscaling:
    if op.min_replicas > op.max_replicas:
        words: dict[str, Param] = {"least": op.min_replicas, "most": op.max_replicas}
        message = S("At least {least} and at most {most} replicas is not possible.", **words)
        raise Refused(Reason(code="invalid", message=message))
    if op.metric == "gpu_utilization" and op.target > 1:
        message = S("A share of the GPUs is between 0 and 1: write 0.7 for 70 %.")
        raise Refused(Reason(code="invalid", message=message))
    return Autoscaling(metric=op.metric, target=op.target, min_replicas=op.min_replicas, max_replicas=op.max_replicas)


def _told(row: EndpointRow, policy: dict[str, Any] | None) -> Sentence:
    if policy is None:
        return S("{name} does not scale itself any more; it keeps {count} replicas.", name=row.name, count=row.replicas)
    words: dict[str, Param] = {"name": row.name, "least": policy["min_replicas"], "most": policy["max_replicas"]}
    target = policy["target"]
    match policy["metric"]:
        case "requests_per_second":
            return S("{name} has {least} to {most} replicas, one for every {target} requests a second.",
                     target=f"{target:g}", **words)  # fmt: skip
        case "latency_p95":
            return S("{name} has {least} to {most} replicas, so that 95 % of answers come within {target} s.",
                     target=f"{target:g}", **words)  # fmt: skip
        case "queue_depth":
            return S("{name} has {least} to {most} replicas, one for every {target} requests under way.",
                     target=f"{target:g}", **words)  # fmt: skip
        case _:
            return S("{name} has {least} to {most} replicas, so that their GPUs are used to {target} %.",
                     target=f"{100 * target:g}", **words)  # fmt: skip
