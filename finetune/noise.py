"""What people's fingers and manners do to a request. Only unmarked stretches change: names and values stay as said."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from random import Random

from finetune.stock import stock
from finetune.utterances import Segment


def noisy(segments: list[Segment], lang: str, rng: Random) -> list[Segment]:
    """The same request as another person might have typed it; each change is seldom, several may meet."""
    key = "en" if lang == "en" else "ko"
    out = segments
    if rng.random() < 0.12:
        out = [Segment(rng.choice(stock().manners.before[key])), *_decapitalised(out)]
    if rng.random() < 0.12:
        out = [*_without_stop(out), Segment(rng.choice(stock().manners.after[key]))]
    elif rng.random() < 0.3:
        out = _without_stop(out)
    if rng.random() < 0.5:
        out = _swapped(out, key, rng)
    if rng.random() < (0.3 if key == "en" else 0.1):
        out = _literals(out, str.lower)
    elif rng.random() < 0.02:
        out = _literals(out, str.upper)
    if key == "ko" and rng.random() < 0.15:
        out = _spacing(out, rng)
    if rng.random() < 0.14:
        out = _typos(out, key, rng)
    return [s for s in out if s.text]


def _literals(segments: list[Segment], change: Callable[[str], str]) -> list[Segment]:
    return [s if s.mark else replace(s, text=change(s.text)) for s in segments]


def _decapitalised(segments: list[Segment]) -> list[Segment]:
    first = segments[0]
    if first.mark or first.text[:2] in ("I ", "I'") or first.text[:2].isupper():
        return segments
    return [replace(first, text=first.text[:1].lower() + first.text[1:]), *segments[1:]]


def _without_stop(segments: list[Segment]) -> list[Segment]:
    last = segments[-1]
    return segments if last.mark else [*segments[:-1], replace(last, text=last.text.rstrip(" .?!~"))]


def _swapped(segments: list[Segment], key: str, rng: Random) -> list[Segment]:
    """One or two words exchanged for others that mean about the same."""
    literal = " ".join(s.text for s in segments if not s.mark)
    lower = literal.lower()
    fitting = [(pattern, new) for old, pattern, new in _swaps(key) if old in lower and pattern.search(literal)]
    for pattern, new in rng.sample(fitting, min(len(fitting), rng.choice([1, 1, 2]))):
        segments = _literals(segments, lambda text, p=pattern, n=new: p.sub(n, text, count=1))  # type: ignore[misc]
    return segments


@cache
def _swaps(key: str) -> list[tuple[str, re.Pattern[str], str]]:
    """English words whole and in any case; Korean stems wherever they stand, since endings follow them."""
    edge = r"\b" if key == "en" else ""
    pairs = stock().manners.swaps[key]
    return [(old.lower(), re.compile(rf"(?i){edge}{re.escape(old)}{edge}"), new) for old, new in pairs]


def _spacing(segments: list[Segment], rng: Random) -> list[Segment]:
    keep = 0.0 if rng.random() < 0.4 else 0.6
    out = []
    for i, s in enumerate(segments):
        if s.mark or not any("가" <= c <= "힣" for c in s.text):
            out.append(s)
            continue
        inner = s.text[:-1] if i + 1 < len(segments) else s.text
        edge = s.text[len(inner) :]
        text = "".join(c for j, c in enumerate(inner) if c != " " or j == 0 or rng.random() < keep)
        out.append(replace(s, text=text + edge))
    return out


def _typos(segments: list[Segment], key: str, rng: Random) -> list[Segment]:
    places = [i for i, s in enumerate(segments) if not s.mark and len(s.text) > 5]
    if not places:
        return segments
    out = list(segments)
    for i in rng.sample(places, min(len(places), rng.choice([1, 1, 2]))):
        out[i] = replace(out[i], text=_typo(out[i].text, key, rng))
    return out


def _typo(text: str, key: str, rng: Random) -> str:
    at = rng.randrange(1, len(text) - 2)
    a, b = text[at], text[at + 1]
    if not (a.isalpha() and b.isalpha()):
        return text
    if "가" <= a <= "힣":
        return text[:at] + _slipped(a, rng) + text[at + 1 :]
    kind = rng.randrange(4)
    if kind == 0:
        return text[:at] + b + a + text[at + 2 :]
    if kind == 1:
        return text[:at] + text[at + 1 :]
    if kind == 2:
        return text[: at + 1] + text[at:]
    return text[:at] + rng.choice("abcdefghijklmnopqrstuvwxyz") + text[at + 1 :]


def _slipped(syllable: str, rng: Random) -> str:
    """One key wrong in a syllable: its final lost or another, or a neighbouring vowel."""
    lead, rest = divmod(ord(syllable) - 0xAC00, 588)
    vowel, final = divmod(rest, 28)
    if final and rng.random() < 0.5:
        final = rng.choice([0, 4, 21])
    else:
        vowel = rng.choice([v for v in (vowel - 1, vowel + 1, {1: 5, 5: 1}.get(vowel, vowel + 1)) if 0 <= v < 21])
    return chr(0xAC00 + lead * 588 + vowel * 28 + final)
