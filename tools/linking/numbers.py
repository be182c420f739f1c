"""Numbers as people say them, in English and Korean: "half a dozen", "두 장", "백이십팔", "1/2", "20%"."""

import re

from text_to_num import text2num

_SINO = {"영": 0, "공": 0, "일": 1, "이": 2, "삼": 3, "사": 4, "오": 5, "육": 6, "륙": 6, "칠": 7, "팔": 8, "구": 9}
_SMALL = {"십": 10, "백": 100, "천": 1000}
_LARGE = {"만": 10_000, "억": 100_000_000}
_ONES = {
    "하나": 1, "한": 1, "둘": 2, "두": 2, "셋": 3, "세": 3, "석": 3, "넷": 4, "네": 4, "넉": 4, "다섯": 5, "여섯": 6,
    "일곱": 7, "여덟": 8, "여덜": 8, "아홉": 9,
}  # fmt: skip
_TENS = {
    "열": 10, "스물": 20, "스무": 20, "서른": 30, "마흔": 40, "쉰": 50, "예순": 60, "일흔": 70, "여든": 80, "아흔": 90,
}  # fmt: skip
_WHOLE = {
    "a": 1, "an": 1, "a single": 1, "single": 1, "one": 1, "a couple": 2, "a couple of": 2, "couple": 2, "a pair of": 2,
    "a pair": 2, "a few": 3, "half a dozen": 6, "a half dozen": 6, "a dozen": 12, "dozen": 12, "no": 0, "none": 0,
    "zero": 0,
    "half": 0.5, "a half": 0.5, "half a": 0.5, "half an": 0.5, "half of a": 0.5, "a quarter": 0.25, "quarter": 0.25,
    "a quarter of a": 0.25, "a quarter of an": 0.25, "a third": 0.33, "a third of a": 0.33, "three quarters": 0.75,
    "three quarters of a": 0.75, "a tenth of a": 0.1, "two dozen": 24, "반": 0.5, "반의반": 0.25, "절반": 0.5,
    "반쪽": 0.5, "없이": 0, "없음": 0, "없": 0,
}  # fmt: skip
_COUNTERS = (
    r"(?:ea|gpus?|cpus?|cores?|cards?|devices?|nodes?|machines?|boxes|hosts?|servers?|vcpus?|sessions?|jobs?|lines?|rows?"
    r"|threads?|rows?|replicas?|users?|folders?|of them|개|장|대|명|코어|줄|건|곳|노드|쪽|위|순위|벌|행|군데|번째)"
)
_TAIL = re.compile(rf"[\s-]*{_COUNTERS}(?:만|도)?$")
_HEAD = re.compile(
    r"^(?:about|around|exactly|just|only|the|top|last|final|newest|limit|first|최근|마지막|상위|지피유|gpu|cpu|씨피유)\s*(?=\S)"
)
_DIGITS = re.compile(r"[+-]?\d+(?:\.\d+)?")
_FRACTION = re.compile(r"(\d+)\s*/\s*(\d+)")


def number(value: float) -> str:
    """2.0 as "2", 0.5 as "0.5"."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def read_number(said: str) -> float | None:
    """The number that was said, counters and fillers left aside; None when it is none."""
    text = " ".join(said.casefold().replace(",", "").split())
    for candidate in (text, _TAIL.sub("", text), _HEAD.sub("", _TAIL.sub("", text))):
        found = _read(candidate)
        if found is not None:
            return found
    return None


def _read(text: str) -> float | None:
    if text in _WHOLE:
        return float(_WHOLE[text])
    if _DIGITS.fullmatch(text):
        return float(text)
    if text.endswith("%") and _DIGITS.fullmatch(text[:-1].strip()):
        return float(text[:-1]) / 100
    if (match := _FRACTION.fullmatch(text)) and int(match[2]):
        return int(match[1]) / int(match[2])
    return _with_half(text)


def _with_half(text: str) -> float | None:
    """ "one and a half", "둘 반", "일 점 오", then whole numbers."""
    for ending in (" and a half", " and half"):
        if text.endswith(ending):
            whole = _read(text.removesuffix(ending))
            return None if whole is None else whole + 0.5
    if match := re.fullmatch(r"(.+?)\s*(?:점|point)\s*(.+)", text):
        whole, part = _read(match[1]), _read(match[2].replace(" ", ""))
        return None if whole is None or part is None else float(f"{whole:g}.{part:g}")
    if match := re.fullmatch(r"(.+?)\s*분의\s*(.+)", text):
        below, above = _read(match[1]), _read(match[2])
        return round(above / below, 2) if above and below else None
    return _english(text) if text.isascii() else _korean(text)


def _english(text: str) -> float | None:
    bare = re.sub(r"^an? ", "one ", text)
    try:
        return float(text2num(bare, "en"))
    except ValueError:
        return None


def _korean(text: str) -> float | None:
    compact = text.replace(" ", "")
    native = _native(compact)
    return native if native is not None else _sino(compact)


def _native(text: str) -> float | None:
    """하나 … 아흔아홉, after hundreds too ("백스물여덟")."""
    hundreds, mark, rest = text.rpartition("백")
    if mark and rest:
        below, above = _native(rest), _sino(hundreds + mark)
        return None if below is None or above is None else above + below
    tens = next((t for t in _TENS if text.startswith(t)), "")
    ones = text.removeprefix(tens)
    if not text or (ones and ones not in _ONES):
        return None
    return float(_TENS.get(tens, 0) + _ONES.get(ones, 0))


def _sino(text: str) -> float | None:
    """일 … 구천구백구십구억, with digits allowed ("3백"), and strings of digits ("공칠")."""
    if text and all(c in _SINO for c in text):
        return float("".join(str(_SINO[c]) for c in text))
    total = 0
    rest = text
    for word, weight in sorted(_LARGE.items(), key=lambda item: -item[1]):
        head, mark, tail = rest.rpartition(word)
        if mark:
            part = _below_ten_thousand(head) if head else 1
            if part is None:
                return None
            total, rest = total + part * weight, tail
    part = _below_ten_thousand(rest) if rest else 0
    return None if part is None or not text else float(total + part)


def _below_ten_thousand(text: str) -> int | None:
    total, digit = 0, None
    for token in re.findall(r"\d+|.", text):
        if token.isdecimal():
            digit = int(token)
        elif token in _SINO:
            digit = _SINO[token]
        elif token in _SMALL:
            total, digit = total + (1 if digit is None else digit) * _SMALL[token], None
        else:
            return None
    return total + (digit or 0)
