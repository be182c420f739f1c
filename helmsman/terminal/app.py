"""`chat`: the terminal face, in a terminal or through a pipe."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from logging.handlers import RotatingFileHandler
from pathlib import Path

from helmsman.render import Look, standard_look
from helmsman.render.look import Language
from helmsman.terminal.chat import Chat
from helmsman.terminal.host import Opener
from helmsman.terminal.welcome import title


@dataclass(frozen=True)
class Options:
    """`language` None: that of the locale. `history`: the file of typed lines, None to keep none."""

    language: Language | None = None
    history: Path | None = None
    history_lines: int = 5000
    """How many of them the arrow keys go back; 0 keeps none."""
    color: bool = True
    """False: without colours in any terminal."""
    face: str = "terminal"


async def chat(opener: Opener, options: Options | None = None) -> int:
    """Talk until the person leaves; gives the exit code. `opener` runs while the prompt is there already."""
    options = options or Options()
    look = standard_look(options.language)
    look = look if options.color else replace(look, color=False)
    with _logging_to(options.history and options.history.with_name("chat.log")):
        if sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            return await _in_terminal(opener, options, look)
        return await _through_lines(opener, options, look)


@contextmanager
def _logging_to(path: Path | None) -> Iterator[None]:
    """Warnings and worse go into a file: on the screen they would be in the way. Nowhere, if it can't be written."""
    handler: logging.Handler = logging.NullHandler()
    if path is not None:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            handler = RotatingFileHandler(path, maxBytes=1_000_000, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


async def _in_terminal(opener: Opener, options: Options, look: Look) -> int:
    from prompt_toolkit.patch_stdout import patch_stdout

    from helmsman.terminal.screen import TerminalScreen, open_history

    screen = TerminalScreen(open_history(options.history, options.history_lines), look.color)
    talk = Chat(screen, look, options.face)
    screen.bind(talk)
    screen.show(title(look))
    screen.flush()
    try:
        with patch_stdout(raw=True):
            await screen.run(lambda: talk.start(opener))
    finally:
        await talk.close()
        screen.flush()
    return talk.exit_code


async def _through_lines(opener: Opener, options: Options, look: Look) -> int:
    from helmsman.terminal.lines import LineScreen, run

    screen = LineScreen(sys.stdout)
    talk = Chat(screen, look, options.face, echo=not sys.stdin.isatty())
    screen.show(title(look))
    try:
        talk.start(opener)
        await run(talk, screen, sys.stdin)
    finally:
        await talk.close()
    return talk.exit_code
