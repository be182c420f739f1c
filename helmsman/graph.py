"""The whole agent on one page: think → plan → approve → act → think.

    think    the model answers: calls, words, or a decision (ask back, refuse, talk)
    plan     each call's arguments are linked to what exists; W and D are previewed; reads pass
    approve  waits for a person (`interrupt`); a node of its own, without effects, since it runs again on resume
    act      one call a visit, its id as idempotency key, only if its preview still holds
    answer   what is said at the end, made from results

Every node takes the turn and gives it back; between two nodes the checkpointer writes it down, so that after a
`kill -9` the turn goes on where it was. How a node does its work stands in `helmsman/nodes.py`.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import interrupt

from helmsman import approve as rules
from helmsman import nodes
from helmsman.kit import Kit, Stopped
from helmsman.turn import Exchange, Given, Turn

MAX_PAST = 6
"""Earlier exchanges that a model is shown."""


class State(TypedDict, total=False):
    """What the checkpointer keeps: plain JSON, small."""

    past: list[dict[str, Any]]
    turn: dict[str, Any]


Agent = CompiledStateGraph[State, Kit, State, State]
Work = Callable[[Turn, list[Exchange], Kit], Awaitable[None]]


class Node(Protocol):
    """What LangGraph calls."""

    async def __call__(self, state: State, *, runtime: Runtime[Kit]) -> State: ...


def build(saver: BaseCheckpointSaver[str]) -> Agent:
    """The agent, keeping its state in `saver`."""
    graph = StateGraph(State, context_schema=Kit)
    graph.add_node("think", _node(nodes.think))
    graph.add_node("plan", _node(nodes.plan))
    graph.add_node("approve", approve)
    graph.add_node("act", _node(nodes.act))
    graph.add_node("answer", answer)
    graph.add_conditional_edges(START, _begin, ["think", "plan"])
    graph.add_conditional_edges("think", _after_think, ["plan", "answer"])
    graph.add_conditional_edges("plan", _after_plan, ["think", "approve", "act", "answer"])
    graph.add_conditional_edges("approve", _after_approve, ["plan", "act"])
    graph.add_conditional_edges("act", _after_act, ["act", "plan", "think", "answer"])
    graph.add_edge("answer", END)
    return graph.compile(checkpointer=saver)


def approve(state: State) -> State:
    """Wait until a person has decided about exactly this plan. Runs twice, so it does nothing else."""
    turn = Turn.model_validate(state["turn"])
    assert turn.question is not None
    given = Given.model_validate(interrupt(turn.question.model_dump(mode="json")))
    rules.check(given, turn.question, turn.planned)
    turn.given = given
    return {"turn": turn.model_dump(mode="json")}


async def answer(state: State, *, runtime: Runtime[Kit]) -> State:
    """Say what came of it, and remember the exchange."""
    turn = Turn.model_validate(state["turn"])
    await nodes.answer(turn, runtime.context)
    past = [*state.get("past", []), turn.exchange.model_dump(mode="json")]
    return {"turn": turn.model_dump(mode="json"), "past": past[-MAX_PAST:]}


def _begin(state: State) -> str:
    return "plan" if Turn.model_validate(state["turn"]).preset else "think"


def _after_think(state: State) -> str:
    turn = Turn.model_validate(state["turn"])
    return "plan" if turn.outcome is None and turn.waiting else "answer"


def _after_plan(state: State) -> str:
    turn = Turn.model_validate(state["turn"])
    if turn.outcome is not None:
        return "answer"
    if not turn.waiting:
        return "think"
    waits_for_yes = turn.question is not None and turn.given is None
    return "approve" if waits_for_yes else "act"


def _after_approve(state: State) -> str:
    turn = Turn.model_validate(state["turn"])
    return "plan" if turn.given is not None and turn.given.decision == "edit" else "act"


def _after_act(state: State) -> str:
    turn = Turn.model_validate(state["turn"])
    if turn.outcome is not None:
        return "answer"
    if not turn.waiting:
        return "think"
    return "act" if nodes.may_run(turn) else "plan"


def _node(work: Work) -> Node:
    """A step of the agent as a node: the turn out of the state, and back into it; a stop ends it."""

    async def node(state: State, *, runtime: Runtime[Kit]) -> State:
        turn = Turn.model_validate(state["turn"])
        past = [Exchange.model_validate(p) for p in state.get("past", [])]
        try:
            if runtime.context.stopping.is_set():
                raise Stopped
            await work(turn, past, runtime.context)
        except Stopped:
            turn.outcome = "stopped"
        return {"turn": turn.model_dump(mode="json")}

    return node
