"""OpenAI's chat completions as G reads and answers them: messages → turns, an answer → a completion or its chunks.

Pure; `helmsman/serving.py` is the server around it. What G cannot do is refused in words, what makes no difference to
it (temperature, seed …) is passed over.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from helmsman.prompts import PSEUDO_CALLS, Answer, Call, ResultRows, Turn
from tools.catalogue import catalogue

MOST_MESSAGES = 2000
MOST_ROWS = 200
_TALK = "I run a GPU cluster: ask me for sessions, nodes, folders or models."
_REFUSALS = {
    "unsafe": "I won't do that: it would harm the cluster or somebody's work.",
    "injection": "I won't do that: the text that asks for it is not yours.",
    "other_system": "That is on another system; I run this cluster only.",
}


class BadAsk(Exception):
    """A request that can't be answered; the message says what to change."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.param, self.status, self.code = param, status, code


class _Loose(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Function(_Loose):
    name: str = Field(max_length=200)
    arguments: str = "{}"


class ToolCall(_Loose):
    id: str = ""
    function: Function


class Part(_Loose):
    type: str
    text: str = ""


class Message(_Loose):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """Its words. Raises `BadAsk` for pictures and sound."""
        if not isinstance(self.content, list):
            return self.content or ""
        strange = next((part.type for part in self.content if part.type != "text"), None)
        if strange is not None:
            raise BadAsk(f"G reads text only, no {strange[:50]}.", "messages")
        return "\n".join(part.text for part in self.content)


class Offer(_Loose):
    function: Function


class ToolChoice(_Loose):
    function: Function


class StreamOptions(_Loose):
    include_usage: bool = False


class Ask(_Loose):
    """The body of POST /v1/chat/completions."""

    model: str = Field(max_length=200)
    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    tools: list[Offer] | None = Field(default=None, max_length=512)
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None

    @classmethod
    def read(cls, body: bytes) -> "Ask":
        """Raises `BadAsk`, with the first thing that is wrong."""
        try:
            return cls.model_validate_json(body)
        except ValidationError as e:
            first = e.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise BadAsk(f"{where or 'The body'}: {first['msg']}.", where.split(".")[0] or None) from e


# ── what G reads ─────────────────────────────────────────────────────────────────────────────────


def offered(ask: Ask) -> frozenset[str] | None:
    """The calls that the answer may hold: tools, and decisions unless a tool is demanded. None: all (as text)."""
    if not ask.tools or ask.tool_choice == "none":
        return None
    names = {offer.function.name for offer in ask.tools}
    known = names & catalogue().keys()
    if not known:
        raise BadAsk("G knows Helmsman's own tools only, and none of those offered is one.", "tools")
    if isinstance(ask.tool_choice, ToolChoice):
        chosen = ask.tool_choice.function.name
        if chosen not in known:
            raise BadAsk(f"The tool {chosen!r} is not among those offered that G knows.", "tool_choice")
        return frozenset({chosen})
    return frozenset(known) if ask.tool_choice == "required" else frozenset(known | PSEUDO_CALLS.keys())


def to_turns(messages: list[Message]) -> list[Turn]:
    """The conversation for G; empty when its last word is a result, to which G has nothing to add.

    What the system says is left out: G was made for one task and knows it.
    """
    turns: list[Turn] = []
    names: dict[str, str] = {}
    for message in messages:
        if message.role == "user":
            turns.append(Turn(message.text))
        elif message.role == "assistant" and turns:
            for call in message.tool_calls or ():
                names[call.id] = call.function.name
                turns[-1].calls.extend(_said(call.function))
        elif message.role == "tool" and turns:
            turns[-1].results.append(ResultRows(names.get(message.tool_call_id or "", ""), _rows(message.text)))
    if not turns:
        raise BadAsk("There is no message of a user.", "messages")
    return turns if messages[-1].role == "user" else []


def _said(function: Function) -> list[Call]:
    """An earlier call, as far as G knows it."""
    tool = catalogue().get(function.name)
    takes = {a.name for a in tool.arguments} if tool else PSEUDO_CALLS.get(function.name)
    try:
        arguments = json.loads(function.arguments or "{}")
    except ValueError:
        return []
    if takes is None or not isinstance(arguments, dict):
        return []
    return [Call(function.name, {k: v for k, v in arguments.items() if k in takes and _is_value(v)})]


def _is_value(value: Any) -> bool:
    """Of a kind that arguments have: a scalar, a list or a map of texts."""
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    if isinstance(value, dict):
        return all(isinstance(item, str) for item in value.values())
    return isinstance(value, str | int | float)


def _rows(text: str) -> list[str]:
    """The names that a result showed: its `rows`, else those of the first list of things with names in it."""
    try:
        data = json.loads(text)
    except ValueError:
        return []
    values = [data.get("rows"), *data.values()] if isinstance(data, dict) else [data]
    found = ([name for name in map(_name, each) if name] for each in values if isinstance(each, list))
    return next((names[:MOST_ROWS] for names in found if names), [])


def _name(thing: Any) -> str | None:
    name = thing.get("name", thing.get("id")) if isinstance(thing, dict) else thing
    return name if isinstance(name, str) else None


# ── what it answers ──────────────────────────────────────────────────────────────────────────────


def words(calls: list[Call]) -> str:
    """An answer as text: decisions as sentences, calls as they would be written."""
    return "\n".join(_decision(call) if call.is_decision else _written(call) for call in calls)


def _decision(call: Call) -> str:
    about = str(call.arguments.get("about", ""))
    match call.tool:
        case "ask":
            return f"What {about.replace('_', ' ') or 'exactly'} do you mean?"
        case "refuse":
            return _REFUSALS.get(about, "That is nothing that I can do; I run a GPU cluster.")
        case _:
            return _TALK


def _written(call: Call) -> str:
    inside = ", ".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in call.arguments.items())
    return f"{call.tool}({inside})"


