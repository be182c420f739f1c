"""What a name may be copied from: the words of the conversation, and into which pieces they may be cut."""

from __future__ import annotations

import re
from collections.abc import Sequence

from helmsman.prompts.conversation import Turn, Value
from helmsman.prompts.dialect import MAX_TURNS, shown_rows, words
from helmsman.prompts.ordinals import pointed

_CHUNK = re.compile(r"[A-Za-z0-9_](?:[-A-Za-z0-9_.]*[A-Za-z0-9_])?|(?s:.)")
_LONG_CHUNK = re.compile(r"[A-Za-z0-9_](?:[-A-Za-z0-9_./:@]*[A-Za-z0-9_])?|(?s:.)")

LONG_NAMES = {"image", "recipe", "model", "base_model"}
"""Arguments whose names are copied with their colons and slashes."""
FREE_NAMES = {"gpu_model", "query", "runtime"}
"""Names that people say in many ways ("에이치백", "주피터") and that the program links; they need not be copied."""


def said(turns: Sequence[Turn]) -> str:
    """Everything of the conversation that a name may be copied from, newest first, one stretch a line.

    Where the open line points into the last list ("the second one"), of that list only those rows.
    """
    parts: list[str] = []
    line = turns[-1].user if turns else ""
    for turn in reversed(turns[-MAX_TURNS:]):
        parts.append(turn.user)
        for rows in turn.results:
            rows_pointed_at = [rows.names[i] for i in pointed(line, len(rows.names))]
            parts += rows_pointed_at or [name for _, name in shown_rows(rows.names)]
            line = ""
        parts += [text for call in turn.calls for value in call.arguments.values() for text in _strings(value)]
    return "\n".join(words(part) for part in parts if part)


def chunks(text: str, long: bool = False) -> list[str]:
    """What a copy is made of: whole identifiers; Hangul by syllables, since particles stand right behind names.

    `long` for images and models, whose names go on past colons and slashes (`nvcr.io/nvidia/pytorch:25.01`).
    """
    return (_LONG_CHUNK if long else _CHUNK).findall(text)


def is_nameable(text: str) -> bool:
    """Whether anything in `text` could be a name: the grammar wants a visible ASCII sign, a letter or a digit."""
    return any("!" <= c <= "~" or c.isalpha() or c.isnumeric() for c in text)


def is_copyable(value: str, text: str) -> bool:
    """Whether `value` is a run of whole pieces of `text`."""
    whole, wanted = chunks(text), chunks(value)
    return any(whole[i : i + len(wanted)] == wanted for i in range(len(whole) - len(wanted) + 1))


def _strings(value: Value) -> list[str]:
    if isinstance(value, str):
        return [value]
    return list(value) if isinstance(value, list) else []
