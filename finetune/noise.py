"""What people's fingers and manners do to a request. Only unmarked stretches change: names and values stay as said."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from finetune.utterances import Segment

_BEFORE = {
    "en": ["please ", "pls ", "hey, ", "hi, ", "ok ", "ok, ", "okay so ", "so ", "um ", "uh, ", "right, ", "can you ", "could you please ", "quick one: ", "hello, ", "yo ", "now ", "alright, ", "sorry, ", "hmm, ", "morning! ", "also ", "and ", "then ", "well, ", "good evening. ", "helmsman, ", "hey helmsman "],
    "ko": ["저기 ", "저기요, ", "음 ", "어 ", "혹시 ", "자, ", "그럼 ", "안녕하세요. ", "안녕하세요, ", "죄송한데 ", "미안한데 ", "빨리 ", "일단 ", "아 ", "아 그리고 ", "그리고 ", "이제 ", "수고하십니다. ", "부탁인데 ", "지금 ", "좀 ", "얼른 ", "야 ", "헬름스맨, ", "저 ", "그 "],
}  # fmt: skip
_AFTER = {
    "en": [" please", " pls", " thanks", ", thanks", " thx", " ty", ", please.", " for me", " now", " asap", " when you can", "!", "!!", "...", " ok?", ", cheers", " thank you", " real quick", " k thx", " :)"],
    "ko": [" 부탁해", " 부탁드려요", " 부탁드립니다", " 감사합니다", " 고마워", " ㄱㄱ", " ㅎㅎ", " ㅠㅠ", "~", "!", "..", " 빨리", " 지금", " 좀", " 얼른요", ", 감사요", " 수고", " 플리즈", " ㅋㅋ", " 급해요"],
}  # fmt: skip
_SWAPS = {
    "ko": [("세션", "session"), ("노드", "node"), ("로그", "log"), ("폴더", "folder"), ("작업", "job"), ("서버", "server"), ("프로젝트", "project"), ("큐", "queue"), ("상태", "status"), ("쿼터", "quota"), ("이미지", "image"), ("모델", "model"), ("클러스터", "cluster"), ("목록", "list"), ("파이프라인", "pipeline"), ("엔드포인트", "endpoint"), ("볼륨", "volume"), ("우선순위", "priority"), ("컨테이너", "container"), ("지피유", "GPU"), ("메모리", "memory"), ("이벤트", "event"), ("작업", "잡"), ("세션", "작업"), ("작업", "세션"), ("서버", "노드"), ("노드", "서버"), ("노드", "장비"), ("보여줘", "보여주세요"), ("보여줘", "띄워줘"), ("해줘", "해주세요"), ("해주세요", "해줘"), ("해 주세요", "해줘"), ("알려줘", "알려주세요"), ("내려줘", "꺼줘"), ("주세요", "주십시오"), ("줘", "줄래"), ("할까요", "할까")],
    "en": [("session", "job"), ("job", "session"), ("node", "machine"), ("machine", "node"), ("server", "node"), ("folder", "volume"), ("volume", "folder"), ("show me", "list"), ("show", "display"), ("stop", "kill"), ("kill", "stop"), ("terminate", "kill"), ("start", "launch"), ("launch", "start"), ("delete", "remove"), ("remove", "delete"), ("queue", "resource group"), ("queue", "partition"), ("project", "team"), ("workload", "job"), ("logs", "log output"), ("box", "node"), ("host", "node"), ("give me", "get me"), ("what's", "what is"), ("don't", "dont"), ("isn't", "isnt"), ("can you", "could you"), ("I", "i")],
}  # fmt: skip


def noisy(segments: list[Segment], lang: str, rng: Random) -> list[Segment]:
    """The same request as another person might have typed it; each change is seldom, several may meet."""
    key = "en" if lang == "en" else "ko"
    out = segments
    if rng.random() < 0.12:
        out = [Segment(rng.choice(_BEFORE[key])), *_decapitalised(out)]
    if rng.random() < 0.12:
        out = _without_stop(out) + [Segment(rng.choice(_AFTER[key]))]
    elif rng.random() < 0.3:
        out = _without_stop(out)
    if rng.random() < 0.2:
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


def _literals(segments: list[Segment], change: object) -> list[Segment]:
    assert callable(change)
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
    swaps = rng.sample(_SWAPS[key], 6)
    out = []
    for s in segments:
        text = s.text
        if not s.mark:
            for old, new in swaps:
                if old in text:
                    text = text.replace(old, new)
                    break
        out.append(replace(s, text=text))
    return out


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
