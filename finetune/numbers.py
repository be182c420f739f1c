"""Draws numbers anew, together with the words that say them: `[두 장](gpu=2)` may become `[여섯 장](gpu=6)`."""

from __future__ import annotations

import re
from random import Random

from finetune.utterances import Segment

_ENGLISH = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten":
    10, "eleven": 11, "twelve": 12, "fifteen": 15, "sixteen": 16, "eighteen": 18, "twenty": 20, "twenty-four":
    24, "thirty": 30, "thirty-two": 32, "forty": 40, "fifty": 50, "sixty": 60, "eighty": 80, "ninety": 90,
    "hundred": 100,
}  # fmt: skip
_NATIVE = {
    "한": 1, "두": 2, "세": 3, "네": 4, "다섯": 5, "여섯": 6, "일곱": 7, "여덟": 8, "아홉": 9, "열":
    10, "열한": 11, "열두": 12, "열여섯": 16, "스무": 20, "스물네": 24, "서른": 30, "서른두": 32, "마흔":
    40, "쉰": 50, "예순": 60, "여든": 80,
}  # fmt: skip
_SINO = {
    "일": 1, "이": 2, "삼": 3, "사": 4, "오": 5, "육": 6, "칠": 7, "팔": 8, "구": 9, "십": 10,
    "십이": 12, "십오": 15, "십육": 16, "이십": 20, "이십사": 24, "삼십": 30, "삼십이": 32, "사십": 40,
    "오십": 50, "육십": 60, "육십사": 64, "팔십": 80, "구십": 90, "백": 100, "이백": 200, "삼백": 300,
    "오백": 500,
}  # fmt: skip
_SCALES = (_ENGLISH, _NATIVE, _SINO)
_PLAUSIBLE = {
    "gpu": [1, 1, 2, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9, 10, 12, 16, 24, 32, 48, 64, 128],
    "cpu": [1, 2, 2, 3, 4, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 200, 256, 512],
    "memory": [1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 48, 64, 80, 96, 100, 128, 192, 200, 256, 384, 400, 512, 768, 900],
    "limit": [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 100, 200],
    "tail": [1, 2, 3, 5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 100, 120, 150, 200, 250, 300, 400, 500, 1000, 2000],
    "priority": [*range(0, 101, 5), 1, 2, 3, 7, 11, 13, 22, 33, 42, 58, 64, 72, 77, 88, 99],
    "replicas": [1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16, 20, 24, 30],
    "node_count": [2, 2, 3, 4, 4, 5, 6, 8, 10, 12, 16, 32],
    "time": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 15, 18, 20, 24, 30, 36, 40, 45, 48, 60, 72, 90],
}
_SAME = {
    "gpu_per_node": "gpu", "cpu_per_node": "cpu", "memory_per_node": "memory", "quota": "memory", "storage": "memory",
    "min_replicas": "replicas", "max_replicas": "replicas", "time_limit": "time", "grace": "time", "period": "time",
    "since": "time", "deadline": "time", "requests_per_second": "tail", "sessions": "limit",
}  # fmt: skip
_VALUE = re.compile(r"(\d+)([a-zA-Z]*)")
_DIGITS = re.compile(r"\d+")


def redraw(segment: Segment, rng: Random) -> tuple[str, str] | None:
    """A new (surface, value) of a marked number, or None where the words and the value do not simply agree."""
    mark = segment.mark
    if mark is None:
        return None
    pool = _PLAUSIBLE.get(_SAME.get(mark.argument, mark.argument))
    value = _VALUE.fullmatch(mark.value if mark.value is not None else segment.text)
    if pool is None or value is None:
        return None
    fresh = rng.choice(pool)
    if mark.argument == "sessions" and mark.value is None:
        return None
    surface = _in_digits(segment.text, int(value[1]), fresh) or _in_words(segment.text, int(value[1]), fresh, rng)
    return None if surface is None else (surface, f"{fresh}{value[2]}")


def _in_digits(surface: str, old: int, new: int) -> str | None:
    found = _DIGITS.findall(surface)
    if len(found) != 1 or int(found[0]) != old or re.search(r"\d[.:]|[.:]\d", surface):
        return None
    if new == 1 and re.search(r"\d ?[a-z]+s\b", surface):
        return None
    return _DIGITS.sub(str(new), surface)


def _in_words(surface: str, old: int, new: int, rng: Random) -> str | None:
    for scale in _SCALES:
        for word, number in scale.items():
            if number != old or not _stands_alone(word, surface):
                continue
            if (said := _said(scale, new, surface, rng)) is not None:
                return _replace_once(surface, word, said)
    return None


def _stands_alone(word: str, surface: str) -> bool:
    if "a" <= word[0] <= "z":
        return re.search(rf"(?i)(?<![\w-]){word}(?![\w-])", surface) is not None
    return surface.startswith(word) and (surface == word or surface[len(word)] in " 개장대줄코명건시분일기테노번벌퍼주")


def _said(scale: dict[str, int], number: int, surface: str, rng: Random) -> str | None:
    if rng.random() < 0.15 and number > 1 and scale is not _ENGLISH:
        return str(number)
    if scale is _ENGLISH and number == 1 and surface.rstrip().endswith("s"):
        return None
    return next((word for word, n in scale.items() if n == number), None)


def _replace_once(surface: str, word: str, said: str) -> str:
    return re.sub(rf"(?i){word}", said, surface, count=1)
