"""Fresh names of many shapes, so that the model learns to copy names instead of remembering them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from random import Random

from finetune.stock import NameStock, stock
from finetune.utterances import Dialogue
from tools.catalogue import catalogue

CATEGORY = {
    "session": "session", "sessions": "session", "depends_on": "session", "target": "session",
    "node": "node", "user": "user", "project": "group", "resource_group": "group",
    "folder": "folder", "mounts": "folder", "image": "image", "model": "model", "base_model": "model",
    "recipe": "model", "endpoint": "service", "pipeline": "service", "run": "run", "finetune": "session",
    "query": "query", "path": "path", "command": "command", "registry": "registry", "email": "email",
    "action": "audit",
}  # fmt: skip
"""Which sort of name an argument takes; arguments that are missing here keep their words."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_BY_TOOL = {
    "create_folder": "folder", "clone_folder": "folder", "create_project": "group", "create_user": "user",
    "deploy_model": "service", "start_session": "session", "start_finetune": "session",
}  # fmt: skip


class Names:
    """Draws names; its word stock is the parts of the names in the authored requests that are trained on."""

    def __init__(self, dialogues: Iterable[Dialogue]) -> None:
        self.pools: dict[str, list[str]] = defaultdict(list)
        latin: set[str] = set()
        korean: set[str] = set()
        for category, name in _authored(dialogues):
            self.pools[category].append(name)
            if category not in ("command", "email", "query"):
                latin |= set(re.findall(r"[A-Za-z]{2,}", name))
                korean |= set(re.findall(r"[가-힣]{2,}", name))
        self.latin = sorted(latin)
        self.korean = sorted(korean)

    def draw(self, category: str, rng: Random) -> str:
        """A name of that category: three in ten as somebody wrote it, the others made up."""
        pool = self.pools[category]
        if pool and rng.random() < (0.5 if category in ("query", "command", "user") else 0.3):
            return rng.choice(pool)
        return self._shaped(category, rng)

    def _shaped(self, category: str, rng: Random) -> str:
        shape = rng.choice(stock().shapes[category])
        if shape.startswith("@"):
            return self._shaped(shape[1:], rng)
        return _PLACEHOLDER.sub(lambda m: self._fill(m[1], rng), shape)

    def _fill(self, key: str, rng: Random) -> str:
        if key in ("w", "l", "C", "u"):
            word = self._word(rng)
            return {"w": word, "l": word.lower(), "C": word.capitalize(), "u": word.upper()}[key]
        if key in ("p", "P", "f"):
            word = made_up(rng)
            return {"p": word, "P": word.capitalize(), "f": word[0]}[key]
        if key == "k":
            return self._hangul(rng)
        return self._shaped("registry", rng) if key == "r" else _detail(key, rng, stock().names)

    def _word(self, rng: Random) -> str:
        roll = rng.random()
        if roll < 0.7:
            word = rng.choice(self.latin)
            return word.lower() if rng.random() < 0.9 else word
        if roll < 0.9:
            return made_up(rng)
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 5)))

    def _hangul(self, rng: Random) -> str:
        if rng.random() < 0.5:
            return rng.choice(self.korean)
        return "".join(rng.choices(stock().names.syllables, k=rng.randint(2, 4)))


def _detail(key: str, rng: Random, parts: NameStock) -> str:
    """A placeholder that is no word: numbers, letters, versions; `datasets/stock.yaml` lists them."""
    size = rng.choice(parts.sizes)
    version = f"{rng.randint(0, 25)}.{rng.randint(0, 12)}"
    return {
        "n": str(rng.randint(0, 10 ** rng.randint(1, 5))),
        "c": str(rng.randint(1, 30)),
        "t": f"{rng.randint(0, 99):02}",
        "m": f"{rng.randint(1, 400):03}",
        "a": rng.choice("abcdefghijklmnopqrstuvwxyz"),
        "h": f"{rng.getrandbits(16):04x}",
        "x": f"{rng.getrandbits(12):03x}",
        "s": rng.choice(parts.surnames),
        "g": rng.choice(parts.given),
        "v": version,
        "tag": rng.choice(parts.tags),
        "b": f"{size}b",
        "B": f"{size}B",
    }[key]


def made_up(rng: Random) -> str:
    """A pronounceable word that nobody has used."""
    parts = stock().names
    sounds = (
        rng.choice(parts.onsets) + rng.choice(parts.nuclei) + rng.choice(parts.codas) for _ in range(rng.randint(1, 3))
    )
    return "".join(sounds)


def category_of(tool: str, argument: str) -> str | None:
    """The category of names that this argument of this tool takes, None when its words are kept."""
    known = catalogue()[tool].argument(argument) if tool in catalogue() else None
    if known is None or known.kind not in ("name", "text", "list"):
        return None
    if argument == "name":
        return _BY_TOOL.get(tool, "folder")
    return CATEGORY.get(argument)


_DESCRIBED = re.compile(
    r"(?i)^(the|my|our|that|this|an?|all)\b|'s\b|(?<!\S)(job|run|session|node|box|one|folder|nr|no)(?!\S)"
    r"|[가-힣]{2,} (작업|세션|노드|서버|폴더|런)$"
)


def is_plain_name(surface: str) -> bool:
    """False for descriptions ("the old V100 box"), which must keep their words."""
    return not _DESCRIBED.search(surface) and surface.count(" ") <= 3


def _authored(dialogues: Iterable[Dialogue]) -> Iterable[tuple[str, str]]:
    for dialogue in dialogues:
        for r in dialogue.requests:
            for s in r.segments:
                if s.mark is None or s.mark.value is not None or not is_plain_name(s.text):
                    continue
                tool = r.asked_for or r.tools[min(s.mark.call, len(r.tools) - 1)]
                if (category := category_of(tool, s.mark.argument)) is not None:
                    yield category, s.text
