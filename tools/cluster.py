"""The cluster as a whole: its state, what happened, who did what, undo."""

from datetime import datetime, timedelta
from typing import Literal

from pydantic import JsonValue

from cluster.models import (
    AuditEntry,
    ClusterStatus,
    Event,
    NodeStatus,
    Operation,
    Outcome,
    ResourceGroup,
    S,
    Sentence,
    SessionState,
    Undo,
)
from cluster.units import human_size, parse_duration
from tools.base import Arguments, Context, OperationTool, ReadingTool, Result, Risk
from tools.kinds import Limit, Since, TargetName, Text, ToolName, UserName
from tools.linking.numbers import number
from tools.show import SHOWN, STATES, STATUSES, amounts, facts, moment, percent, plural, span, table, tallied, told
from tools.views import Cell, Tone

_SEVERITY: dict[str, Tone] = {"info": "plain", "warning": "warn", "error": "bad"}
SEVERITIES = {"info": S("info"), "warning": S("warning"), "error": S("error")}


class GetClusterStatusArguments(Arguments):
    pass


class GetClusterStatus(ReadingTool[GetClusterStatusArguments]):
    """Show how the whole cluster is doing: nodes, sessions, what is free, what needs attention."""

    name = "get_cluster_status"
    arguments = GetClusterStatusArguments

    async def read(self, ctx: Context, args: GetClusterStatusArguments) -> Result:
        s = await ctx.client.status()
        data: dict[str, JsonValue] = {
            "nodes": {**s.nodes}, "sessions": {**s.sessions}, "gpu_free": s.free.gpu, "gpu": s.capacity.gpu,
            "cpu_free": s.free.cpu,
            "cpu": s.capacity.cpu, "memory_free": human_size(s.free.memory), "memory": human_size(s.capacity.memory),
            "gpu_utilization": s.gpu_utilization, "longest_wait": span(ctx, s.longest_wait),
            "warnings": [told(ctx, w) for w in s.warnings[:9]],
        }  # fmt: skip
        answer = ctx.say(_sentence(ctx, s))
        return Result(status="done", data=data, view=facts(ctx, answer, _facts(ctx, s)), answer=answer)


def _sentence(ctx: Context, s: ClusterStatus) -> Sentence:
    running, waiting = s.sessions.get("running", 0), s.sessions.get("pending", 0) + s.sessions.get("held", 0)
    free, everything = number(s.free.gpu or 0), number(s.capacity.gpu)
    if not s.capacity.gpu:
        free, everything = number(s.free.cpu), number(s.capacity.cpu)
        template = S("{free} of {all} cores are free; running: {running}, waiting: {waiting}.").text
    elif not waiting:
        template = S("{free} of {all} GPUs are free; running: {running}, nobody waits.").text
    else:
        template = S(
            "{free} of {all} GPUs are free; running: {running}, waiting: {waiting}, the longest for {time}."
        ).text
    return S(template, free=free, all=everything, running=running, waiting=waiting, time=span(ctx, s.longest_wait))


def _facts(ctx: Context, s: ClusterStatus) -> list[tuple[Sentence, Cell | str | None]]:
    nodes = ", ".join(tallied(ctx, s.nodes[n], STATUSES[n]) for n in NodeStatus if s.nodes.get(n))
    sessions = ", ".join(tallied(ctx, s.sessions[n], STATES[n]) for n in SessionState if s.sessions.get(n))
    kind = ctx.say(S("simulated")) if s.simulated else None
    waits = s.longest_wait > 0
    return [
        (S("Cluster"), f"{s.name} ({kind})" if kind else s.name),
        (S("Nodes"), nodes or ctx.say(S("none"))),
        (S("Sessions"), sessions or ctx.say(S("none"))),
        (S("Free"), amounts(ctx, s.free)),
        (S("Capacity"), amounts(ctx, s.capacity)),
        (S("GPU use"), percent(s.gpu_utilization) if s.gpu_utilization is not None else None),
        (S("Storage free"), human_size(s.storage_free) if s.storage_free else None),
        (S("Longest wait"), span(ctx, s.longest_wait) if waits else None),
        *((S("Attention"), Cell(text=told(ctx, w), tone="warn")) for w in s.warnings[:9]),
    ]


