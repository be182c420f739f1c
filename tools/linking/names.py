"""Names as people say them, found among those that exist: "a100 3번" is a100-03, 민호 is minho, "resnet" resnet-sweep.

The ways are tried from the strictest to the loosest; the first that finds something decides. What is found exists.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rapidfuzz import fuzz
from text_to_num import text2num

from tools.linking.hangul import has_hangul, skeleton, sound, spelled
from tools.linking.numbers import read_number

Piece = str | int
NEAR = 5
_REMEMBERED = 50_000
"""Names whose forms are kept: those of a large cluster."""
"""Names offered when none fits."""

_ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9,
    "tenth": 10, "eleventh": 11, "twelfth": 12, "첫": 1, "첫번째": 1, "첫째": 1, "둘째": 2, "셋째": 3, "넷째": 4,
}  # fmt: skip
_NOUNS = {
    "the", "a", "an", "my", "our", "that", "this", "those", "these", "s", "of", "on", "in", "called", "named",
    "number", "no", "nr", "gpu-node", "node", "nodes", "host", "server", "machine", "box", "agent", "session",
    "sessions", "job", "jobs", "workload", "container", "pod", "run", "task", "thing", "one", "folder", "vfolder",
    "volume", "directory", "dataset", "project", "group", "team", "user", "guy", "person", "queue", "partition",
    "pool", "resource", "image", "endpoint", "service", "card", "cards", "gpus", "노드", "서버", "호스트", "머신",
    "장비", "기계", "세션", "작업", "잡", "워크로드", "컨테이너", "파드", "폴더", "볼륨", "디렉터리", "데이터셋",
    "프로젝트", "그룹", "팀", "사용자", "유저", "큐", "파티션", "풀", "자원", "이미지", "엔드포인트", "서비스", "번",
    "호", "호기", "번째", "번기", "그", "저", "이", "저기", "씨", "님", "씨가", "카드", "박스",
}  # fmt: skip
"""Words that say what kind of thing a name names, and fillers."""
_ORDINAL = re.compile(rf"\b(?:{'|'.join(o for o in _ORDINALS if o.isascii())})\b|번째|째")
_PARTICLE = re.compile(
    r"(?<=\S)(?:에서는|에서|에게|한테|께서|까지|부터|이랑|으로|라는|이라는|은|는|이|가|을|를|의|에|로|와|과|랑|도|만|꺼|거|걸|네)$"
)
_HONORIFIC = re.compile(
    r"(?<=\S)\s*(?:씨|님|쌤|선생님|교수님|교수|박사님|박사|대리님|대리|과장님|과장|팀장님|팀장|선배|형|누나)$"
)
_MODEL_PLURAL = re.compile(r"(?<=[a-z0-9])'s\b|(?<=\d)s\b")


_ONESELF = {
    "me", "my", "mine", "i", "myself", "self", "나", "내", "내거",
    "내꺼", "나의", "저", "제", "제거", "저의", "본인", "나한테", "내것",
}  # fmt: skip


@dataclass(frozen=True)
class Match:
    """`names`: what fits (several: it could be any of them; none: see `near`). `sure` is False for a guess."""

    names: tuple[str, ...] = ()
    sure: bool = True
    near: tuple[str, ...] = ()


def find(said: str, known: Sequence[str]) -> Match:
    """The names among `known` that `said` means."""
    for way, sure in _WAYS:
        for words in _dressed(said):
            if found := way(words, known):
                return Match(tuple(dict.fromkeys(found)), sure)
    return _guess(said, known)


def _guess(said: str, known: Sequence[str]) -> Match:
    """The one name that is clearly the nearest, for slips of the finger or the ear; else what is near."""
    meant = " ".join(str(p) for p in _meaning(_bare(said)))
    for words in dict.fromkeys([meant, _bare(said)]):
        scored = _scored(words, known)
        if _clear(words, scored):
            return Match((scored[0][1],), sure=False)
    return Match(near=_nearest(scored))


def is_oneself(said: str) -> bool:
    """Whether the word stands for who says it: me, 내."""
    return fold(said) in _ONESELF


def position(said: str) -> int | None:
    """The one number in it, spoken or written: 2 for "the second box", "2번"."""
    numbers = [p for p in _pieces_said(said) if isinstance(p, int)]
    return numbers[0] if len(numbers) == 1 else None


def near(said: str, known: Sequence[str]) -> tuple[str, ...]:
    """The existing names that look or sound most like `said`, best first; at most five."""
    return _nearest(_scored(said, known))


def _nearest(scored: list[tuple[float, str]]) -> tuple[str, ...]:
    return tuple(name for score, name in scored[:NEAR] if score >= 45)


def _dressed(said: str) -> list[str]:
    """As it was said, then without particles, titles and possessives."""
    text = " ".join(said.split()).strip("\"'`“”‘’ ")
    return list(dict.fromkeys([text, _bare(text)]))


def _bare(said: str) -> str:
    text = _MODEL_PLURAL.sub("", " ".join(said.split()).casefold())
    while (shorter := _HONORIFIC.sub("", _PARTICLE.sub("", text)).strip()) != text and len(shorter) >= 2:
        text = shorter
    return text


def _exact(said: str, known: Sequence[str]) -> list[str]:
    return [said] if said in known else []


def _folded(said: str, known: Sequence[str]) -> list[str]:
    """Without regard to case, accents and separators."""
    key = fold(said)
    return [n for n in known if fold(n) == key] if key else []


@lru_cache(_REMEMBERED)
def fold(text: str) -> str:
    """Case, accents and separators taken away."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    composed = unicodedata.normalize("NFC", "".join(c for c in plain if not unicodedata.combining(c)))
    return re.sub(r"[\s_.\-/@:]+", "", composed)