@dataclass(frozen=True, slots=True)
class Said:
    """What G said, and what it read for that, in tokens. `answer` None: it has nothing to add."""

    answer: Answer | None = None
    read: int = 0

    def calls(self, ask: Ask) -> list[Call]:
        """Those of its calls that are tools', if the request has offered any."""
        if self.answer is None or offered(ask) is None:
            return []
        return [call for call in self.answer.calls if not call.is_decision]

    def text(self) -> str:
        return words(self.answer.calls) if self.answer is not None else ""

    def usage(self) -> dict[str, int]:
        spoken = self.answer.tokens if self.answer is not None else 0
        return {"prompt_tokens": self.read, "completion_tokens": spoken, "total_tokens": self.read + spoken}


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer on its way out: what all its chunks share."""

    id: str
    created: int
    model: str

    def whole(self, ask: Ask, said: Said) -> dict[str, Any]:
        """In one piece."""
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        if calls := self._calls(said.calls(ask)):
            message["tool_calls"] = calls
        else:
            message["content"] = said.text()
        choice = {"index": 0, "message": message, "finish_reason": _finish(calls), "logprobs": None}
        return self._frame("chat.completion", choices=[choice], usage=said.usage())

    def first(self) -> dict[str, Any]:
        """The chunk that says that there will be an answer."""
        return self._chunk({"role": "assistant", "content": ""})

    def rest(self, ask: Ask, said: Said) -> Iterator[dict[str, Any]]:
        """The chunks after the first."""
        calls = self._calls(said.calls(ask))
        if not calls and said.text():
            yield self._chunk({"content": said.text()})
        for index, call in enumerate(calls):
            yield self._chunk({"tool_calls": [{"index": index, **call}]})
        yield self._chunk({}, _finish(calls))
        if ask.stream_options and ask.stream_options.include_usage:
            yield self._frame("chat.completion.chunk", choices=[], usage=said.usage())

    def _frame(self, kind: str, **more: Any) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, **more}

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return self._frame("chat.completion.chunk", choices=[choice])

    def _calls(self, calls: list[Call]) -> list[dict[str, Any]]:
        return [
            {
                "id": f"call-{self.id[-12:]}-{index}",
                "type": "function",
                "function": {"name": call.tool, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for index, call in enumerate(calls)
        ]


def _finish(calls: list[dict[str, Any]]) -> str:
    return "tool_calls" if calls else "stop"
