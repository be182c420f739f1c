"""One tool call of an MCP client, from its arguments to a result, with a person asked in between where that is needed.

step(call) ──► Ended(result)                       nothing more to ask
     │
     └──────► Asked(left, message, form) ── a reply ──► step(call, left, reply) ──► …

Between two steps there is nothing but `Left`, plain data: a client of the older protocol is waited for, one of the
newer protocol comes back with it (sealed, so that it can't be made up). No transport here.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cluster.models import Reason, S, Sentence
from helmsman import questions, replies
from helmsman.mcp.forms import Form, for_argument, for_plan, message_of, plan_text
from helmsman.once import PATIENCE, is_, once
from helmsman.turn import Asking, Call
from tools.base import Context, Result, Tool
from tools.resolve import Question, Ready, Unfit, link
from tools.views import Text

MAX_ASKED = 8
"""Questions of one call; then it ends. (Clients of the newer protocol give up after ten.)"""


class Reply(BaseModel):
    """What the person answered, as the protocol says it: nothing in it is trusted."""

    action: Literal["accept", "decline", "cancel"]
    content: Mapping[str, Any] = {}


class Left(BaseModel):
    """What a call leaves behind while a person is asked."""

    model_config = ConfigDict(extra="forbid")

    call: Call
    """Its id is the idempotency key; `digest` and `arguments` are what a yes is bound to."""
    asking: Asking | None = None
    """The question back; None while a plan is open."""
    asked: int = 0
    """Questions so far."""


@dataclass(frozen=True)
class Asked:
    """A person has to answer `message` by filling in `form` (a JSON schema of the protocol's kind)."""

    left: Left
    message: str
    form: Form


@dataclass(frozen=True)
class Ended:
    """The call is over."""

    result: Result


Step = Asked | Ended


def begun(tool: Tool[Any], said: Mapping[str, Any]) -> Left:
    """A call as it comes in. The key is made here: a client can't choose one that was used before."""
    call = Call(id=f"mcp-{secrets.token_hex(8)}", tool=tool.name, said=dict(said), risk=tool.risk.value)
    return Left(call=call)


async def step(
    tool: Tool[Any],
    ctx: Context,
    left: Left,
    reply: Reply | None = None,
    can_ask: bool = True,
    patience: Sequence[float] = PATIENCE,
) -> Step:
    """The next thing to happen. Without `can_ask` what needs an answer ends with a result that says what it was.

    Raises a `ClusterError` when the cluster can't be asked.
    """
    left = left.model_copy(deep=True)
    if reply is not None and left.asking is not None:
        if not _take_answer(left, reply):
            return Ended(_unanswered(ctx, left.asking))
    elif reply is not None:
        if (no := _objection(ctx, left.call, reply)) is not None:
            return Ended(no)
        return await _act(tool, ctx, left, can_ask, patience)
    return await _plan(tool, ctx, left, can_ask, moved=False)


# ── what is asked, and what the answers mean ─────────────────────────────────────────────────────


async def _plan(tool: Tool[Any], ctx: Context, left: Left, can_ask: bool, moved: bool) -> Step:
    """Link; then read at once, or preview and ask."""
    call = left.call
    linked = await link(tool, call.said, ctx)
    if isinstance(linked, Unfit):
        return Ended(linked.result)
    if isinstance(linked, Question):
        return _ask_back(ctx, left, linked, can_ask)
    return await _run_or_ask(tool, ctx, left, linked, can_ask, moved)


def _ask_back(ctx: Context, left: Left, linked: Question, can_ask: bool) -> Step:
    asking = questions.missing(linked, [left.call], left.call)
    if not can_ask or left.asked >= MAX_ASKED:
        return Ended(_unanswered(ctx, asking))
    left.asking, left.asked = asking, left.asked + 1
    return Asked(left, message_of(asking), for_argument(asking))


async def _run_or_ask(tool: Tool[Any], ctx: Context, left: Left, linked: Ready, can_ask: bool, moved: bool) -> Step:
    if left.call.risk == "R":
        return Ended(await tool.run(ctx, linked.args))
    card = await tool.preview(ctx, linked.args)
    assert card is not None, tool.name
    if card.refusal is not None:
        return Ended(card.refusal)
    assert card.plan is not None, tool.name
    call = left.call
    call.arguments, call.plan, call.digest, call.ready = linked.args.given(), card.plan, card.digest, True
    if not can_ask:
        return Ended(_nobody_to_ask(ctx, call))
    if left.asked >= MAX_ASKED:
        return Ended(_keeps_moving(ctx))
    left.asking, left.asked = None, left.asked + 1
    return Asked(left, plan_text(card.plan, ctx.say, moved), for_plan(card.plan, ctx.say))


def _take_answer(left: Left, reply: Reply) -> bool:
    """Put the answer where it was missing. False when there is none."""
    asking = left.asking
    assert asking is not None
    value = reply.content.get("value") if reply.action == "accept" else None
    if not isinstance(value, str) or not value.strip():
        return False
    picked = replies.pick(value, asking.choices) or value.strip()
    left.call.said, left.asking = questions.complete(asking, picked)[asking.waiting].said, None
    return True


def _objection(ctx: Context, call: Call, reply: Reply) -> Result | None:
    """Why this reply is no yes to this plan; None when it is one."""
    assert call.plan is not None, call.tool
    if reply.action != "accept" or reply.content.get("approve") is not True:
        return _not_done(ctx, "denied", S("Not done: it was not approved."))
    word, typed = call.plan.type_word, reply.content.get("word")
    if word and (not isinstance(typed, str) or replies.normal(typed) != replies.normal(word)):
        return _not_done(ctx, "denied", S("Not done: {word} was not typed.", word=word))
    return None


async def _act(tool: Tool[Any], ctx: Context, left: Left, can_ask: bool, patience: Sequence[float]) -> Step:
    """Do exactly what was shown; if the world moved since, do nothing, and ask again with what it is now."""
    call = left.call
    args = tool.arguments.model_validate(call.arguments)
    result = await once(lambda: tool.run(ctx, args, key=call.key, expect=call.digest), patience)
    if is_(result, "refused", "state_changed"):
        call.tries, call.ready = call.tries + 1, False
        return await _plan(tool, ctx, left, can_ask, moved=True)
    return Ended(result)


# ── ends without a deed ──────────────────────────────────────────────────────────────────────────


def _unanswered(ctx: Context, asking: Asking) -> Result:
    """The question as a result: the client's model can ask its person, or call again with more."""
    result = _not_done(ctx, "asked", S("Nothing was done yet. {question}", question=asking.text))
    return result.model_copy(
        update={"data": {**result.data, "argument": asking.argument, "choices": [*asking.choices]}}
    )


def _nobody_to_ask(ctx: Context, call: Call) -> Result:
    assert call.plan is not None, call.tool
    sentence = S(
        "Not done: a person has to approve this, and this MCP client can't show the question (elicitation). "
        "Use a client that can, or the `helmsman` chat."
    )
    result = _not_done(ctx, "approval_needed", sentence)
    plan = call.plan.model_dump(mode="json", exclude={"view"})
    return result.model_copy(update={"data": {**result.data, "plan": plan}})


def _keeps_moving(ctx: Context) -> Result:
    return _not_done(
        ctx, "denied", S("Not done: the cluster changes faster than it can be asked about. Try again later.")
    )


def _not_done(ctx: Context, status: str, sentence: Sentence) -> Result:
    said = ctx.say(sentence)
    return Result(
        status="refused",
        data={"status": status, "message": said},
        view=Text(text=said, tone="warn"),
        answer=said,
        reasons=[Reason(code="conflict", message=sentence)],
    )
