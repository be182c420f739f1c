"""Which rows of a list a line points at: "the second", "3번", "the last two", "위에 두 개"."""

from __future__ import annotations

import re

ENGLISH = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
KOREAN = ["첫", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉", "열"]
_KOREAN_SHORT = ["첫째", "둘째", "셋째", "넷째", "다섯째", "여섯째", "일곱째", "여덟째", "아홉째", "열째"]
_COUNT = {"two": 2, "three": 3, "four": 4, "2": 2, "3": 3, "4": 4, "두": 2, "세": 3, "네": 4}
_RUN = re.compile(
    r"\b(?P<from>first|top|last|bottom) (?P<n>two|three|four|2|3|4)\b"
    r"|(?P<ko>위에?서?|앞에?서?|처음|마지막|끝에?서?|밑에?서?) ?(?P<m>두|세|네|2|3|4) ?(?:개|건|대)",
    re.IGNORECASE,
)
_LAST = re.compile(
    r"\b(?:last|bottom) (?:one|row|of)|\bthe last\b(?! \d)|마지막 ?(?:거|것|번째|놈)|맨 ?(?:끝|밑|아래)", re.IGNORECASE
)
_NUMBER = re.compile(
    r"(?:\b(?:number|nr|no|row|line)\.? ?|#)(\d{1,2})\b|(?<![\w-])(\d{1,2}) ?번(?!\w*까지)", re.IGNORECASE
)
_NTH = re.compile(r"\b(\d{1,2})(?:st|nd|rd|th)\b", re.IGNORECASE)


def pointed(line: str, count: int) -> list[int]:
    """The rows of a list of `count` that `line` points at, counted from 0; none when it points at none."""
    if match := _RUN.search(line):
        how_many = _COUNT[(match["n"] or match["m"]).lower()]
        at_end = (match["from"] or match["ko"]).lower()[:2] in ("la", "bo", "마지", "끝에", "끝", "밑에", "밑")
        return [i for i in (range(count - how_many, count) if at_end else range(how_many)) if 0 <= i < count]
    found = {int(n) for m in (*_NUMBER.finditer(line), *_NTH.finditer(line)) for n in m.groups() if n}
    for i, (english, korean, short) in enumerate(zip(ENGLISH, KOREAN, _KOREAN_SHORT, strict=True), 1):
        if re.search(rf"\b{english}\b(?! of all)|{korean} ?번째|{short}", line, re.IGNORECASE):
            found.add(i)
    if _LAST.search(line):
        found.add(count)
    return sorted(i - 1 for i in found if 0 < i <= count)
