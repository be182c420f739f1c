"""How a typed line answers a question. Pure; nothing here decides anything."""

import re
from dataclasses import dataclass
from typing import Literal

from helmsman.events import Asked, PlanShown
from helmsman.render import word_to_type
from helmsman.replies import normal, pick, yes_or_no

HANGUL_KEYS = {"ㅛ": "y", "ㅜ": "n", "ㄷ": "e"}
"""What the keys y, n and e give while the keyboard is switched to Hangul."""
EDIT = {"e", "edit", "편집", "수정", "편집할래", "고칠래"}


@dataclass(frozen=True)
class Answer:
    """`say`: the line is no bare yes, no or edit; the conversation has to understand it."""

    kind: Literal["yes", "no", "edit", "word_wanted", "say"]
    comment: str | None = None
    word: str | None = None
    """For `word_wanted`: what must be typed instead of a plain yes."""


def read_answer(line: str, question: PlanShown) -> Answer:
    """What `line` says to a plan card. A card with a word takes that word, and no plain yes."""
    text = HANGUL_KEYS.get(line.strip(), line.strip())
    word = word_to_type([call.plan for call in question.calls])
    if word and normal(text) == normal(word):
        return Answer("yes")
    if text.lower() in EDIT:
        return Answer("edit")
    match yes_or_no(text):
        case "yes":
            return Answer("word_wanted", word=word) if word else Answer("yes")
        case "no":
            return Answer("no")
    comment = _comment(text)
    return Answer("no", comment) if comment else Answer("say")


def _comment(text: str) -> str | None:
    """The reason after "n …" or "no, …"; another sentence that merely begins with no is left to the conversation."""
    match = re.match(r"(?:n\s+|ㅜ\s+|(?:n|no)\s*[,:;]\s*)(.+)", text, re.IGNORECASE | re.DOTALL)
    return match[1].strip() if match else None


def read_choice(line: str, question: Asked) -> str:
    """The choice that a number or an ordinal picks, else the line itself."""
    return pick(line, question.choices) or line
