"""Counts, money and power as people say them, as canonical strings: "70b", "2000000 USD", "60kW".

"70B parameters", "칠십억 개", "half a trillion"; "$200k", "2억 원", "80,000 euros"; "forty kilowatts", "1MW".
"""

import re
from typing import Literal

from tools.linking.numbers import read_number

Measure = Literal["count", "money", "power"]

_SCALE = {
    1e3: r"k|thousand",
    1e6: r"m|mn|mm|million",
    1e9: r"b|bn|billion",
    1e12: r"t|tn|tr|trillion",
}
_LETTERS = ((1e12, "t"), (1e9, "b"), (1e6, "m"), (1e3, "k"))
_KOREAN = (("조", 1e12), ("억", 1e8), ("만", 1e4))
_NOUNS = re.compile(
    r"\s*(?:params?|parameters?|weights?|tokens?|tok|토큰|파라미터|매개\s*변수|개|짜리|규모|정도|쯤|이하|이내|안쪽)$"
)
_ABOUT = re.compile(r"^(?:about|around|roughly|up to|at most|under|max|약|최대|대략)\s+")
_CURRENCIES = {
    "USD": r"us\$|\$|usd|us dollars?|dollars?|bucks|미국\s*달러|달러|불",
    "KRW": r"₩|krw|korean won|won|원",
    "EUR": r"€|eur|euros?|유로",
}
_POWER = {
    1e-3: r"w|watts?|와트",
    1.0: r"kw|kilowatts?|킬로\s*와트|키로\s*와트|킬로|키로",
    1e3: r"mw|megawatts?|메가\s*와트|메가",
}
IN_DOLLARS = {"USD": 1.0, "KRW": 1 / 1400, "EUR": 1.1}
"""Rough rates of 2025; prices of accelerators move more than they do."""


def read_quantity(said: str, measure: Measure) -> str | None:
    """The canonical string of what was said; None when it is no such amount, or none above zero."""
    readers = {"count": _read_count, "money": _read_money, "power": _read_power}
    return readers[measure](_plain(said))


def count_of(canonical: str) -> float:
    """The number that a canonical count says. Raises `ValueError`."""
    return float(canonical[:-1]) * next(scale for scale, letter in _LETTERS if canonical.endswith(letter))


def dollars_of(canonical: str) -> float:
    """A canonical amount of money in USD. Raises `ValueError`."""
    amount, _, currency = canonical.partition(" ")
    return float(amount) * IN_DOLLARS[currency]


def watts_of(canonical: str) -> float:
    """W of a canonical power. Raises `ValueError`."""
    return float(canonical.removesuffix("kW")) * 1000


def _plain(said: str) -> str:
    text = " ".join(said.casefold().replace(",", "").split())
    while (shorter := _ABOUT.sub("", _NOUNS.sub("", text))) != text:
        text = shorter
    return text


def _read_count(text: str) -> str | None:
    value = _scaled(text)
    if value is None or not 1e3 <= value < 1e16:
        return None
    scale, letter = next((s, letter) for s, letter in _LETTERS if value >= s)
    return f"{value / scale:.12g}{letter}"


def _read_money(text: str) -> str | None:
    currency, rest = "USD", text
    for code, words in _CURRENCIES.items():
        found = re.sub(rf"^(?:{words})\s*|\s*(?<![a-z])(?:{words})$", "", text)
        found = found if found != text else re.sub(rf"(?<=\d[kmb])\s*(?:{words})$", "", text)
        if found != text:
            currency, rest = code, found
            break
    else:
        currency = "KRW" if any(word in text for word, _ in _KOREAN) else "USD"
    value = _scaled(rest)
    return f"{value:.0f} {currency}" if value is not None and 1 <= value < 1e16 else None


def _read_power(text: str) -> str | None:
    for kilowatts, words in _POWER.items():
        match = re.fullmatch(rf"(.+?)[\s-]*(?:{words})", text)
        value = _scaled(match[1]) if match else None
        if value is not None and 0 < value * kilowatts < 1e8:
            return f"{value * kilowatts:.9g}kW"
    return None


def _scaled(text: str) -> float | None:
    """ "8.03b", "half a trillion", "750 thousand", "1억 2천만", "칠십억", "900000"."""
    if any(word in text for word, _ in _KOREAN):
        return _korean(text)
    for scale, words in _SCALE.items():
        match = re.fullmatch(rf"(.*?)[\s-]*(?<![a-z])(?:{words})s?", text)
        head = _head(match[1]) if match else None
        if head is not None:
            return head * scale
    return _head(text) if text else None


def _head(text: str) -> float | None:
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        return float(text)
    return read_number(text.strip() or "a")


def _korean(text: str) -> float | None:
    total, rest = 0.0, text
    for word, weight in _KOREAN:
        head, mark, tail = rest.partition(word)
        if not mark:
            continue
        count = _head(head) if head.strip() else 1.0
        if count is None:
            return None
        total, rest = total + count * weight, tail.strip()
    last = _head(rest) if rest else 0.0
    return None if last is None else total + last
