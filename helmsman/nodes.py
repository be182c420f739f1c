"""What the nodes of `helmsman/graph.py` do with a turn: think, plan, act, answer."""

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolCall

from cluster.models import Reason, S, Sentence
from helmsman import approve, questions, talk
from helmsman.events import (
    Answered,
    Asked,
    CallEnded,
    CallStarted,
    Decided,
    PlannedCall,
    PlanShown,
    Words,
    Working,
)
from helmsman.heard import put_right
from helmsman.kit import Kit, Opened
from helmsman.models.messages import DECISIONS, to_messages
from helmsman.once import is_, once
from helmsman.prose import Checker, Sentences
from helmsman.turn import Asking, Call, Exchange, Given, Outcome, Picked, Step, Turn
from helmsman.turn import Question as OpenPlan
from tools.base import Context, Result
from tools.resolve import Question, Ready, Unfit, link
from tools.views import Text, View
from tools.words import say

MAX_ROUNDS = 8
"""How often a model is asked in one turn."""
MAX_CALLS = 16
"""Calls of one answer; the rest is dropped."""
MAX_AUTOMATIC = 5
"""Plans of one turn that pass by a pre-approval; then the person is asked, whatever is allowed."""


# ── think ────────────────────────────────────────────────────────────────────────────────────────


async def think(turn: Turn, past: list[Exchange], kit: Kit) -> None:
    """Ask the model, and sort its answer: calls, a decision, or nothing more to do."""
    if turn.rounds >= MAX_ROUNDS:
        _finish(
            turn,
            "failed",
            S("I stopped after {count} steps without an end; say what is still missing.", count=MAX_ROUNDS),
        )
        return
    turn.rounds += 1
    await kit.emit(Working(label=say(S("thinking"), turn.language)), None)
    exchanges = [*past, turn.exchange]
    message, prose = await kit.unless_stopped(_ask_model(to_messages(exchanges), exchanges, kit))
    wishes = message.tool_calls[:MAX_CALLS]
    if turn.picked and turn.rounds == 1:
        wishes = [_with_picked(wishes, turn.picked)]
    if decision := next((w for w in wishes if w["name"] == "ask"), None):
        wishes = [decision]
    elif any(w["name"] not in DECISIONS for w in wishes):
        wishes = [w for w in wishes if w["name"] not in DECISIONS]
    if wishes and wishes[0]["name"] in DECISIONS:
        await _decide(turn, message, prose, kit)
    else:
        _take_wishes(turn, [(w["name"], w["args"]) for w in wishes], prose)
        if getattr(kit.model(), "miscopies", False) and turn.waiting:
            put_right(turn.waiting, turn.exchange.user, await kit.client.names())


def _with_picked(wishes: Sequence[ToolCall], picked: Picked) -> ToolCall:
    """The call that was asked about, with what the person chose; the model adds what it remembers of the request."""
    said = next((w["args"] for w in wishes if w["name"] == picked.tool), {})
    return ToolCall(name=picked.tool, args={**said, picked.argument: picked.value}, id="picked", type="tool_call")


async def _ask_model(
    messages: list[BaseMessage], exchanges: Sequence[Exchange], kit: Kit
) -> tuple[AIMessage, Sentences | None]:
    """The model's whole answer; its prose goes on sentence by sentence, as far as it holds."""
    whole: Any = None
    prose: Sentences | None = None
    async for chunk in kit.model().astream(messages):
        whole = chunk if whole is None else whole + chunk
        if chunk.text:
            prose = prose or Sentences(await _checker(exchanges, kit))
            await _speak(prose.feed(chunk.text), kit)
    if prose:
        await _speak(prose.feed("", last=True), kit)
    return whole or AIMessage(""), prose


async def _checker(exchanges: Sequence[Exchange], kit: Kit) -> Checker:
    names = await kit.client.names()
    known = [*names.nodes, *names.users, *names.projects, *names.folders, *names.sessions, *names.sessions.values()]
    return Checker(exchanges, known)


async def _speak(words: str, kit: Kit) -> None:
    if words:
        await kit.emit(Words(delta=words), None)


async def _decide(turn: Turn, message: AIMessage, prose: Sentences | None, kit: Kit) -> None:
    """A question back, a refusal or small talk."""
    kind, arguments = message.tool_calls[0]["name"], message.tool_calls[0]["args"]
    if kind == "ask":
        kind, arguments = next((w["name"], w["args"]) for w in message.tool_calls if w["name"] == "ask")
    turn.exchange.steps.append(Step(words=prose.text if prose else "", decision=kind, decision_arguments=arguments))
    if kind == "ask":
        guess = message.additional_kwargs.get("guess")
        turn.asking = await _asking(turn, arguments, guess, kit)
        turn.asking.language = turn.language
        turn.outcome = "asked"
    elif kind == "refuse":
        _finish(turn, "refused", talk.refusal(str(arguments.get("about", ""))))
    else:
        _finish(turn, "done", talk.talk(turn.exchange.user, turn.language))


