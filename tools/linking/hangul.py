"""Hangul and Latin spellings of one name: 민호 and minho, 지우 and jiwoo, 레즈넷 and resnet.

Both are brought to the same rough sounds. The tables are the Revised Romanization, which no library on PyPI offers
under a licence that suits (`korean_romanizer` is GPL).
"""

import re
from functools import lru_cache

_INITIALS = "g kk n d tt r m b pp s ss _ j jj ch k t p h".replace("_", "").split(" ")
_VOWELS = [
    "a",
    "ae",
    "ya",
    "yae",
    "eo",
    "e",
    "yeo",
    "ye",
    "o",
    "wa",
    "wae",
    "oe",
    "yo",
    "u",
    "wo",
    "we",
    "wi",
    "yu",
    "eu",
    "ui",
    "i",
]
_FINALS = [
    "",
    "g",
    "k",
    "gs",
    "n",
    "nj",
    "n",
    "t",
    "r",
    "rg",
    "m",
    "rb",
    "rs",
    "rt",
    "rp",
    "r",
    "m",
    "b",
    "bs",
    "t",
    "t",
    "ng",
    "t",
    "t",
    "k",
    "t",
    "p",
    "t",
]
_LETTERS = {
    "에이치": "h", "지피유": "gpu", "씨피유": "cpu", "시피유": "cpu", "디지엑스": "dgx", "에이": "a", "엘": "l",
    "브이": "v",
}  # fmt: skip
_LATIN = [
    ("woo", "u"), ("c(?=[eiy])", "s"), ("oo", "u"), ("ee", "i"), ("ou", "u"), ("eo", "u"), ("eu", ""), ("ae", "e"),
    ("ph", "p"), ("sh", "s"),
    ("ch", "j"), ("ck", "k"), ("x", "ks"), ("qu", "ku"), ("wh", "w"), ("w(?=[aeiou])", "w"),
]  # fmt: skip
_CLASSES = str.maketrans("kqctpfvlz", "gggdbbbrj")
_VOWEL = re.compile(r"[aeiouyw]")


@lru_cache(50_000)
def has_hangul(text: str) -> bool:
    return any("가" <= c <= "힣" for c in text)


def romanize(text: str) -> str:
    """Syllable by syllable; what is not Hangul stays."""
    return "".join(_syllable(c) if "가" <= c <= "힣" else c for c in spelled(text))


def spelled(text: str) -> str:
    """Latin letters that were written as they are called: 지피유 is gpu."""
    for spoken, letters in _LETTERS.items():
        text = text.replace(spoken, letters)
    return text


def _syllable(char: str) -> str:
    index = ord(char) - ord("가")
    return _INITIALS[index // 588] + _VOWELS[index % 588 // 28] + _FINALS[index % 28]


@lru_cache(50_000)
def sound(text: str) -> str:
    """How it sounds, roughly: equal for the usual spellings of one name."""
    rough = re.sub(r"[^a-z0-9]", "", romanize(text).casefold())
    for letters, heard in _LATIN:
        rough = re.sub(letters, heard, rough)
    return re.sub(r"([a-z])\1+", r"\1", rough.translate(_CLASSES))


@lru_cache(50_000)
def skeleton(text: str) -> str:
    """Its consonants alone, for loan words: 레즈넷 and resnet are both "rsnd". Digits stay."""
    rough = sound(text).translate(str.maketrans("j", "s"))
    rough = re.sub(r"(?<=[aeiou])r(?=[^aeiouyw]|$)", "", rough)
    first = re.sub(r"^[aeiouyw]+", "a", rough)
    bare = first[:1] + _VOWEL.sub("", first[1:])
    return bare.replace("h", "") or bare