class ListResourceGroupsArguments(Arguments):
    pass


class ListResourceGroups(ReadingTool[ListResourceGroupsArguments]):
    """List resource groups (queues, partitions, pools) with their policies and what is free."""

    name = "list_resource_groups"
    arguments = ListResourceGroupsArguments
    rows_of = "resource_group"

    async def read(self, ctx: Context, args: ListResourceGroupsArguments) -> Result:
        page = await ctx.client.resource_groups()
        shown = page.items[:SHOWN]
        columns = [
            S("Resource group"),
            S("Policy"),
            S("Placement"),
            S("Backfill"),
            S("Nodes"),
            S("GPUs free"),
            S("Cores free"),
        ]
        count = page.total
        answer = ctx.say(plural(count, S("1 resource group."), S("{count} resource groups.", count=count)))
        data: list[JsonValue] = [
            {
                "name": g.name,
                "policy": g.policy,
                "selector": g.selector,
                "nodes": g.nodes,
                "gpu_free": g.free.gpu,
                "gpu": g.capacity.gpu,
            }
            for g in shown
        ]
        return Result(
            status="done",
            data={"total": count, "resource_groups": data},
            view=table(ctx, answer, columns, [_group_row(ctx, g) for g in shown], total=count, right=(4, 5, 6)),
            answer=answer,
            rows=[g.name for g in shown],
            rows_of="resource_group",
        )


def _group_row(ctx: Context, g: ResourceGroup) -> list[Cell | str]:
    backfill = ctx.say(S("yes") if g.backfill else S("no"))
    gpus = f"{number(g.free.gpu)}/{number(g.capacity.gpu)}" if g.capacity.gpu else "–"
    return [
        g.name,
        g.policy,
        g.selector,
        backfill,
        str(g.nodes),
        gpus,
        f"{number(g.free.cpu)}/{number(g.capacity.cpu)}",
    ]


class ListImagesArguments(Arguments):
    query: Text | None = None


class ListImages(ReadingTool[ListImagesArguments]):
    """List the container images that sessions can run."""

    name = "list_images"
    arguments = ListImagesArguments
    rows_of = "image"

    async def read(self, ctx: Context, args: ListImagesArguments) -> Result:
        everything = (await ctx.client.images()).items
        fitting = [i for i in everything if not args.query or args.query.casefold() in i.name.casefold()]
        names = [i.name for i in fitting]
        rows: list[list[Cell | str]] = [[i.name, i.registry or "–"] for i in fitting[:SHOWN]]
        count = len(names)
        answer = ctx.say(
            plural(count, S("1 image."), S("{count} images.", count=count)) if count else S("No image fits that.")
        )
        return Result(
            status="done",
            data={"total": count, "images": [*names[:SHOWN]]},
            view=table(ctx, answer, [S("Image"), S("Registry")], rows, total=count),
            answer=answer,
            rows=names[:SHOWN],
            rows_of="image",
        )


class ListEventsArguments(Arguments):
    target: TargetName | None = None
    severity: Literal["info", "warning", "error"] | None = None
    since: Since | None = None
    limit: Limit | None = None


class ListEvents(ReadingTool[ListEventsArguments]):
    """List what happened lately, newest first: starts, ends, failures, nodes lost."""

    name = "list_events"
    arguments = ListEventsArguments

    async def read(self, ctx: Context, args: ListEventsArguments) -> Result:
        start, most = since(ctx, args.since), min(args.limit or SHOWN, 100)
        asked = {"target": args.target, "severity": args.severity, "since": _iso(start)}
        page = await ctx.client.events(after=-1, limit=most, **asked)
        events, count = [*reversed(page.items)], page.total
        shown = events[:most]
        answer = ctx.say(
            plural(count, S("1 event."), S("{count} events.", count=count))
            if events
            else S("Nothing happened that fits.")
        )
        columns = [S("When"), S("What"), S("Severity"), S("About")]
        data: list[JsonValue] = [
            {"at": moment(ctx, e.at), "what": told(ctx, e.message), "target": e.target} for e in shown[:SHOWN]
        ]
        return Result(
            status="done",
            data={"total": count, "events": data},
            view=table(ctx, answer, columns, [_event_row(ctx, e) for e in shown], total=count),
            answer=answer,
        )


