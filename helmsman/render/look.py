"""How things look in this terminal: its width, whether it has colours, and the reader's language."""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from typing import IO, Any, Literal

from rich.console import Console, RenderableType
from rich.theme import Theme

from cluster.sentence import Sentence

Language = Literal["en", "ko"]

STYLES = {
    "plain": "",
    "good": "green",
    "warn": "yellow",
    "bad": "red",
    "muted": "dim",
    "title": "bold",
    "heading": "dim",
    "accent": "cyan",
}
"""Tone -> style. Only the sixteen colours, so that it is readable on light and dark screens."""

LOWEST_WIDTH = 20


@dataclass(frozen=True)
class Look:
    """`width` in cells; without `color` there is not one escape sequence in what is drawn."""

    width: int = 80
    height: int = 24
    color: bool = False
    language: Language = "en"
    unicode: bool = True
    """False where the terminal's encoding has no box drawing: then ASCII."""

    @classmethod
    def of(cls, stream: IO[Any], language: Language = "en", environ: Mapping[str, str] | None = None) -> "Look":
        """The look of `stream`: plain when it is no terminal, TERM=dumb, or NO_COLOR is set to anything."""
        env = os.environ if environ is None else environ
        tty = stream.isatty()
        size = shutil.get_terminal_size((80, 24)) if tty else os.terminal_size((100, 24))
        encoding = (getattr(stream, "encoding", None) or "ascii").lower()
        return cls(
            width=max(LOWEST_WIDTH, size.columns),
            height=size.lines,
            color=tty and not env.get("NO_COLOR") and env.get("TERM", "dumb") != "dumb",
            language=language,
            unicode=encoding.replace("-", "").startswith("utf"),
        )

    def say(self, sentence: Sentence) -> str:
        """Put it into the reader's language."""
        from tools.words import say

        return say(sentence, self.language)

    def draw(self, *renderables: RenderableType) -> str:
        """Rich renderables as one string that ends with a newline (empty for none)."""
        out = StringIO()
        console = Console(
            file=out,
            width=self.width,
            force_terminal=self.color,
            color_system="standard" if self.color else None,
            no_color=not self.color,
            theme=Theme(STYLES),
            highlight=False,
            markup=False,
            emoji=False,
            legacy_windows=False,
            _environ={},
        )
        for each in renderables:
            console.print(each)
        return "".join(line.rstrip(" ") + "\n" for line in out.getvalue().splitlines())


def language_of_locale(environ: Mapping[str, str] | None = None) -> Language:
    """Korean when LC_ALL, LC_MESSAGES or LANG (the first that is set) says so, else English."""
    env = os.environ if environ is None else environ
    chosen = next((env[key] for key in ("LC_ALL", "LC_MESSAGES", "LANG") if env.get(key)), "")
    return "ko" if chosen.lower().startswith("ko") else "en"


def standard_look(language: Language | None = None) -> Look:
    """The look of standard output in the language asked for, or in that of the locale."""
    return Look.of(sys.stdout, language or language_of_locale())
