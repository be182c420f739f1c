"""Sessions: list, look at, start, stop, read the output, ask why one waits."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, JsonValue

from cluster.models import (
    Explanation,
    Page,
    Resources,
    S,
    Sentence,
    Session,
    SessionResult,
    SessionType,
)
from cluster.units import human_size
from tools.base import Arguments, Context, ReadingTool, Result
from tools.diagnose import diagnosed
from tools.kinds import (
    GroupName,
    Limit,
    NodeName,
    ProjectName,
    SessionKind,
    SessionName,
    UserName,
)
from tools.linking.numbers import number
from tools.show import (
    SHOWN,
    WAITING,
    ago,
    amounts,
    counted,
    facts,
    listed,
    moment,
    nodes_of,
    percent,
    plural,
    query,
    span,
    state_cell,
    state_word,
    table,
    told,
    unique,
)
from tools.views import Cell, Table
from tools.views import Text as TextView

RESULTS = {
    SessionResult.SUCCESS: S("success"),
    SessionResult.FAILURE: S("failure"),
    SessionResult.CANCELLED: S("cancelled"),
    SessionResult.LOST: S("lost"),
}
TYPES = {
    SessionType.INTERACTIVE: S("interactive"),
    SessionType.BATCH: S("batch"),
    SessionType.INFERENCE: S("inference"),
    SessionType.SYSTEM: S("system"),
}


class ListSessionsArguments(Arguments):
    status: (
        Literal["pending", "scheduled", "preparing", "running", "terminating", "terminated", "error", "cancelled"]
        | None
    ) = Field(None, description="Only those in this state; pending includes held ones.")
    type: SessionKind | None = None
    project: ProjectName | None = None
    user: UserName | None = Field(None, description="Whose; `me` for the asking person.")
    node: NodeName | None = Field(None, description="Only those that hold something on this node.")
    resource_group: GroupName | None = None
    idle: bool | None = Field(None, description="True: only those that hold resources and don't use them.")
    sort_by: Literal["created", "waiting", "gpu", "cpu", "memory", "priority", "gpu_utilization"] | None = None
    order: Literal["asc", "desc"] | None = None
    limit: Limit | None = None


class ListSessions(ReadingTool[ListSessionsArguments]):
    """List sessions (jobs, workloads): those that have not ended, or those in one state."""

    name = "list_sessions"
    arguments = ListSessionsArguments
    rows_of = "session"

    async def read(self, ctx: Context, args: ListSessionsArguments) -> Result:
        page = await ctx.client.sessions(**query(args))
        shown = page.items[: min(args.limit or SHOWN, 100)]
        names = unique([(s.id, s.name) for s in shown])
        answer = ctx.say(_idle(ctx, page) if args.idle and page.items else _summary(ctx, page))
        return Result(
            status="done",
            data={"total": page.total, "shown": len(shown), "sessions": [_row_data(ctx, s) for s in shown[:SHOWN]]},
            view=_session_table(ctx, answer, shown, names, page.total),
            answer=answer,
            rows=names,
            rows_of="session",
        )


def _summary(ctx: Context, page: Page[Session]) -> Sentence:
    if not page.items:
        return S("No session fits that.")
    if len(page.items) == 1 and page.total > 1:
        return _one(ctx, page.items[0])
    total = page.total
    if total > len(page.items):
        return S("{count} sessions; the first {shown} of them are listed.", count=total, shown=len(page.items))
    states = counted(ctx, (s.state for s in page.items))
    waits = [(ctx.now - s.submitted).total_seconds() for s in page.items if s.state in WAITING]
    if not waits:
        return plural(
            total,
            S("1 session: {states}.", states=states),
            S("{count} sessions: {states}.", count=total, states=states),
        )
    longest = span(ctx, max(waits))
    return plural(
        total,
        S("1 session: {states}; it has waited {time}.", states=states, time=longest),
        S("{count} sessions: {states}; the longest wait is {time}.", count=total, states=states, time=longest),
    )


def _idle(ctx: Context, page: Page[Session]) -> Sentence:
    """What idle sessions keep from others."""
    held = [s.resources for s in page.items]
    kept = Resources(cpu=sum(r.cpu for r in held), memory=sum(r.memory for r in held), gpu=sum(r.gpu for r in held))
    return plural(
        page.total,
        S("1 idle session holds {amounts}.", amounts=amounts(ctx, kept)),
        S("{count} idle sessions hold {amounts}.", count=page.total, amounts=amounts(ctx, kept)),
    )


def _one(ctx: Context, session: Session) -> Sentence:
    return S(
        "{name} ({user}): {state}, {amounts}, {time}.",
        name=session.name,
        user=session.user,
        state=state_word(ctx, session.state),
        amounts=amounts(ctx, session.resources),
        time=_since(ctx, session),
    )


def _since(ctx: Context, session: Session) -> str:
    """How long it has run, waited, or how long ago it ended."""
    if session.ended:
        return ctx.say(S("{time} ago", time=ago(ctx, session.ended)))
    return ago(ctx, session.started or session.submitted)


def _session_table(ctx: Context, title: str, shown: Sequence[Session], names: Sequence[str], total: int) -> Table:
    columns = [
        S("Session"),
        S("State"),
        S("User"),
        S("Project"),
        S("GPUs"),
        S("Cores"),
        S("Memory"),
        S("Use"),
        S("Node"),
        S("For"),
    ]
    rows = [_row(ctx, name, s) for name, s in zip(names, shown, strict=True)]
    return table(ctx, title, columns, rows, total=total, right=(4, 5, 6, 7, 9))


def _row(ctx: Context, name: str, s: Session) -> list[Cell | str]:
    held = s.resources
    memory = human_size(held.memory) if held.memory else "–"
    low = s.idle and s.gpu_utilization is not None
    use = Cell(text=percent(s.gpu_utilization), tone="warn" if low else "plain")
    counts = [number(held.gpu) if held.gpu else "–", number(held.cpu), memory]
    return [name, state_cell(ctx, s), s.user, s.project, *counts, use, nodes_of(s), _since(ctx, s)]


def _row_data(ctx: Context, s: Session) -> dict[str, JsonValue]:
    row: dict[str, JsonValue] = {
        "id": s.id, "name": s.name, "user": s.user, "state": s.state.value, "gpu": s.resources.gpu,
        "cpu": s.resources.cpu,
        "memory": human_size(s.resources.memory), "time": _since(ctx, s),
    }  # fmt: skip
    if s.allocations:
        row["node"] = nodes_of(s)
    if s.gpu_utilization is not None:
        row["gpu_utilization"] = round(s.gpu_utilization, 2)
    if s.reasons:
        row["reason"] = told(ctx, s.reasons[0].message)
    return row


class GetSessionArguments(Arguments):
    session: SessionName


class GetSession(ReadingTool[GetSessionArguments]):
    """Show one session: its state, what it holds, where it runs, why it waits or failed."""

    name = "get_session"
    arguments = GetSessionArguments

    async def read(self, ctx: Context, args: GetSessionArguments) -> Result:
        s = await ctx.client.session(args.session)
        answer = ctx.say(_one(ctx, s))
        if s.reasons:
            answer += " " + told(ctx, s.reasons[0].message)
        data = _row_data(ctx, s) | {"project": s.project, "type": s.type.value, "command": (s.command or "")[:200]}
        if s.exit_code is not None:
            data["exit_code"] = s.exit_code
        return Result(
            status="done",
            data=data,
            view=facts(ctx, s.name, _facts(ctx, s)),
            answer=answer,
            rows=[s.name],
            rows_of="session",
        )


def _facts(ctx: Context, s: Session) -> list[tuple[Sentence, Cell | str | None]]:
    result = f" ({ctx.say(RESULTS[s.result])})" if s.result else ""
    state = state_cell(ctx, s)
    why = "\n".join(told(ctx, r.message) for r in s.reasons)
    return [
        (S("Id"), s.id),
        (S("State"), Cell(text=state.text + result, tone=state.tone)),
        (S("Why"), Cell(text=why, tone="warn") if why else None),
        (S("User"), s.user),
        (S("Project"), s.project),
        (S("Type"), ctx.say(TYPES[s.type])),
        (S("Image"), s.image),
        (S("Command"), s.command),
        (S("Holds") if s.allocations else S("Asks for"), amounts(ctx, s.resources)),
        (S("GPU model"), s.gpu_model),
        (S("Use"), percent(s.gpu_utilization) if s.gpu_utilization is not None else None),
        (S("Node"), _places(s) or None),
        (S("Resource group"), s.resource_group),
        (S("Priority"), str(s.priority)),
        (S("Folders"), ", ".join(s.mounts) or None),
        (S("After"), ", ".join(s.depends_on) or None),
        (S("Submitted"), moment(ctx, s.submitted)),
        (S("Starts at"), moment(ctx, s.start_at) if s.start_at and not s.started else None),
        (S("Started"), moment(ctx, s.started) if s.started else None),
        (S("Ended"), moment(ctx, s.ended) if s.ended else None),
        (S("Time limit"), span(ctx, s.time_limit) if s.time_limit else None),
        (
            S("Exit code"),
            Cell(text=str(s.exit_code), tone="bad" if s.exit_code else "good") if s.exit_code is not None else None,
        ),
    ]


def _places(s: Session) -> str:
    """ "a100-03 (GPU 0, 1)" for each node."""

    def place(node: str, devices: Sequence[int]) -> str:
        return f"{node} (GPU {', '.join(map(str, devices))})" if devices else node

    return ", ".join(place(a.node, sorted(a.devices)) for a in s.allocations[:8])


class GetSessionLogsArguments(Arguments):
    session: SessionName
    tail: int | None = Field(None, ge=1, le=10_000, description="Lines from the end; 100 when left out.")


class GetSessionLogs(ReadingTool[GetSessionLogsArguments]):
    """Show the last lines that a session printed."""

    name = "get_session_logs"
    arguments = GetSessionLogsArguments

    async def read(self, ctx: Context, args: GetSessionLogsArguments) -> Result:
        page = await ctx.client.logs(args.session, tail=args.tail or 100)
        lines = page.text.splitlines()
        answer = plural(
            len(lines),
            S("The last line of {name}.", name=args.session),
            S("The last {count} lines of {name}.", name=args.session, count=len(lines)),
        )
        if not lines:
            answer = S("{name} has printed nothing yet.", name=args.session)
        return Result(
            status="done",
            data={"session": args.session, "lines": len(lines), "finished": page.finished, "end": page.text[-2000:]},
            view=TextView(title=ctx.say(answer), text=page.text, code=True),
            answer=ctx.say(answer),
            rows=[args.session],
            rows_of="session",
        )


class ExplainPendingArguments(Arguments):
    session: SessionName


class ExplainPending(ReadingTool[ExplainPendingArguments]):
    """Say why a session waits, who goes first, and when it is likely to start."""

    name = "explain_pending"
    arguments = ExplainPendingArguments

    async def read(self, ctx: Context, args: ExplainPendingArguments) -> Result:
        """Of one that has failed: why that is, since nothing of it waits any more."""
        why = await ctx.client.explain(args.session)
        if why.session.state == "error":
            return await diagnosed(ctx, why.session.id)
        reasons = [told(ctx, r.message) for r in why.reasons]
        data: dict[str, JsonValue] = {
            "session": why.session.name,
            "state": why.session.state.value,
            "reasons": [*reasons],
        }
        data["ahead"] = [*why.ahead[:9]]
        if why.estimated_start:
            data["estimated_start"] = why.estimated_start.astimezone(ctx.now.tzinfo).isoformat(timespec="minutes")
        answer = ctx.say(self._answer(ctx, why, reasons))
        view = facts(ctx, answer, self._lines(ctx, why, reasons))
        return Result(status="done", data=data, view=view, answer=answer, rows=[why.session.name], rows_of="session")

    def _answer(self, ctx: Context, why: Explanation, reasons: list[str]) -> Sentence:
        name = why.session.name
        if why.session.state not in WAITING:
            return S("{name} does not wait: it is {state}.", name=name, state=state_word(ctx, why.session.state))
        if not reasons:
            return S("{name} waits for the next scheduling pass; nothing is in its way.", name=name)
        if why.estimated_start:
            return S(
                "{name} waits: {reason} It is likely to start at {time}.",
                name=name,
                reason=reasons[0],
                time=moment(ctx, why.estimated_start),
            )
        return S("{name} waits: {reason}", name=name, reason=reasons[0])

    def _lines(self, ctx: Context, why: Explanation, reasons: list[str]) -> list[tuple[Sentence, Cell | str | None]]:
        s = why.session
        unknown = ctx.say(S("can't be told"))
        waits = s.state in WAITING
        return [
            (S("State"), state_cell(ctx, s)),
            (S("Asks for"), amounts(ctx, s.resources)),
            (S("Waits for"), ago(ctx, s.submitted) if waits else None),
            *((S("Reason"), Cell(text=r, tone="warn")) for r in reasons),
            (S("Ahead of it"), listed(why.ahead) if why.ahead else None),
            (
                S("Likely start"),
                (moment(ctx, why.estimated_start) if why.estimated_start else unknown) if waits else None,
            ),
        ]