async def _asking(turn: Turn, arguments: dict[str, Any], guess: list[dict[str, Any]] | None, kit: Kit) -> Asking:
    if guess:
        calls = [_call(turn, i, g["name"], g["args"]) for i, g in enumerate(guess)]
        return questions.confirm(calls, turn.language)
    ctx = await kit.context(turn.language)
    return questions.ask(str(arguments.get("for", "")), str(arguments.get("about", "")), ctx)


def _take_wishes(turn: Turn, wishes: list[tuple[str, dict[str, Any]]], prose: Sentences | None) -> None:
    """The model's calls become the turn's; none, or the same as before, means that it has finished."""
    words = prose.text.strip() if prose and not prose.broken else ""
    if not wishes or _repeats(turn, wishes):
        _conclude(turn, words)
        return
    calls = [_call(turn, i, tool, said) for i, (tool, said) in enumerate(wishes)]
    turn.exchange.steps.append(Step(words=prose.text if prose else "", calls=calls))


def _call(turn: Turn, index: int, tool: str, said: dict[str, Any]) -> Call:
    return Call(id=f"{turn.id}.{len(turn.all_calls) + index + 1}", tool=tool, said=said)


def _repeats(turn: Turn, wishes: list[tuple[str, dict[str, Any]]]) -> bool:
    """Whether all of it was called already since something last changed."""
    made: set[str] = set()
    for call in turn.all_calls:
        if call.risk != "R" and call.status == "done":
            made = set()
        made.add(_print(call.tool, call.said))
    return bool(made) and all(_print(tool, said) in made for tool, said in wishes)


def _print(tool: str, said: dict[str, Any]) -> str:
    return json.dumps([tool, said], sort_keys=True, ensure_ascii=False, default=str)


def _conclude(turn: Turn, words: str) -> None:
    """The end of a turn: what results say, in the model's words where these hold."""
    calls = turn.calls
    if not calls and not words:
        _finish(turn, "asked", S("I did not understand that. Say it in other words, or type /help for examples."))
        return
    turn.outcome = _outcome(calls)
    turn.answer = words or "\n".join(c.answer for c in calls if c.answer)


def _outcome(calls: Sequence[Call]) -> Outcome:
    ranked: tuple[Outcome, ...] = ("failed", "denied", "refused")
    return next((status for status in ranked if any(c.status == status for c in calls)), "done")


def _finish(turn: Turn, outcome: Outcome, sentence: Sentence) -> None:
    turn.outcome, turn.answer = outcome, say(sentence, turn.language)


# ── plan ─────────────────────────────────────────────────────────────────────────────────────────


async def plan(turn: Turn, past: list[Exchange], kit: Kit) -> None:
    """Link every waiting call to what exists and preview W and D; then ask, unless reads come first.

    A call that only makes sense after an earlier one of the same request ("make x and share it") waits for it, and is
    planned when that one has run.
    """
    _take_edits(turn)
    turn.question = turn.given = None
    ctx = await kit.unless_stopped(kit.context(turn.language))
    for call in turn.waiting:
        call.ready = False
    for call in turn.waiting:
        follows_write = any(c.risk != "R" for c in turn.planned)
        if turn.outcome is not None or not await kit.unless_stopped(_prepare(turn, call, ctx, kit, follows_write)):
            break
    if turn.outcome is None and turn.planned and turn.planned[0].risk != "R":
        await _ask_approval(turn, kit)


def _take_edits(turn: Turn) -> None:
    edited = (turn.given.edited or {}) if turn.given and turn.given.decision == "edit" else {}
    for call in turn.waiting:
        if call.id in edited:
            call.said, call.tries = edited[call.id], call.tries + 1


async def _prepare(turn: Turn, call: Call, ctx: Context, kit: Kit, follows_write: bool) -> bool:
    """Make one call ready, or end it. False when it, and those after it, have to wait."""
    tool = kit.registry.get(call.tool)
    if tool is None:
        await _refuse(turn, call, kit.registry.absent(call.tool, ctx), kit)
        return True
    call.risk = tool.risk.value
    linked = await link(tool, call.said, ctx)
    if isinstance(linked, Ready):
        call.arguments = linked.args.given()
        card = await tool.preview(ctx, linked.args)
        refusal = card.refusal if card else None
        if refusal is None:
            call.plan, call.digest, call.ready = (card.plan, card.digest, True) if card else (None, "", True)
            return True
    elif isinstance(linked, Unfit):
        refusal = linked.result
    else:
        refusal = None
    if follows_write:
        return False
    if refusal is None:
        assert isinstance(linked, Question), linked
        turn.asking = questions.missing(linked, turn.calls, call)
        turn.asking.language = turn.language
        turn.outcome = "asked"
    else:
        await _refuse(turn, call, refusal, kit)
    return True


async def _refuse(turn: Turn, call: Call, result: Result, kit: Kit) -> None:
    await _end(call, result, kit, turn)
    if call.risk != "R":
        await _give_up(turn, call, kit)


