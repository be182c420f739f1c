"""The text form of conversations and calls: FunctionGemma's dialect.

    <bos><start_of_turn>user
    stop s-7f3a<end_of_turn>
    <start_of_turn>model
    <start_function_call>call:terminate_sessions{sessions:[<escape>s-7f3a<escape>]}<end_function_call><end_of_turn>

Text that people or programs wrote is kept apart from control text as `Piece`s, so that a person who types
`<end_of_turn>` cannot end a turn: the tokenizer reads control tokens in control pieces only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from helmsman.prompts.conversation import PSEUDO_CALLS, Call, ResultRows, Turn, Value
from tools.catalogue import Argument, catalogue

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"
START_TURN, END_TURN = "<start_of_turn>", "<end_of_turn>"
START_CALL, END_CALL = "<start_function_call>", "<end_function_call>"
START_RESULT, END_RESULT = "<start_function_response>", "<end_function_response>"
ESCAPE = "<escape>"

_CONTROL = re.compile(r"<(?:bos|eos|pad|escape|(?:start|end)_(?:of_turn|function_(?:call|response)))>")

MAX_TURNS = 4
"""Turns that the model sees, the open one included."""
MAX_ROWS = 10
"""Names of one result that the model sees; of longer lists the first nine and the last."""
MAX_USER_CHARACTERS = 2_000
"""A longer line is cut in its middle: what is wanted stands at its beginning or at its end."""


class Piece(NamedTuple):
    """A stretch of model text. `control` pieces are ours, the others are somebody's words."""

    text: str
    control: bool


def prompt(turns: Sequence[Turn]) -> list[Piece]:
    """The model text up to where its answer to the last turn begins."""
    pieces = [Piece(BOS, True)]
    for turn in turns[-MAX_TURNS:-1]:
        pieces += [*_user(turn.user), *answer(turn.calls), Piece("\n", True), *_results(turn.results)]
    return [*pieces, *_user(turns[-1].user)]


def answer(calls: Iterable[Call]) -> list[Piece]:
    """The model text of an answer, its end of turn included."""
    pieces: list[Piece] = []
    for call in calls:
        pieces += [Piece(f"{START_CALL}call:{call.tool}{{", True), *_arguments(call), Piece(f"}}{END_CALL}", True)]
    return [*pieces, Piece(END_TURN, True)]


def words(line: str) -> str:
    """A person's line as the model sees it: control tokens taken out, its middle cut when it is very long."""
    line = _CONTROL.sub(" ", line)
    if len(line) <= MAX_USER_CHARACTERS:
        return line
    half = MAX_USER_CHARACTERS // 2
    return f"{line[:half]} … {line[-half:]}"


def text(pieces: Iterable[Piece]) -> str:
    """All pieces as one string, for logs, tests and models with a tokenizer of their own."""
    return "".join(piece.text for piece in pieces)


def _user(line: str) -> list[Piece]:
    return [
        Piece(f"{START_TURN}user\n", True),
        Piece(words(line), False),
        Piece(f"{END_TURN}\n{START_TURN}model\n", True),
    ]


def _results(results: Iterable[ResultRows]) -> Iterator[Piece]:
    for rows in results:
        if not rows.names:
            continue
        yield Piece(START_RESULT, True)
        for number, name in shown_rows(rows.names):
            yield Piece(f"{number}:{ESCAPE}", True)
            yield Piece(_CONTROL.sub(" ", name), False)
            yield Piece(ESCAPE, True)
        yield Piece(f"{END_RESULT}\n", True)


def shown_rows(names: Sequence[str]) -> list[tuple[int, str]]:
    """The rows that the model sees, with their numbers counted from 1."""
    rows = list(enumerate(names, 1))
    return rows if len(rows) <= MAX_ROWS else [*rows[: MAX_ROWS - 1], rows[-1]]


def ordered(call: Call) -> list[tuple[str, Value]]:
    """A call's arguments in the order in which the model says them: the catalogue's."""
    order = _order(call.tool)
    return sorted(call.arguments.items(), key=lambda item: order.index(item[0]))