def _spoken(said: str, known: Sequence[str]) -> list[str]:
    """The same letters and numbers: "gpu 2", "a100 3번", "exp forty three"."""
    asked = tuple(_pieces_said(said))
    return [n for n in known if pieces(n) == asked] if asked else []


def _without_nouns(said: str, known: Sequence[str]) -> list[str]:
    """ "the second a100 box", "gpu node 2", "bert 작업"."""
    asked = _meaning(said)
    if not asked:
        return []
    return [n for n in known if _meaning_of(n) == sorted(asked, key=str)]


def _meaning(said: str) -> list[Piece]:
    return [p for p in _pieces_said(said) if p not in _NOUNS]


def _meaning_of(name: str) -> list[Piece]:
    return sorted((p for p in pieces(name) if p not in _NOUNS), key=str)


def _prefix(said: str, known: Sequence[str]) -> list[str]:
    key = fold(said)
    return [n for n in known if fold(n).startswith(key)] if len(key) >= 2 else []


def _part(said: str, known: Sequence[str]) -> list[str]:
    """Some of the name's pieces, in any order: "sweep" for resnet-sweep."""
    asked = set(_meaning(said))
    if not asked or all(isinstance(p, int) for p in asked):
        return []
    return [n for n in known if asked <= set(pieces(n))]


def _nth(said: str, known: Sequence[str]) -> list[str]:
    """ "the second a100 box" where none is numbered 2: the second of those that are called a100."""
    asked = _meaning(said)
    if not _ORDINAL.search(said.casefold()):
        return []
    for at, number in reversed(list(enumerate(asked))):
        others = set(asked[:at] + asked[at + 1 :])
        family = sorted(n for n in known if others and others <= set(pieces(n)))
        if isinstance(number, int) and 1 <= number <= len(family):
            return [family[number - 1]]
    return []


def _more(said: str, known: Sequence[str]) -> list[str]:
    """All of the name within more words: "Jonas Müller" for jonas, alice@example.com for alice."""
    asked = set(_pieces_said(said))
    fitting = [n for n in known if len(fold(n)) >= 3 and set(pieces(n)) <= asked]
    longest = max((len(pieces(n)) for n in fitting), default=0)
    return [n for n in fitting if len(pieces(n)) == longest]


def _sounding(said: str, known: Sequence[str]) -> list[str]:
    """The other script: 민호 for minho, 김민호 for minho.kim."""
    heard = _heard(said)
    whole = [n for n in known if sound(n) in heard]
    return whole or [n for n in known if heard & {sound(p) for p in pieces(n) if isinstance(p, str) and len(p) > 2}]


def _each_heard(said: str, known: Sequence[str]) -> list[str]:
    """Every word in the other script, in any order: "다혜 노트북" for notebook-dahye, 비전 for vision."""
    words = [str(p) for p in _meaning(said)]
    if not words or not all(has_hangul(w) for w in words):
        return []
    return [n for n in known if not has_hangul(n) and all(_has_sound(n, w) for w in words)]


