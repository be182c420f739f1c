"""Reads the authored requests of `datasets/utterances` (its README has the format)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

_MARK = re.compile(r"\[([^\]]*)\]\(((?:\d+\.)?\w+)(?:=([^)]*))?\)")
FOLDER = Path(__file__).parent.parent / "datasets" / "utterances"


@dataclass(frozen=True)
class Mark:
    """What a stretch of text gives: an argument of the call numbered `call`; `value` None means the stretch itself."""

    call: int
    argument: str
    value: str | None = None


@dataclass(frozen=True)
class Segment:
    """A stretch of a request, marked or not."""

    text: str
    mark: Mark | None = None


@dataclass(frozen=True)
class Request:
    """One line of a person. `tools` holds tool names, or one of ask, refuse, talk; `fixed` what no stretch gives."""

    lang: str
    tools: tuple[str, ...]
    segments: tuple[Segment, ...]
    fixed: dict[str, Any] = field(default_factory=dict)
    asked_for: str = ""
    about: str = ""

    @property
    def text(self) -> str:
        """The request as a person typed it."""
        return "".join(s.text for s in self.segments)


@dataclass(frozen=True)
class Dialogue:
    """One or more requests in a row, from one file (one hand)."""

    hand: str
    requests: tuple[Request, ...]

    @property
    def held_out(self) -> bool:
        """One dialogue in twenty-five is never trained on; which, is a matter of its words alone."""
        words = "\n".join(r.text for r in self.requests)
        return int(hashlib.sha256(words.encode()).hexdigest()[:8], 16) % 25 == 0


def read(folder: Path = FOLDER) -> list[Dialogue]:
    """All dialogues of all files, files in the order of their names."""
    return [d for path in sorted(folder.glob("*.jsonl")) for d in _read_file(path)]


def _read_file(path: Path) -> Iterator[Dialogue]:
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        requests = [request(turn, row.get("lang", "")) for turn in row.get("turns", [row])]
        if (mended := _without_image_questions(requests)) is not None:
            yield Dialogue(path.stem, tuple(mended))


def request(row: dict[str, Any], lang: str) -> Request:
    """One row, or one turn of a row, as a `Request`."""
    tools = row["tool"] if isinstance(row["tool"], list) else [row["tool"]]
    return Request(
        lang=row.get("lang", lang),
        tools=tuple(tools),
        segments=tuple(segments(row["text"])),
        fixed=row.get("fixed") or {},
        asked_for=row.get("for", ""),
        about=row.get("about", "") or "",
    )


def segments(text: str) -> Iterator[Segment]:
    """The marked and unmarked stretches of a text."""
    at = 0
    for m in _MARK.finditer(text):
        if m.start() > at:
            yield Segment(text[at : m.start()])
        call, _, argument = m[2].rpartition(".")
        yield Segment(m[1], Mark(int(call or 0), argument, m[3]))
        at = m.end()
    if at < len(text):
        yield Segment(text[at:])


def _without_image_questions(requests: Iterable[Request]) -> list[Request] | None:
    """A session without an image is started, since the tool has a default; a dialogue about that question goes."""
    found = list(requests)
    asks = [r.tools[0] == "ask" and r.asked_for == "start_session" and r.about == "image" for r in found]
    if not any(asks):
        return found
    if len(found) > 1:
        return None
    return [replace(found[0], tools=("start_session",), asked_for="", about="")]
