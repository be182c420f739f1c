"""G, the model that ships with Helmsman, behind LangChain's interface. It runs in a thread of this process.

G answers with calls only: of tools, or the decisions `ask`, `refuse` and `talk`. After results it has nothing to add:
the results are the answer. When it is not sure of a call that would change something, its guess is put as a question.
"""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

from cluster.models import S
from helmsman.errors import ModelUnavailable
from helmsman.models.messages import DECISIONS
from helmsman.prompts import PSEUDO_CALLS, Answer, Call, ResultRows, Turn
from tools.catalogue import catalogue
from tools.registry import Registry

if TYPE_CHECKING:
    from helmsman.models.g import G

SURE = 0.35
"""Below this confidence a call that changes something is asked about instead of planned."""


class EmbeddedModel(BaseChatModel):
    """`path` is the model's directory, None for the one that ships."""

    path: Path | None = None
    sure: float = SURE
    miscopies: bool = True
    """It is small enough to write a100-05 where the person wrote a100-02; see `helmsman/heard.py`."""
    _risky: frozenset[str] = PrivateAttr(default=frozenset())
    _g: "G | None" = PrivateAttr(default=None)
    _loading: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @classmethod
    def at(cls, path: Path | None, registry: Registry) -> "EmbeddedModel":
        """Nothing is loaded before the first answer, or `warm`."""
        model = cls(path=path.expanduser() if path else None)
        model._risky = frozenset(tool.name for tool in registry if tool.risk != "R")
        return model

    @property
    def _llm_type(self) -> str:
        return "helmsman-g"

    def warm(self) -> "G":
        """Load it if it isn't yet. Raises `ModelUnavailable` when its files are not there or broken."""
        with self._loading:
            if self._g is None:
                self._g = _load(self.path)
            return self._g

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._answer(messages, threading.Event())

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        cancelled = threading.Event()
        try:
            return await asyncio.to_thread(self._answer, messages, cancelled)
        finally:
            cancelled.set()

    def _answer(self, messages: list[BaseMessage], cancelled: threading.Event) -> ChatResult:
        if isinstance(messages[-1], ToolMessage):
            return _result(AIMessage(""))
        return _result(self._message(self.warm().generate(to_turns(messages), cancelled)))

    def _message(self, answer: Answer) -> AIMessage:
        calls = [_tool_call(i, c) for i, c in enumerate(answer.calls)]
        about = {"model": "g", "confidence": answer.confidence, "tokens": answer.tokens, "ms": answer.ms}
        unsure = answer.confidence < self.sure and any(c.tool in self._risky for c in answer.calls)
        if not unsure:
            return AIMessage("", tool_calls=calls, response_metadata=about)
        guess = [{"name": c["name"], "args": c["args"]} for c in calls if c["name"] not in DECISIONS]
        ask = ToolCall(name="ask", args={"for": guess[0]["name"], "about": ""}, id="g-ask", type="tool_call")
        return AIMessage("", tool_calls=[ask], additional_kwargs={"guess": guess}, response_metadata=about)


def to_turns(messages: Sequence[BaseMessage]) -> list[Turn]:
    """Messages as the turns that G was trained on: lines, calls, and the names that results showed."""
    turns: list[Turn] = []
    for message in messages:
        if isinstance(message, HumanMessage):
            turns.append(Turn(str(message.content)))
        elif isinstance(message, AIMessage) and turns:
            turns[-1].calls.extend(Call(c["name"], c["args"]) for c in message.tool_calls if _has_words(c["name"]))
        elif isinstance(message, ToolMessage) and turns and message.artifact:
            turns[-1].results.append(ResultRows(message.name or "", list(message.artifact)))
    return turns


def _has_words(tool: str) -> bool:
    """G can say it. Another model of the same conversation may have called what is beyond the contract."""
    return tool in catalogue() or tool in PSEUDO_CALLS


def _tool_call(index: int, call: Call) -> ToolCall:
    return ToolCall(name=call.tool, args=dict(call.arguments), id=f"g-{index}", type="tool_call")


def _result(message: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])


def _load(path: Path | None) -> "G":
    try:
        from helmsman.models.g import G

        return G.load(path) if path else G.load()
    except (ImportError, OSError, RuntimeError, ValueError, KeyError) as e:
        why = str(e).splitlines()[0] if str(e) else type(e).__name__
        where = str(path) if path else "weights/g"
        raise ModelUnavailable(
            S(
                "The model in {path} can't be loaded ({why}). Set it up again with `make setup`, or choose another.",
                path=where,
                why=why,
            )
        ) from e