def _has_sound(name: str, word: str) -> bool:
    bones = skeleton(word)
    parts = [name, *(p for p in pieces(name) if isinstance(p, str) and len(p) > 2)]
    return any(sound(word) == sound(p) or (len(bones) >= 3 and bones == skeleton(p)) for p in parts)


def _heard(said: str) -> set[str]:
    """How it sounds, for a Korean full name also without the family name."""
    compact = said.replace(" ", "")
    if not has_hangul(compact):
        return {sound(compact)} if len(compact) > 2 else set()
    given = {sound(compact[1:])} if re.fullmatch(r"[가-힣]{3}", compact) else set()
    bare = {sound("".join(str(p) for p in _meaning(said)))} - {""}
    return {sound(compact)} | given | bare


_WAYS: list[tuple[Callable[[str, Sequence[str]], list[str]], bool]] = [
    (_exact, True),
    (_folded, True),
    (_spoken, True),
    (_without_nouns, True),
    (_prefix, True),
    (_part, True),
    (_sounding, True),
    (_each_heard, False),
    (_nth, False),
    (_more, False),
]


def _scored(said: str, known: Sequence[str]) -> list[tuple[float, str]]:
    """Every name with how much it is alike, best first."""
    return sorted(((_alike(said, name), name) for name in dict.fromkeys(known)), key=lambda pair: -pair[0])


def _clear(said: str, scored: list[tuple[float, str]]) -> bool:
    """Whether the best stands out: alike enough, well before the next, and with the same numbers."""
    if not scored or len(fold(said)) < (1 if has_hangul(said) else 3):
        return False
    (best, name), runner_up = scored[0], scored[1][0] if len(scored) > 1 else 0.0
    margin = 15 if has_hangul(said) else 8
    return best >= 78 and best - runner_up >= margin and _numbers(said) <= _numbers(name)


def _numbers(text: str) -> set[int]:
    """The numbers in it: a slip in a number is never corrected."""
    return {int(d) for d in re.findall(r"\d+", text)}


def _alike(said: str, name: str) -> float:
    """0..100: how much alike they look or, across scripts, sound."""
    looks = fuzz.ratio(fold(said), fold(name))
    if has_hangul(said) == has_hangul(name):
        return looks
    heard, bones = sound(said), skeleton(said)
    parts = [name, *(p for p in pieces(name) if isinstance(p, str) and len(p) > 2)]
    return max(looks, *(fuzz.ratio(heard, sound(p)) + 25 * (len(bones) >= 2 and bones == skeleton(p)) for p in parts))


@lru_cache(_REMEMBERED)
def pieces(name: str) -> tuple[Piece, ...]:
    """The words and numbers of a name in their order: "a100-03" is a, 100, 3."""
    plain = unicodedata.normalize("NFC", name.casefold())
    return tuple(int(p) if p.isdigit() and p.isascii() else p for p in re.findall(r"[0-9]+|[^\W\d_]+", plain))


def _pieces_said(said: str) -> list[Piece]:
    """Pieces of what was said, number words as numbers."""
    found: list[Piece] = []
    for word in re.findall(r"[0-9]+|[^\W\d_]+", spelled(unicodedata.normalize("NFC", said.casefold()))):
        found.append(_as_number(word))
    return _joined(found)


def _as_number(word: str) -> Piece:
    if word.isdigit() and word.isascii():
        return int(word)
    if word in _ORDINALS:
        return _ORDINALS[word]
    korean = re.fullmatch(r"(.+?)(?:번째|번|호기|호|째)", word)
    number = read_number(korean[1]) if korean and has_hangul(word) else _english(word)
    if number is None and len(word) >= 2 and re.fullmatch(r"[공영일이삼사오육칠팔구십]+", word):
        number = read_number(word)
    return int(number) if number is not None and float(number).is_integer() else word


def _english(word: str) -> float | None:
    try:
        return float(text2num(word, "en")) if word.isascii() else None
    except ValueError:
        return None


def _joined(found: list[Piece]) -> list[Piece]:
    """ "forty three" is 43, "세 번째" is 3."""
    joined: list[Piece] = []
    for piece in found:
        last = joined[-1] if joined else None
        if isinstance(piece, int) and isinstance(last, int) and 20 <= last < 100 and last % 10 == 0 and 0 < piece < 10:
            joined[-1] = last + piece
        elif (
            piece in ("번째", "번", "호", "호기")
            and isinstance(last, str)
            and (number := read_number(last)) is not None
        ):
            joined[-1] = int(number)
        else:
            joined.append(piece)
    return joined
