"""A model that says what a script tells it to: for tests and demonstrations, behind the others' interface."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from cluster.models import S
from helmsman.errors import BadConfig


class Wish(BaseModel):
    """One call as a script writes it."""

    model_config = ConfigDict(extra="forbid")

    tool: str
    arguments: dict[str, Any] = {}


class Line(BaseModel):
    """One answer. With `when` it is given whenever the person's last line matches; without, in its turn, once."""

    model_config = ConfigDict(extra="forbid")

    when: str | None = None
    say: str = ""
    calls: list[Wish] = []


Reply = Line | Callable[[str], Line]


class ScriptedModel(BaseChatModel):
    """Answers by a script: lines in order, lines by pattern, or a function of the person's last text.

    After results it says nothing more, unless the script holds a line with `say` for that (`after_results`).
    """

    lines: list[Line] = []
    answers: Callable[[str], Line] | None = None
    after_results: list[Line] = []
    _next: int = PrivateAttr(default=0)
    _seen: list[list[BaseMessage]] = PrivateAttr(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def seen(self) -> list[list[BaseMessage]]:
        """What it was asked, one list of messages a time."""
        return self._seen

    @classmethod
    def from_file(cls, path: Path) -> "ScriptedModel":
        """From YAML: a list of `{when, say, calls: [{tool, arguments}]}`."""
        try:
            entries = yaml.safe_load(path.read_text(encoding="utf-8"))
            return cls(lines=[Line.model_validate(entry) for entry in entries])
        except (OSError, yaml.YAMLError, ValidationError, TypeError) as e:
            first = str(e).splitlines()[0]
            raise BadConfig(S("The script of answers {path} can't be read: {why}.", path=str(path), why=first)) from e

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self._seen.append(messages)
        line = self._after() if isinstance(messages[-1], ToolMessage) else self._line(_last_text(messages))
        return ChatResult(generations=[ChatGeneration(message=_message(line, len(self._seen)))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages)

    def _after(self) -> Line:
        return self.after_results.pop(0) if self.after_results else Line()

    def _line(self, text: str) -> Line:
        if self.answers:
            return self.answers(text)
        matching = next((x for x in self.lines if x.when and re.search(x.when, text, re.IGNORECASE)), None)
        if matching:
            return matching
        ordered = [x for x in self.lines if not x.when]
        if self._next >= len(ordered):
            return Line(calls=[Wish(tool="refuse", arguments={"about": "out_of_scope"})])
        self._next += 1
        return ordered[self._next - 1]


def _last_text(messages: Sequence[BaseMessage]) -> str:
    return next((str(m.content) for m in reversed(messages) if isinstance(m, HumanMessage)), "")


def _message(line: Line, number: int) -> AIMessage:
    calls = [
        ToolCall(name=wish.tool, args=wish.arguments, id=f"script-{number}-{i}", type="tool_call")
        for i, wish in enumerate(line.calls)
    ]
    return AIMessage(line.say, tool_calls=calls)
