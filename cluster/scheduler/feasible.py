"""Could it ever run? Judged on the empty cluster, whatever is running, waiting or cordoned."""

from cluster.models import Reason
from cluster.scheduler import reasons
from cluster.scheduler.fleet import Fleet, Need, need_of
from cluster.scheduler.quota import Quotas
from cluster.scheduler.state import NodeView, Request, Snapshot


def feasible(snapshot: Snapshot, request: Request) -> tuple[Reason, ...]:
    """Why `request` could never run: no node large enough, no such GPU, above the quota. Empty when it could."""
    found = impossible(snapshot, Fleet(snapshot.nodes), request)
    return found or Quotas(snapshot).never(request)


def impossible(snapshot: Snapshot, fleet: Fleet, request: Request) -> tuple[Reason, ...]:
    """Why no nodes of the group could hold `request` even when all were empty and alive."""
    need = need_of(request)
    if request.group not in snapshot.groups:
        return (reasons.no_group(request.group, snapshot.groups),)
    if not need.sensible:
        return (reasons.odd_share(need.gpu),)
    capable = fleet.capable(need)
    if len(capable) >= request.node_count:
        return ()
    if capable:
        return (reasons.too_few_nodes(request.group, request.node_count, len(capable)),)
    return _too_large(fleet, need)


def _too_large(fleet: Fleet, need: Need) -> tuple[Reason, ...]:
    nodes = [fleet.nodes[i] for i in fleet.members(need.group)]
    if (
        need.gpu
        and nodes
        and not any(fleet.suits(i, need) and fleet.nodes[i].devices for i in fleet.members(need.group))
    ):
        models = sorted({node.gpu_model for node in nodes if node.gpu_model and node.devices})
        return (reasons.no_model(need.gpu_model or "", need.group, models),)
    fitting = [fleet.nodes[i] for i in fleet.members(need.group) if not need.gpu or fleet.suits(i, need)]
    found = [reason for resource in ("gpu", "cpu", "memory") if (reason := _above_largest(fitting, need, resource))]
    return tuple(found) or (reasons.no_such_node(need, _nearest(fitting, need)),)


def _above_largest(nodes: list[NodeView], need: Need, resource: str) -> Reason | None:
    asked = {"gpu": need.gpu, "cpu": need.cpu, "memory": float(need.memory)}[resource]
    largest = max(nodes, key=lambda node: _size(node, resource), default=None)
    most = _size(largest, resource) if largest else 0.0
    if largest and most >= asked:
        return None
    return reasons.too_large(resource, asked, most, largest.name if largest else None, need.group)


def _size(node: NodeView, resource: str) -> float:
    return {"gpu": float(len(node.devices)), "cpu": node.cpu, "memory": float(node.memory)}[resource]


def _nearest(nodes: list[NodeView], need: Need) -> str:
    def reach(node: NodeView) -> float:
        asked = {"gpu": need.gpu, "cpu": need.cpu, "memory": float(need.memory)}
        return sum(min(_size(node, resource) / value, 1.0) for resource, value in asked.items() if value)

    return max(nodes, key=reach).name