async def _ask_approval(turn: Turn, kit: Kit) -> None:
    """Show the plan; a pre-approval answers it at once."""
    turn.plans += 1
    digest = approve.digest(turn.planned)
    automatic = turn.plans <= MAX_AUTOMATIC and not approve.needs_yes(turn.planned, await kit.rules())
    question = OpenPlan(id=f"{turn.id}.q{turn.plans}", digest=digest, automatic=automatic)
    shown = PlanShown(question=question.id, digest=digest, calls=_cards(turn.planned), moved=turn.moved)
    turn.question = question
    if not automatic:
        word = next((c.plan.type_word for c in turn.planned if c.plan and c.plan.type_word), None)
        await kit.open(Opened(id=question.id, digest=digest, type_word=word), shown)
        return
    turn.given = Given(question=question.id, digest=digest, decision="yes", face="rule")
    await kit.emit(shown, f"{question.id}.{digest}")
    await kit.emit(Decided(question=question.id, decision="yes", face="rule", automatic=True), f"{question.id}.decided")


def _cards(calls: Sequence[Call]) -> list[PlannedCall]:
    return [
        PlannedCall(id=c.id, tool=c.tool, risk=c.risk, arguments=c.arguments, plan=c.plan)
        for c in calls
        if c.plan is not None
    ]


# ── act ──────────────────────────────────────────────────────────────────────────────────────────


def may_run(turn: Turn) -> bool:
    """Whether the next call is ready and needs no (further) yes."""
    call = turn.waiting[0]
    return call.ready and (call.risk == "R" or (turn.given is not None and turn.given.decision == "yes"))


async def act(turn: Turn, past: list[Exchange], kit: Kit) -> None:
    """Run the next call, once; or, after a no, none of them."""
    if turn.given is not None and turn.given.decision == "no":
        await _deny(turn, kit)
        return
    call = turn.waiting[0]
    await kit.emit(
        CallStarted(id=call.id, tool=call.tool, risk=call.risk, arguments=call.arguments), f"{call.key}.started"
    )
    ctx = await kit.context(turn.language)
    result = await _run(call, ctx, kit)
    if is_(result, "refused", "state_changed"):
        call.ready, call.tries, turn.moved = False, call.tries + 1, True
        return
    await _end(call, result, kit, turn)
    if call.risk != "R":
        await kit.settle()
        if call.status != "done":
            await _give_up(turn, call, kit)


async def _run(call: Call, ctx: Context, kit: Kit) -> Result:
    """Run it, a change once."""
    tool = kit.registry.get(call.tool)
    assert tool is not None, call.tool
    args = tool.arguments.model_validate(call.arguments)
    if call.risk == "R":
        return await kit.unless_stopped(tool.run(ctx, args))
    return await once(lambda: tool.run(ctx, args, key=call.key, expect=call.digest), kit.patience)


async def _end(call: Call, result: Result, kit: Kit, turn: Turn) -> None:
    call.status = result.status
    call.data, call.answer, call.reasons = dict(result.data), result.answer, result.reasons
    call.rows, call.rows_of, call.audit_id = result.rows, result.rows_of, result.audit_id
    await _tell(call, result.view, kit)


async def _deny(turn: Turn, kit: Kit) -> None:
    for call in turn.waiting:
        call.status = "denied"
        call.answer = say(S("Not done: it was not approved."), turn.language)
        await _tell(call, Text(text=call.answer, tone="muted"), kit)
    turn.outcome, turn.answer = "denied", say(S("All right, nothing was changed."), turn.language)
    if any(c.status == "done" and c.risk != "R" for c in turn.all_calls):
        turn.answer = say(S("All right, the rest was not done."), turn.language)


async def _give_up(turn: Turn, failed: Call, kit: Kit) -> None:
    """What stood after a change that did not happen is not done either, and that is said."""
    sentence = S("Not done, since {tool} before it did not work.", tool=failed.tool)
    for call in turn.waiting:
        call.status, call.answer = "refused", say(sentence, turn.language)
        call.reasons = [Reason(code="conflict", message=sentence)]
        await _tell(call, Text(text=call.answer, tone="warn"), kit)


async def _tell(call: Call, view: View, kit: Kit) -> None:
    assert call.status is not None
    ended = CallEnded(
        id=call.id,
        tool=call.tool,
        status=call.status,
        view=view,
        data=call.data,
        risk=call.risk,
        arguments=call.arguments or call.said,
        audit_id=call.audit_id,
    )
    await kit.emit(ended, f"{call.key}.ended")


# ── answer ───────────────────────────────────────────────────────────────────────────────────────


async def answer(turn: Turn, kit: Kit) -> None:
    """The last words of the turn, or its question back."""
    if turn.outcome == "stopped":
        return
    if turn.asking is not None:
        question = f"{turn.id}.a"
        asked = Asked(question=question, text=turn.asking.text, choices=turn.asking.choices)
        await kit.open(Opened(id=question, digest="", asking=turn.asking), asked)
        return
    if turn.outcome is None:
        _conclude(turn, "")
    await kit.emit(Answered(text=turn.answer, refused=turn.outcome == "refused"), f"{turn.id}.answered")
