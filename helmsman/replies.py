"""What a typed line means while a question is open, in both languages. No model is asked."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

from helmsman.plainly import holds

_YES = """
y yes yeah yep yup ok okay okey sure fine go proceed confirm confirmed approve approved agreed absolutely please lgtm
go ahead|do it|yes please|please do|sounds good|looks good|go for it|yes do it|yes go ahead|ok do it|ok go|that's right
ㅇ ㅇㅇ ㅇㅋ ㅇㅋㅇㅋ ㄱ ㄱㄱ 응 웅 어 네 넵 넹 예 옙 네네 그래 그래요 그럼 좋아 좋아요 좋습니다 오케이 오키 콜 고고
진행 진행해 진행해줘 진행해주세요 해 해줘 해주세요 실행 실행해 실행해줘 승인 승인해 승인합니다 확인 맞아 맞아요 맞습니다
부탁해 부탁해요 부탁드립니다 그렇게해 물론
그렇게 해|그렇게 해줘|응 해줘|네 해주세요|네 진행해주세요|응 진행해|그래 해|그래 해줘|네 부탁드립니다|네 맞아요
"""
_NO = """
n no nope nah cancel stop abort reject rejected deny don't dont never nevermind
never mind|not now|don't do it|do not|no thanks|no thank you|forget it|no cancel|no stop|cancel that|cancel it
ㄴ ㄴㄴ 노 노노 아니 아니오 아니요 아뇨 아냐 아니야 취소 취소해 취소해줘 취소해주세요 하지마 하지마요 하지마세요
그만 그만해 그만둬 안돼 안돼요 안해 됐어 됐어요 거절 거절해 관둬 말아 싫어 중지 중단
하지 마|하지 마세요|하지 말아줘|안 돼|안 돼요|안 해|아니 하지 마|아니 취소|아니 됐어
"""
_ORDINALS = {
    "first": 0, "second": 1, "third": 2, "fourth": 3, "fifth": 4, "sixth": 5, "seventh": 6, "eighth": 7, "ninth": 8,
    "1st": 0, "2nd": 1, "3rd": 2, "4th": 3, "5th": 4, "6th": 5, "7th": 6, "8th": 7, "9th": 8,
    "one": 0, "two": 1, "three": 2, "four": 3, "five": 4,
    "첫번째": 0, "두번째": 1, "세번째": 2, "네번째": 3, "다섯번째": 4,
    "여섯번째": 5, "일곱번째": 6, "여덟번째": 7, "아홉번째": 8,
    "첫째": 0, "둘째": 1, "셋째": 2, "넷째": 3, "last": -1, "마지막": -1,
}  # fmt: skip
_FILLER = re.compile(
    r"\b(the|a|an|one|please|number|no|option|node|session|folder|image|it's|its|that|i mean|use|take|pick)\b|"
    r"(거|것|걸|번|번째|으로|로|이요|거요|요|해줘|주세요|부탁해|을|를|은|는|이|가)$"
)
_NUMBER = re.compile(r"#?(\d{1,2})\s*(번|번째|번이요|번으로)?")


def normal(text: str) -> str:
    """Lower case, composed, without punctuation at its ends, single spaces."""
    text = unicodedata.normalize("NFC", text).lower().replace("’", "'")
    return re.sub(r"\s+", " ", re.sub(r"[,;:]", " ", text)).strip(" .!?~…\t\n")


def yes_or_no(text: str) -> Literal["yes", "no"] | None:
    """A whole line that says nothing but yes or no; None for everything else ("yes, but with 4 GPUs")."""
    line = normal(text)
    if line in _phrases(_YES):
        return "yes"
    return "no" if line in _phrases(_NO) else None


def _phrases(words: str) -> frozenset[str]:
    lines = words.strip().splitlines()
    found = (part for line in lines for part in (line.split("|") if "|" in line else line.split()))
    return frozenset(found)


def pick(text: str, choices: Sequence[str]) -> str | None:
    """The choice that a line names: by number, by ordinal, by its name, or by a name within a few other words."""
    line = normal(text)
    if not line or not choices:
        return None
    by_name = [c for c in choices if normal(c) == line]
    if by_name:
        return by_name[0]
    index = _index(line)
    if index is not None:
        return choices[index] if -len(choices) <= index < len(choices) else None
    return _within(line, choices)


def _index(line: str) -> int | None:
    for _ in range(4):
        if line.replace(" ", "") in _ORDINALS:
            return _ORDINALS[line.replace(" ", "")]
        if number := _NUMBER.fullmatch(line):
            return int(number[1]) - 1 if int(number[1]) > 0 else None
        line = _FILLER.sub("", line).strip()
    return None


def _within(line: str, choices: Sequence[str]) -> str | None:
    """A name inside a short line ("a100-02 please", "gpu-01을요"); None when it names none, or several."""
    if len(line.split()) > 6:
        return None
    found = [c for c in choices if holds(line, normal(c))]
    return found[0] if len(found) == 1 else None
