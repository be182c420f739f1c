"""What came of an operation, as a plan card before and a result after; and how an error becomes a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue

from cluster.errors import ClusterError
from cluster.models import Effect, Outcome, Reason, Resources, S, Sentence, TerminateSessions
from tools.base import A, Card, Context, OperationTool, Result, Risk
from tools.show import amounts, told
from tools.views import Plan, PlanLine, Text, Tone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.models import Operation

_TONES: dict[str, Tone] = {
    "starts": "good", "sooner": "good", "creates": "good", "restores": "good", "waits": "warn", "held": "warn",
    "delayed": "warn", "restarts": "warn", "changes": "plain", "stops": "bad", "removes": "bad", "lost": "bad",
}  # fmt: skip
SHOWN_EFFECTS = 20
HEAVY_SESSIONS = 3
"""Stopping more than this many sessions asks for a typed word."""
HEAVY_SECONDS = 3 * 3600
"""So does stopping work that has run longer than this."""


async def longest_run(ctx: Context, outcome: Outcome) -> float:
    """Seconds that the longest of the sessions to be stopped has run; 0 where `card` can tell without."""
    stopped = {e.target for e in outcome.effects if e.kind in ("stops", "restarts")}
    if outcome.refused or len(stopped) > HEAVY_SESSIONS:
        return 0
    sessions = [await ctx.client.session(name) for name in sorted(stopped)]
    return max(((ctx.now - s.started).total_seconds() for s in sessions if s.started), default=0)


def card(ctx: Context, tool: OperationTool[A], args: A, outcome: Outcome, longest: float = 0) -> Card:
    """The plan that people see, or the refusal when the preview was refused. `longest`: see `longest_run`."""
    if outcome.refused:
        return Card(plan=None, digest=outcome.digest, refusal=refusal(ctx, outcome.refused))
    plan = Plan(
        title=ctx.say(tool.title(ctx, args, outcome)),
        risk="D" if tool.risk is Risk.D else "W",
        effects=[_line(ctx, e) for e in outcome.effects[:SHOWN_EFFECTS]],
        warnings=_warnings(ctx, outcome),
        undo=told(ctx, outcome.undo) if outcome.undo else None,
        type_word=_type_word(tool.risk, outcome, longest, ctx.user),
    )
    return Card(plan=plan, digest=outcome.digest)


def result(ctx: Context, tool: OperationTool[A], args: A, outcome: Outcome) -> Result:
    """What was done, or why not."""
    if outcome.refused:
        return refusal(ctx, outcome.refused)
    answer = ctx.say(tool.done(ctx, args, outcome))
    lines = [told(ctx, e.message) for e in outcome.effects[:SHOWN_EFFECTS]]
    undo = [ctx.say(S("To put it back: {how}", how=told(ctx, outcome.undo)))] if outcome.undo else []
    unsaid = [line for line in lines if line not in answer]
    rows = _rows(tool, args, outcome)
    return Result(
        status="done",
        data=_data(ctx, tool, outcome, lines),
        view=Text(title=answer, text="\n".join([*unsaid, *_warnings(ctx, outcome), *undo]), tone="good"),
        answer=answer,
        rows=rows,
        rows_of=tool.rows_of if rows else None,
        audit_id=outcome.audit_id,
    )


def refusal(ctx: Context, reasons: Sequence[Reason]) -> Result:
    """A refusal with its reasons, in the same words for the model and for people."""
    return _not_done(ctx, "refused", [told(ctx, r.message) for r in reasons], list(reasons))


def failure(ctx: Context, error: ClusterError) -> Result:
    """An error of the cluster as a result; what is worth trying instead is offered."""
    reason = Reason(code=_code(error), message=error.sentence, candidates=error.candidates)
    refused = 400 <= error.status < 500 or error.code == "storage_full"
    return _not_done(ctx, "refused" if refused else "failed", _with_candidates(ctx, reason), [reason])


def unfit(
    ctx: Context,
    code: Literal["not_found", "invalid", "unavailable"],
    sentence: Sentence,
    candidates: Sequence[str] = (),
) -> Result:
    """A call that can't be made as it was asked for."""
    reason = Reason(code=code, message=sentence, candidates=list(candidates))
    return _not_done(ctx, "refused", _with_candidates(ctx, reason), [reason])


