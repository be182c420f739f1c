"""Sizes and durations: canonical strings (`"64g"`, `"90m"`), numbers inside (bytes, seconds), words for people.

The canonical form is the contract's: memory and storage in binary units (k, m, g, t, p), durations in s, m, h, d.
"""

import re
from collections.abc import Sequence

from cluster.errors import Invalid
from cluster.sentence import S

_SIZES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])", re.IGNORECASE)


def listed(names: Sequence[str], most: int) -> str:
    """The first `most`, and a mark when there are more."""
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")


def parse_size(text: str) -> int:
    """Bytes of `"64g"`, `"1.2t"`, `"512 MiB"`, `"1024"`; raises `Invalid`."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise Invalid(S("{text} is not a size; write it like 64g, 512m or 1.5t.", text=text))
    return round(float(found[1]) * _SIZES[found[2].lower()])


def format_size(size: int) -> str:
    """Canonical: the largest unit that divides it, or three significant decimals (`"1.2t"`)."""
    for unit in ("p", "t", "g", "m", "k"):
        amount = size / _SIZES[unit]
        if amount >= 1 and (amount.is_integer() or parse_size(f"{amount:.3f}{unit}") == size):
            return f"{amount:.3f}".rstrip("0").rstrip(".") + unit
    return str(size)


def human_size(size: float) -> str:
    """`"64 GiB"`, `"1.2 TiB"`, `"0 B"`."""
    for unit, name in (("p", "PiB"), ("t", "TiB"), ("g", "GiB"), ("m", "MiB"), ("k", "KiB")):
        if size >= _SIZES[unit]:
            return f"{size / _SIZES[unit]:.1f}".removesuffix(".0") + f" {name}"
    return f"{size:.0f} B"


def parse_duration(text: str) -> float:
    """Seconds of `"90m"`, `"1d12h"`, `"45s"`, `"1.5h"`; a bare number is seconds; raises `Invalid`."""
    compact = text.strip().replace(" ", "")
    if re.fullmatch(r"\d+(?:\.\d+)?", compact):
        return float(compact)
    if not compact or _SPAN.sub("", compact):
        raise Invalid(S("{text} is not a duration; write it like 90m, 12h or 3d.", text=text))
    return sum(float(n) * _SPANS[unit.lower()] for n, unit in _SPAN.findall(compact))


def format_duration(seconds: float) -> str:
    """Canonical: one unit where it comes out even (`"90m"`, `"12h"`, `"3d"`), else compound (`"1h30m5s"`)."""
    whole = round(seconds)
    for unit in ("d", "h", "m"):
        if whole and whole % _SPANS[unit] == 0:
            return f"{whole // _SPANS[unit]}{unit}"
    parts = _split(whole, ("d", "h", "m", "s"))
    return "".join(f"{n}{unit}" for n, unit in parts) or "0s"


def human_duration(seconds: float) -> str:
    """The two largest units: `"3 h 5 min"`, `"2 d"`, `"40 s"`."""
    names = {"d": "d", "h": "h", "m": "min", "s": "s"}
    parts = _split(round(max(seconds, 0)), ("d", "h", "m", "s"))[:2]
    return " ".join(f"{n} {names[unit]}" for n, unit in parts) or "0 s"


def _split(seconds: int, units: tuple[str, ...]) -> list[tuple[int, str]]:
    parts = []
    for unit in units:
        n, seconds = divmod(seconds, _SPANS[unit])
        if n:
            parts.append((n, unit))
    return parts
