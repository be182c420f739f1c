"""The grammar of one answer: whatever the weights say, what comes out is calls that the catalogue knows.

Written from the catalogue in llguidance's dialect of Lark. Arguments stand in the catalogue's order, the required ones
are there, none twice; numbers and strings are bounded; names are stretches of what was said or shown in this
conversation, so that they cannot be miscopied.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache

from helmsman.prompts import PSEUDO_CALLS
from helmsman.prompts.codec import Codec
from helmsman.prompts.dialect import END_CALL, ESCAPE, Piece
from helmsman.prompts.spans import FREE_NAMES, LONG_NAMES, chunks
from tools.catalogue import Argument, CatalogueTool, catalogue

REFUSALS = ("out_of_scope", "unsafe", "injection", "other_system")
MAX_CALLS = 8
MAX_ITEMS = 20

_TERMINALS = r"""
INTEGER: /0|[1-9][0-9]{0,5}/
PERCENT: /100|[1-9]?[0-9]/
NUMBER: /(0|[1-9][0-9]{0,5})(\.[0-9]{1,3})?/
SIZE: /[0-9]{1,6}(\.[0-9]{1,3})?[kmgtp]/
DURATION: /[0-9]{1,5}(\.[0-9]{1,2})?[smhdw]/
TIME: /[+a-zA-Z0-9][-a-zA-Z0-9:+. ]{0,30}/
QUANTITY: /[$₩€]?[0-9][-0-9A-Za-z.,$₩€ 가-힣]{0,24}/
SHORT: / ?[A-Za-z0-9][-A-Za-z0-9._: \/]{0,30}/
PAIR: / ?[A-Za-z_][-A-Za-z0-9_.]{0,60}=[^\x00-\x1f<]{0,120}/
"""
_TERMINAL_OF = {
    "number": "NUMBER", "size": "SIZE", "duration": "DURATION", "time": "TIME", "map": "PAIR",
}  # fmt: skip
_LENIENT = {("start_session", "image")}
"""Required by the contract, but left out by people: the tool has a default for it."""


def grammar(codec: Codec, tool: str, spoken: str) -> str:
    """What may follow `call:TOOL` up to the end of the call, as llguidance takes it.

    One tool at a time: choosing among tools needs no grammar, and this one compiles in a millisecond. `spoken` is what
    names may be copied from.
    """
    copied = _copied("SAID", chunks(spoken)) + _copied("NAME", chunks(spoken, long=True))
    return f"{_frame(codec, tool)}{_TERMINALS}{copied}"


def _copied(terminal: str, pieces: list[str]) -> str:
    """A run of whole pieces, with something visible in it."""
    source = json.dumps({"substring_chunks": pieces})
    return f"{terminal}_RUN: %regex {source}\n{terminal}: {terminal}_RUN & /(?s:.*[!-~\\p{{L}}\\p{{N}}].*)/\n"


@cache
def _frame(codec: Codec, tool: str) -> str:
    rules = _pseudo(codec, tool) if tool in PSEUDO_CALLS else _tool(codec, catalogue()[tool])
    return "\n".join(rules)


def _token(codec: Codec, text: str) -> str:
    return f"<[{codec.id_of(text)}]>"


def _pseudo(codec: Codec, name: str) -> Iterator[str]:
    about = _token(codec, "about:")
    inside = {"talk": "", "refuse": f"{about} {_choice(REFUSALS)}", "ask": f"{_token(codec, 'for:')} asked"}[name]
    yield f'start: "{{" {inside} "}}" {END_CALL}'
    if name == "ask":
        tools = [tool for tool in catalogue().values() if tool.arguments]
        yield f"asked: {' | '.join(f'k_{tool.name}' for tool in tools)}"
        for tool in tools:
            yield f'k_{tool.name}: {_token(codec, tool.name)} "," {about} {_choice([a.name for a in tool.arguments])}'


def _literal(codec: Codec, word: str) -> str:
    """A tool's name as a value: one control token where its letters make no other (`undo`), else its letters."""
    return _token(codec, word) if len(codec.encode([Piece(word, False)])) == 1 else json.dumps(word)


def _choice(choices: Sequence[str]) -> str:
    return f"{ESCAPE} ({' | '.join(json.dumps(c) for c in choices)}) {ESCAPE}"


def _tool(codec: Codec, tool: CatalogueTool) -> Iterator[str]:
    """For each argument i, the rules `f{i}` (i may be the first one said) and `r{i}` (others were said before)."""
    count = len(tool.arguments)
    yield f'start: "{{" f0 "}}" {END_CALL}'
    for i, argument in enumerate(tool.arguments):
        must = argument.required and (tool.name, argument.name) not in _LENIENT
        now = f"{_token(codec, f'{argument.name}:')} {_value(codec, tool, argument)}"
        yield f"f{i}: {now} r{i + 1}{'' if must else f' | f{i + 1}'}"
        yield f'r{i}: ("," {now}){"" if must else "?"} r{i + 1}'
    yield f'f{count}: ""'
    yield f'r{count}: ""\n'


def _value(codec: Codec, tool: CatalogueTool, argument: Argument) -> str:
    kind = argument.kind
    if kind == "bool":
        return '("true" | "false")'
    if kind == "integer":
        return "PERCENT" if argument.maximum == 100 else "INTEGER"
    if kind == "number":
        return "NUMBER"
    if kind == "enum":
        return _choice(argument.choices)
    if kind == "quantity":
        return f"{ESCAPE} (SAID | QUANTITY) {ESCAPE}"
    item = f"{ESCAPE} {_TERMINAL_OF[kind]} {ESCAPE}" if kind in _TERMINAL_OF else _name(codec, tool, argument)
    return f'"[" {item} ("," {item}){{0,{MAX_ITEMS - 1}}} "]"' if kind in ("list", "map") else item


def _name(codec: Codec, tool: CatalogueTool, argument: Argument) -> str:
    if argument.name == "user":
        return f'{ESCAPE} (SAID | "me") {ESCAPE}'
    if argument.name in FREE_NAMES:
        return f"{ESCAPE} (SAID | SHORT) {ESCAPE}"
    if (tool.name, argument.name) == ("get_audit_log", "action"):
        return f"{ESCAPE} (SAID | {' | '.join(_literal(codec, name) for name in catalogue())}) {ESCAPE}"
    return f"{ESCAPE} {'NAME' if argument.name in LONG_NAMES else 'SAID'} {ESCAPE}"
