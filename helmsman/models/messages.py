"""The memory of a conversation as LangChain messages: the one shape that every model behind `choose` reads."""

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage

from helmsman.turn import Call, Exchange, Step

DECISIONS = frozenset({"ask", "refuse", "talk"})
"""Answers that are no tool: a question back, a refusal, small talk. Models give them as calls of these names."""
MAX_DATA = 6_000
"""Characters of one result that a model sees."""


def to_messages(exchanges: Sequence[Exchange]) -> list[BaseMessage]:
    """Oldest first. Every call has its reply, since endpoints refuse a dangling one."""
    return [message for exchange in exchanges for message in _exchange(exchange)]


def _exchange(exchange: Exchange) -> list[BaseMessage]:
    messages: list[BaseMessage] = [HumanMessage(exchange.user)]
    for number, step in enumerate(exchange.steps):
        messages += _step(step, f"{number}")
    return messages


def _step(step: Step, number: str) -> list[BaseMessage]:
    if step.decision:
        call = ToolCall(name=step.decision, args=step.decision_arguments, id=f"decision-{number}", type="tool_call")
        return [AIMessage(step.words, tool_calls=[call]), ToolMessage("shown", tool_call_id=f"decision-{number}")]
    calls = [ToolCall(name=c.tool, args=c.said, id=c.id, type="tool_call") for c in step.calls]
    return [AIMessage(step.words, tool_calls=calls), *(_reply(c) for c in step.calls)]


def _reply(call: Call) -> ToolMessage:
    body: dict[str, Any] = {"status": call.status or "stopped", "answer": call.answer, **call.data}
    if call.reasons:
        body["reasons"] = [{"code": r.code, "message": str(r.message)} for r in call.reasons]
    text = json.dumps(body, ensure_ascii=False)[:MAX_DATA]
    return ToolMessage(text, tool_call_id=call.id, name=call.tool, artifact=call.rows)
