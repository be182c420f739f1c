"""When a session would start, and how a resource group orders and places what waits."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, JsonValue

from cluster.models import EstimateStart, Operation, Outcome, S, Sentence, SetSchedulingPolicy, StartEstimate
from cluster.units import parse_size
from tools.base import Arguments, Context, OperationTool, ReadingTool, Result, Risk
from tools.kinds import Amount, GpuModel, GroupName, Size
from tools.outcome import refusal
from tools.per_node import InTotal
from tools.show import facts, listed, moment, told
from tools.views import Cell


class EstimateStartArguments(InTotal):
    cpu: Amount | None = Field(None, description="Cores, over all nodes.")
    memory: Size | None = Field(None, description='Over all nodes: "64g", "512m".')
    gpu: Amount | None = Field(None, description="Devices over all nodes; may be a fraction of one.")
    cpu_per_node: Amount | None = None
    memory_per_node: Size | None = None
    gpu_per_node: Amount | None = None
    gpu_model: GpuModel | None = None
    node_count: int | None = Field(None, ge=1, le=10_000)
    resource_group: GroupName | None = Field(None, description="Queue, partition or pool.")


class EstimateStartTool(ReadingTool[EstimateStartArguments]):
    """Say when a session of such a size would start if it were submitted now, and where or why not at once."""

    name = "estimate_start"
    arguments = EstimateStartArguments

    async def read(self, ctx: Context, args: EstimateStartArguments) -> Result:
        said = args.model_dump(exclude_none=True)
        size = {"memory": parse_size(args.memory)} if args.memory else {}
        found = await ctx.client.estimate(EstimateStart.model_validate(said | size))
        if found.refused:
            return refusal(ctx, found.refused)
        reasons = [told(ctx, r.message) for r in found.reasons]
        answer = ctx.say(_when(ctx, found, reasons))
        data: dict[str, JsonValue] = {
            "now": found.now,
            "at": found.at.astimezone(ctx.now.tzinfo).isoformat(timespec="minutes") if found.at else None,
            "nodes": [*found.nodes[:20]],
            "resource_group": found.resource_group,
            "reasons": [*reasons],
            "ahead": [*found.ahead[:9]],
        }
        return Result(status="done", data=data, view=facts(ctx, answer, _lines(ctx, found, reasons)), answer=answer)


def _when(ctx: Context, found: StartEstimate, reasons: list[str]) -> Sentence:
    if found.now:
        return S("It would start now on {nodes}.", nodes=listed(found.nodes))
    if found.at is not None:
        return S("It would start at {time}, if those before it end on time.", time=moment(ctx, found.at))
    if reasons:
        return S("It would wait, and nobody can tell how long: {reason}", reason=reasons[0])
    return S("It would wait, and nobody can tell how long.")


def _lines(ctx: Context, found: StartEstimate, reasons: list[str]) -> list[tuple[Sentence, Cell | str | None]]:
    return [
        (S("Start"), moment(ctx, found.at) if found.at else ctx.say(S("can't be told"))),
        (S("Nodes"), listed(found.nodes) if found.nodes else None),
        (S("Resource group"), found.resource_group),
        *((S("Reason"), Cell(text=r, tone="warn")) for r in reasons),
        (S("Ahead of it"), listed(found.ahead) if found.ahead else None),
    ]


class SetSchedulingPolicyArguments(Arguments):
    resource_group: GroupName
    policy: Literal["fifo", "lifo", "drf", "fair_share"] | None = Field(None, description="Who goes first.")
    selector: (
        Literal["concentrated", "dispersed", "round_robin", "least_fragmentation", "least_power", "coolest"] | None
    ) = Field(None, description="Which node a session gets.")
    backfill: bool | None = Field(None, description="Whether small sessions may pass a waiting one.")
    preemption: bool | None = Field(None, description="Whether sessions make room for those of higher priority.")


class SetSchedulingPolicyTool(OperationTool[SetSchedulingPolicyArguments]):
    """Change how a resource group (queue, partition, pool) orders and places what waits."""

    name = "set_scheduling_policy"
    risk = Risk.W
    arguments = SetSchedulingPolicyArguments
    rows_of = "resource_group"

    def wants(self, ctx: Context, given: Mapping[str, Any]) -> str | None:
        """Something to change."""
        return None if given.keys() & {"policy", "selector", "backfill", "preemption"} else "policy"

    def operation(self, ctx: Context, args: SetSchedulingPolicyArguments) -> Operation:
        return SetSchedulingPolicy(**args.model_dump())

    def title(self, ctx: Context, args: SetSchedulingPolicyArguments, outcome: Outcome) -> Sentence:
        return S("Change how {group} is scheduled", group=args.resource_group)

    def done(self, ctx: Context, args: SetSchedulingPolicyArguments, outcome: Outcome) -> Sentence:
        return outcome.effects[0].message if outcome.effects else S("{group} is changed.", group=args.resource_group)