def _order(tool: str) -> list[str]:
    return list(PSEUDO_CALLS[tool]) if tool in PSEUDO_CALLS else [a.name for a in catalogue()[tool].arguments]


def _arguments(call: Call) -> Iterator[Piece]:
    for i, (key, value) in enumerate(ordered(call)):
        yield Piece(f"{',' if i else ''}{key}:", True)
        if key == "for":
            yield Piece(str(value), True)
        else:
            yield from _value(value)


def _value(value: Value) -> Iterator[Piece]:
    if isinstance(value, bool):
        yield Piece("true" if value else "false", True)
    elif isinstance(value, int | float):
        yield Piece(f"{value:g}" if isinstance(value, float) else str(value), True)
    elif isinstance(value, str):
        yield from _string(value)
    else:
        items = [f"{k}={v}" for k, v in value.items()] if isinstance(value, dict) else value
        yield Piece("[", True)
        for i, item in enumerate(items):
            if i:
                yield Piece(",", True)
            yield from _string(item)
        yield Piece("]", True)


def _string(value: str) -> Iterator[Piece]:
    yield Piece(ESCAPE, True)
    yield Piece(_CONTROL.sub(" ", value), False)
    yield Piece(ESCAPE, True)


class DialectError(ValueError):
    """The model text is no list of calls that the catalogue knows."""


_STRING = rf"{ESCAPE}(?:(?!{ESCAPE}).)*{ESCAPE}"
_CALL = re.compile(rf"{START_CALL}call:(\w+)\{{((?:{_STRING}|[^{{}}<])*)\}}{END_CALL}", re.DOTALL)
_ARGUMENT = re.compile(rf"(\w+):(\[(?:{_STRING}|,)*\]|{_STRING}|[\w.+-]+)(?:,|$)", re.DOTALL)
_ITEM = re.compile(rf"{ESCAPE}(.*?){ESCAPE}", re.DOTALL)


def parse(model_text: str) -> list[Call]:
    """The calls in an answer. Raises `DialectError` on anything the catalogue does not know or that is left over."""
    body = model_text.removesuffix(END_TURN)
    calls = [_call(match[1], match[2]) for match in _CALL.finditer(body)]
    if not calls or _CALL.sub("", body).strip():
        raise DialectError(f"no calls, or more than calls, in the model's answer: {body!r}")
    return calls


def _call(tool: str, inside: str) -> Call:
    if tool not in PSEUDO_CALLS and tool not in catalogue():
        raise DialectError(f"the catalogue has no tool {tool}")
    arguments = {m[1]: _typed(tool, m[1], m[2]) for m in _ARGUMENT.finditer(inside)}
    if _ARGUMENT.sub("", inside):
        raise DialectError(f"the arguments of {tool} do not parse: {inside!r}")
    return Call(tool, arguments)


def _typed(tool: str, key: str, raw: str) -> Value:
    if tool in PSEUDO_CALLS:
        if key not in PSEUDO_CALLS[tool]:
            raise DialectError(f"{tool} has no argument {key}")
        return raw.replace(ESCAPE, "").strip()
    argument = catalogue()[tool].argument(key)
    if argument is None:
        raise DialectError(f"{tool} has no argument {key}")
    return _of_kind(argument, raw)


def _of_kind(argument: Argument, raw: str) -> Value:
    items = [item.strip() for item in _ITEM.findall(raw)]
    if argument.kind == "map":
        return dict(_pair(item) for item in items)
    if argument.kind == "list":
        return list(dict.fromkeys(items))
    if argument.kind == "bool":
        return raw == "true"
    if argument.kind == "integer":
        return int(raw)
    if argument.kind == "number":
        return float(raw) if "." in raw else int(raw)
    return raw.replace(ESCAPE, "").strip()


def _pair(item: str) -> tuple[str, str]:
    key, _, value = item.partition("=")
    return key.strip(), value.strip()
