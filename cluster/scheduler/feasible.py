"""Could it ever run? Judged on the empty cluster, whatever is running, waiting or cordoned."""

import numpy as np

from cluster.models import Reason
from cluster.scheduler import reasons
from cluster.scheduler.board import Board
from cluster.scheduler.fleet import UNIT, Fleet, Ints, Need
from cluster.scheduler.queue import amounts, wish_of
from cluster.scheduler.state import Request, Snapshot


def feasible(state: Snapshot | Board, request: Request) -> tuple[Reason, ...]:
    """Why `request` could never run: no node large enough, no such GPU, above the quota. Empty when it could."""
    board = Board.of(state) if isinstance(state, Snapshot) else state
    found = impossible(board, request)
    if found:
        return found
    return tuple(map(reasons.above_quota, board.quotas.never(request.user, request.project, amounts(request))))


def impossible(board: Board, request: Request) -> tuple[Reason, ...]:
    """Why no nodes of the group could hold `request` even when all were empty and alive."""
    wish, fleet = wish_of(request), board.fleet
    if request.group not in board.groups:
        return (board.unusable.get(request.group) or reasons.no_group(request.group, board.groups),)
    if not wish.need.sensible:
        return (reasons.odd_share(wish.need.gpu),)
    capable = fleet.capable(wish.need)
    if len(capable) < wish.count:
        return (reasons.too_few_nodes(wish, len(capable)),) if len(capable) else _too_large(fleet, wish.need)
    if wish.rack == "required" and _largest_rack(fleet, capable) < wish.count:
        return (reasons.too_small_racks(wish, _largest_rack(fleet, capable)),)
    return ()


def _largest_rack(fleet: Fleet, nodes: Ints) -> int:
    racks = fleet.rack[nodes]
    return int(np.unique(racks[racks >= 0], return_counts=True)[1].max(initial=0))


def _too_large(fleet: Fleet, need: Need) -> tuple[Reason, ...]:
    nodes = fleet.members(need.group)
    suited = nodes[fleet.suited(need)[nodes] & (fleet.count[nodes] > 0)] if need.share else nodes
    if need.share and len(nodes) and not len(suited):
        models = sorted({model for i in nodes if fleet.count[i] and (model := fleet.nodes[i].gpu_model)})
        return (reasons.no_model(need.gpu_model or need.kind or "", need.group, models),)
    found = [
        reason for resource in ("gpu", "cpu", "memory") if (reason := _above_largest(fleet, suited, need, resource))
    ]
    return tuple(found) or (reasons.no_such_node(need, _nearest(fleet, suited, need)),)


def _above_largest(fleet: Fleet, nodes: Ints, need: Need, resource: str) -> Reason | None:
    asked = {"gpu": need.share, "cpu": need.cores, "memory": need.memory}[resource]
    sizes = _size(fleet, resource)[nodes]
    largest = int(nodes[sizes.argmax()]) if len(nodes) else None
    most = int(sizes.max(initial=0))
    if asked == 0 or (largest is not None and most >= asked):
        return None
    told = {"gpu": need.gpu, "cpu": need.cpu, "memory": float(need.memory)}[resource]
    available = float(most) if resource == "memory" else most / UNIT
    return reasons.too_large(
        resource, told, available, None if largest is None else fleet.nodes[largest].name, need.group
    )


def _size(fleet: Fleet, resource: str) -> Ints:
    return {"gpu": fleet.count * UNIT, "cpu": fleet.cpu, "memory": fleet.memory}[resource]


def _nearest(fleet: Fleet, nodes: Ints, need: Need) -> str:
    """The node that comes nearest to holding `need`."""
    asked = {"gpu": need.share, "cpu": need.cores, "memory": need.memory}
    reach = sum(np.minimum(_size(fleet, name)[nodes] / value, 1.0) for name, value in asked.items() if value)
    return fleet.nodes[int(nodes[np.argmax(reach)])].name