def _event_row(ctx: Context, e: Event) -> list[Cell | str]:
    tone = _SEVERITY[e.severity]
    return [
        moment(ctx, e.at),
        Cell(text=told(ctx, e.message), tone=tone),
        ctx.say(SEVERITIES[e.severity]),
        e.target or "–",
    ]


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def since(ctx: Context, said: str | None) -> datetime | None:
    """The time that a linked `since` means: a duration back from now, or a time."""
    if said is None:
        return None
    return ctx.now - timedelta(seconds=parse_duration(said)) if said[-1] in "smhd" else datetime.fromisoformat(said)


_RESULTS: dict[str, tuple[Sentence, Tone]] = {
    "done": (S("done"), "plain"),
    "undone": (S("undone"), "muted"),
    "refused": (S("refused"), "warn"),
    "failed": (S("failed"), "bad"),
}


class GetAuditLogArguments(Arguments):
    user: UserName | None = None
    action: ToolName | None = None
    since: Since | None = None
    limit: Limit | None = None


class GetAuditLog(ReadingTool[GetAuditLogArguments]):
    """Show who did what, newest first, with the ids that undo takes."""

    name = "get_audit_log"
    arguments = GetAuditLogArguments
    rows_of = "action"

    async def read(self, ctx: Context, args: GetAuditLogArguments) -> Result:
        start, most = since(ctx, args.since), min(args.limit or SHOWN, 100)
        page = await ctx.client.audit(user=args.user, action=args.action, since=_iso(start), limit=most)
        entries, total = page.items, page.total
        shown = entries[:most]
        answer = ctx.say(
            plural(total, S("1 action."), S("{count} actions.", count=total)) if entries else S("No action fits that.")
        )
        columns = [S("When"), S("Who"), S("Action"), S("On"), S("Result"), S("Id")]
        data: list[JsonValue] = [_entry(ctx, e) for e in shown[:SHOWN]]
        return Result(
            status="done",
            data={"total": total, "actions": data},
            view=table(ctx, answer, columns, [_audit_row(ctx, e) for e in shown], total=total),
            answer=answer,
            rows=[e.id for e in shown],
            rows_of="action",
        )


def _entry(ctx: Context, e: AuditEntry) -> dict[str, JsonValue]:
    result = "undone" if e.undone_by else e.result
    entry: dict[str, JsonValue] = {"id": e.id, "at": moment(ctx, e.at), "user": e.user, "action": e.action}
    entry |= {"on": [*e.targets[:5]], "result": result}
    return entry | {"why": told(ctx, e.reasons[0].message)} if e.reasons else entry


def _audit_row(ctx: Context, e: AuditEntry) -> list[Cell | str]:
    result, tone = _RESULTS["undone" if e.undone_by else e.result]
    return [
        moment(ctx, e.at),
        e.user,
        e.action,
        ", ".join(e.targets[:5]) or "–",
        Cell(text=ctx.say(result), tone=tone),
        e.id,
    ]


class UndoArguments(Arguments):
    action: Text | None = None


class UndoTool(OperationTool[UndoArguments]):
    """Take back an earlier action; the asking person's last one when none is named."""

    name = "undo"
    risk = Risk.W
    arguments = UndoArguments

    def operation(self, ctx: Context, args: UndoArguments) -> Operation:
        return Undo(action=args.action)

    def title(self, ctx: Context, args: UndoArguments, outcome: Outcome) -> Sentence:
        return S("Undo {action}", action=args.action) if args.action else S("Undo your last action")

    def done(self, ctx: Context, args: UndoArguments, outcome: Outcome) -> Sentence:
        said = " ".join(told(ctx, e.message) for e in outcome.effects[:2])
        return S("Taken back. {effects}", effects=said) if said else S("Taken back.")