def _not_done(ctx: Context, status: Literal["refused", "failed"], lines: list[str], reasons: list[Reason]) -> Result:
    said = " ".join(lines)
    codes: list[JsonValue] = [r.code for r in reasons]
    candidates: list[JsonValue] = [c for r in reasons for c in r.candidates[:9]]
    data: dict[str, JsonValue] = {"status": status, "reasons": codes, "message": said}
    if candidates:
        data["candidates"] = candidates
    return Result(
        status=status,
        data=data,
        view=Text(text="\n".join(lines), tone="bad" if status == "failed" else "warn"),
        answer=said,
        reasons=reasons,
    )


def _code(
    error: ClusterError,
) -> Literal["not_found", "ambiguous", "not_allowed", "conflict", "invalid", "storage_full", "unavailable"]:
    match error.code:
        case "not_found" | "ambiguous" | "not_allowed" | "conflict" | "invalid" | "storage_full" as code:
            return code
        case "not_authenticated":
            return "not_allowed"
        case _:
            return "invalid" if error.status < 500 else "unavailable"


def _with_candidates(ctx: Context, reason: Reason) -> list[str]:
    """The sentence, and what was probably meant unless the sentence names it already."""
    said = told(ctx, reason.message)
    missing = [c for c in reason.candidates[:5] if c not in said]
    return [said, ctx.say(S("Did you mean one of these: {names}?", names=", ".join(missing)))] if missing else [said]


def _line(ctx: Context, effect: Effect) -> PlanLine:
    owner = effect.owner if effect.owner != ctx.user else None
    return PlanLine(text=told(ctx, effect.message), tone=_TONES.get(effect.kind, "plain"), owner=owner)


def _warnings(ctx: Context, outcome: Outcome) -> list[str]:
    said = [told(ctx, w) for w in outcome.warnings]
    left_out = len(outcome.effects) - SHOWN_EFFECTS
    if left_out > 0:
        said.append(ctx.say(S("{count} more effects are not shown.", count=left_out)))
    if outcome.quota_left is not None and outcome.dry_run:
        said.append(ctx.say(S("Quota left afterwards: {amounts}.", amounts=_left(ctx, outcome.quota_left))))
    return said


def _left(ctx: Context, left: Resources) -> str:
    return amounts(ctx, left) if (left.gpu or left.cpu or left.memory) else ctx.say(S("nothing"))


def _type_word(risk: Risk, outcome: Outcome, longest: float, user: str) -> str | None:
    """The word to type for heavy ones: other people's work, many sessions, long work."""
    ended = [e for e in outcome.effects if e.kind in ("stops", "lost", "removes", "restarts")]
    if risk is not Risk.D or not ended:
        return None
    stopped = {e.target for e in ended}
    foreign = any(e.owner not in (None, user) for e in ended)
    if not (foreign or len(stopped) > HEAVY_SESSIONS or longest > HEAVY_SECONDS):
        return None
    return next(iter(stopped)) if len(stopped) == 1 else _verb(outcome.operation)


def _verb(operation: Operation) -> str:
    return "terminate" if isinstance(operation, TerminateSessions) else operation.op.split("_")[0]


def _rows(tool: OperationTool[A], args: A, outcome: Outcome) -> list[str]:
    """The names of what was asked for, so that "it" can mean them."""
    if outcome.session:
        return [outcome.session.name]
    given = args.given()
    named = given.get(f"{tool.rows_of}s") or given.get(str(tool.rows_of)) or given.get("name")
    return [str(name) for name in (named if isinstance(named, list) else [named])][:SHOWN_EFFECTS] if named else []


def _data(ctx: Context, tool: OperationTool[A], outcome: Outcome, lines: list[str]) -> dict[str, JsonValue]:
    data: dict[str, JsonValue] = {"status": "done", "did": tool.name, "effects": [*lines]}
    if outcome.session:
        made = outcome.session
        data["session"] = {"name": made.name, "id": made.id, "state": made.state.value}
    if outcome.audit_id:
        data["audit_id"] = outcome.audit_id
    if outcome.undo:
        data["undo"] = told(ctx, outcome.undo)
    return data
