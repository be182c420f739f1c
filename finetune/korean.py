"""Particles that fit the word before them. A wrong one is easily read, but people mostly write the right one."""

from __future__ import annotations

import re

_PAIRS = [
    ("을", "를"),
    ("은", "는"),
    ("이", "가"),
    ("과", "와"),
    ("으로", "로"),
    ("이랑", "랑"),
    ("아", "야"),
    ("이나", "나"),
    ("이란", "란"),
    ("이라는", "라는"),
    ("이요", "요"),
]
_FORMS = {form: pair for pair in _PAIRS for form in pair}
_PARTICLE = re.compile(rf"({'|'.join(sorted(_FORMS, key=len, reverse=True))})(?=$|[\s,.!?~])")
_CLOSED_DIGITS = set("013678")
_CLOSED_LETTERS = set("lmnr")


def closes(word: str) -> bool | None:
    """Whether a word ends in a consonant as it is spoken (받침); None when people would not agree."""
    last = word.rstrip(")]\"'` ")[-1:].lower()
    if "가" <= last <= "힣":
        return (ord(last) - ord("가")) % 28 != 0
    if last.isdigit():
        return last in _CLOSED_DIGITS
    if last in _CLOSED_LETTERS:
        return True
    return False if last in "aeiouy" else None


def fit(word: str, after: str) -> str:
    """`after` with its leading particle fitted to `word`: `fit("민호", "을 내려줘")` is `를 내려줘`."""
    match = _PARTICLE.match(after)
    closed = closes(word)
    if match is None or closed is None:
        return after
    with_consonant, without = _FORMS[match[1]]
    if with_consonant == "으로" and (word[-1:] in "1lL" or _ends_in_rieul(word)):
        return without + after[match.end() :]
    return (with_consonant if closed else without) + after[match.end() :]


def _ends_in_rieul(word: str) -> bool:
    last = word[-1:]
    return "가" <= last <= "힣" and (ord(last) - ord("가")) % 28 == 8
