"""Nodes: list, look at, close to new work, open again, empty, move to another group."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, JsonValue

from cluster.models import (
    CordonNode,
    Device,
    DrainNode,
    MoveNode,
    Node,
    NodeStatus,
    Operation,
    Outcome,
    S,
    Sentence,
    UncordonNode,
)
from cluster.units import human_size, parse_duration
from tools.base import Arguments, Context, OperationTool, ReadingTool, Result, Risk
from tools.kinds import GpuModel, Grace, GroupName, Limit, NodeName, Text
from tools.linking.numbers import number
from tools.show import SHOWN, STATUSES, ago, amounts, facts, percent, plural, query, status_cell, table, tallied
from tools.views import Cell, Table


class ListNodesArguments(Arguments):
    status: Literal["alive", "cordoned", "draining", "lost"] | None = None
    resource_group: GroupName | None = None
    gpu_model: GpuModel | None = None
    sort_by: Literal["name", "free_gpu", "gpu_utilization", "temperature", "power"] | None = None
    order: Literal["asc", "desc"] | None = None
    limit: Limit | None = None


class ListNodes(ReadingTool[ListNodesArguments]):
    """List nodes (hosts, servers, machines) with what is free on them."""

    name = "list_nodes"
    arguments = ListNodesArguments
    rows_of = "node"

    async def read(self, ctx: Context, args: ListNodesArguments) -> Result:
        page = await ctx.client.nodes(**query(args))
        shown = page.items[: min(args.limit or SHOWN, 100)]
        answer = ctx.say(_summary(ctx, page.items, page.total))
        rows: list[JsonValue] = [_row_data(n) for n in shown[:SHOWN]]
        return Result(
            status="done",
            data={"total": page.total, "shown": len(shown), "nodes": rows},
            view=_node_table(ctx, answer, shown, page.total),
            answer=answer,
            rows=[n.name for n in shown],
            rows_of="node",
        )


def _summary(ctx: Context, nodes: Sequence[Node], total: int) -> Sentence:
    if not nodes:
        return S("No node fits that.")
    if len(nodes) < total:
        return S("{count} nodes; the first {shown} of them: {names}.", count=total, shown=len(nodes), names=_few(nodes))
    counts = Counter(n.status for n in nodes)
    statuses = ", ".join(tallied(ctx, counts[s], STATUSES[s]) for s in NodeStatus if counts[s])
    free = sum(n.free.gpu for n in nodes if n.status is NodeStatus.ALIVE)
    held = sum(n.capacity.gpu for n in nodes)
    if not held:
        return plural(
            total,
            S("1 node: {statuses}.", statuses=statuses),
            S("{count} nodes: {statuses}.", count=total, statuses=statuses),
        )
    said = {"statuses": statuses, "free": number(free), "all": number(held)}
    return plural(
        total,
        S("1 node: {statuses}; {free} of {all} GPUs are free.", **said),
        S("{count} nodes: {statuses}; {free} of {all} GPUs are free.", count=total, **said),
    )


def _few(nodes: Sequence[Node]) -> str:
    return ", ".join(n.name for n in nodes[:3]) + (" …" if len(nodes) > 3 else "")


def _node_table(ctx: Context, title: str, nodes: Sequence[Node], total: int) -> Table:
    columns = [
        S("Node"),
        S("Status"),
        S("Group"),
        S("GPUs free"),
        S("GPU model"),
        S("Cores free"),
        S("Memory free"),
        S("Use"),
        S("°C"),
    ]
    rows = [_row(ctx, n) for n in nodes]
    return table(ctx, title, columns, rows, total=total, right=(3, 5, 6, 7, 8))


def _row(ctx: Context, n: Node) -> list[Cell | str]:
    gpus = f"{number(n.free.gpu)}/{number(n.capacity.gpu)}" if n.capacity.gpu else "–"
    cores = f"{number(n.free.cpu)}/{number(n.capacity.cpu)}"
    heat = f"{n.temperature:.0f}" if n.temperature is not None else "–"
    memory = human_size(n.free.memory)
    return [
        n.name,
        status_cell(ctx, n.status),
        n.resource_group,
        gpus,
        n.gpu_model or "–",
        cores,
        memory,
        percent(_use(n)),
        heat,
    ]


def _use(node: Node) -> float | None:
    """How busy its GPUs are; without any, its cores."""
    measured = [d.utilization for d in node.devices if d.utilization is not None]
    return sum(measured) / len(measured) if measured else node.cpu_utilization


def _row_data(n: Node) -> dict[str, JsonValue]:
    return {
        "name": n.name, "status": n.status.value, "group": n.resource_group, "gpu_free": n.free.gpu,
        "gpu": n.capacity.gpu,
        "gpu_model": n.gpu_model, "cpu_free": n.free.cpu, "memory_free": human_size(n.free.memory), "reason": n.reason,
    }  # fmt: skip


class GetNodeArguments(Arguments):
    node: NodeName


class GetNode(ReadingTool[GetNodeArguments]):
    """Show one node: its status, devices, what is free and who runs there."""

    name = "get_node"
    arguments = GetNodeArguments
    rows_of = "node"

    async def read(self, ctx: Context, args: GetNodeArguments) -> Result:
        n = await ctx.client.node(args.node)
        status = status_cell(ctx, n.status).text
        free, capacity = amounts(ctx, n.free), amounts(ctx, n.capacity)
        answer = ctx.say(
            S(
                "{node} is {status}; free: {free} of {capacity}.",
                node=n.name,
                status=status,
                free=free,
                capacity=capacity,
            )
        )
        data = _row_data(n) | {"sessions": [*n.sessions[:SHOWN]], "use": _use(n)}
        view = facts(ctx, n.name, _facts(ctx, n))
        return Result(status="done", data=data, view=view, answer=answer, rows=[n.name], rows_of="node")


def _facts(ctx: Context, n: Node) -> list[tuple[Sentence, Cell | str | None]]:
    return [
        (S("Status"), status_cell(ctx, n.status)),
        (S("Why"), n.reason),
        (S("Resource group"), n.resource_group),
        (S("Capacity"), amounts(ctx, n.capacity)),
        (S("Free"), amounts(ctx, n.free)),
        (S("GPU model"), n.gpu_model),
        *((S("GPU {index}", index=d.index), _device(ctx, d)) for d in n.devices[:16]),
        (S("Rack"), n.rack),
        (S("Isolation"), n.isolation),
        (S("Temperature"), f"{n.temperature:.0f} °C" if n.temperature is not None else None),
        (S("Power"), f"{n.power:.0f} W" if n.power is not None else None),
        (S("Sessions"), ", ".join(n.sessions[:SHOWN]) or ctx.say(S("none"))),
        (S("Last heard of"), ctx.say(S("{time} ago", time=ago(ctx, n.last_beat))) if n.last_beat else None),
    ]


def _device(ctx: Context, d: Device) -> Cell:
    held = ctx.say(S("free") if not d.used else S("{share} held", share=percent(d.used)))
    live = [percent(d.utilization)] if d.utilization is not None else []
    live += [f"{d.temperature:.0f} °C"] if d.temperature is not None else []
    return Cell(text=", ".join([held, *live]), tone="muted" if not d.used else "plain")


class CordonNodeArguments(Arguments):
    node: NodeName
    reason: Text | None = None


class CordonNodeTool(OperationTool[CordonNodeArguments]):
    """Keep new work off a node; what runs there goes on."""

    name = "cordon_node"
    risk = Risk.W
    arguments = CordonNodeArguments
    rows_of = "node"

    def operation(self, ctx: Context, args: CordonNodeArguments) -> Operation:
        return CordonNode(node=args.node, reason=args.reason)

    def title(self, ctx: Context, args: CordonNodeArguments, outcome: Outcome) -> Sentence:
        return S("Cordon {node}: no new work", node=args.node)

    def done(self, ctx: Context, args: CordonNodeArguments, outcome: Outcome) -> Sentence:
        return S("{node} takes no new work now.", node=args.node)


class UncordonNodeArguments(Arguments):
    node: NodeName


class UncordonNodeTool(OperationTool[UncordonNodeArguments]):
    """Let a cordoned or drained node take work again."""

    name = "uncordon_node"
    risk = Risk.W
    arguments = UncordonNodeArguments
    rows_of = "node"

    def operation(self, ctx: Context, args: UncordonNodeArguments) -> Operation:
        return UncordonNode(node=args.node)

    def title(self, ctx: Context, args: UncordonNodeArguments, outcome: Outcome) -> Sentence:
        return S("Uncordon {node}: it takes work again", node=args.node)

    def done(self, ctx: Context, args: UncordonNodeArguments, outcome: Outcome) -> Sentence:
        return S("{node} takes work again.", node=args.node)


class DrainNodeArguments(Arguments):
    node: NodeName
    reason: Text | None = None
    grace: Grace | None = Field(None, description='Time between the order to stop and the kill: "10m".')


class DrainNodeTool(OperationTool[DrainNodeArguments]):
    """Empty a node: no new work, and what runs there is stopped."""

    name = "drain_node"
    risk = Risk.D
    arguments = DrainNodeArguments
    rows_of = "node"

    def operation(self, ctx: Context, args: DrainNodeArguments) -> Operation:
        grace = parse_duration(args.grace) if args.grace else None
        return DrainNode(node=args.node, reason=args.reason, grace=grace)

    def title(self, ctx: Context, args: DrainNodeArguments, outcome: Outcome) -> Sentence:
        count = sum(e.kind == "stops" for e in outcome.effects)
        if not count:
            return S("Drain {node}: nothing runs there", node=args.node)
        return plural(
            count,
            S("Drain {node}: 1 session is stopped", node=args.node),
            S("Drain {node}: {count} sessions are stopped", node=args.node, count=count),
        )

    def done(self, ctx: Context, args: DrainNodeArguments, outcome: Outcome) -> Sentence:
        return S("{node} is being drained and takes no new work.", node=args.node)


class MoveNodeArguments(Arguments):
    node: NodeName
    resource_group: GroupName


class MoveNodeTool(OperationTool[MoveNodeArguments]):
    """Move a node to another resource group (queue, partition, pool); what runs there goes on."""

    name = "move_node"
    risk = Risk.W
    arguments = MoveNodeArguments
    rows_of = "node"

    def operation(self, ctx: Context, args: MoveNodeArguments) -> Operation:
        return MoveNode(node=args.node, resource_group=args.resource_group)

    def title(self, ctx: Context, args: MoveNodeArguments, outcome: Outcome) -> Sentence:
        return S("Move {node} to {group}", node=args.node, group=args.resource_group)

    def done(self, ctx: Context, args: MoveNodeArguments, outcome: Outcome) -> Sentence:
        return S("{node} is in {group} now.", node=args.node, group=args.resource_group)
