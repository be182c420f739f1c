"""`chat`: the terminal face, in a terminal or through a pipe."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from helmsman.render import Look, standard_look
from helmsman.render.look import Language
from helmsman.terminal.chat import Chat
from helmsman.terminal.host import Opener


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
    if sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return await _in_terminal(opener, options, look)
    return await _through_lines(opener, options, look)


async def _in_terminal(opener: Opener, options: Options, look: Look) -> int:
    from helmsman.terminal.screen import TerminalScreen, open_history

    screen = TerminalScreen(open_history(options.history, options.history_lines), look.color)
    talk = Chat(screen, look, options.face)
    screen.bind(talk)
    try:
        await screen.run(lambda: talk.start(opener))
    finally:
        await talk.close()
        screen.flush()
    return talk.exit_code


async def _through_lines(opener: Opener, options: Options, look: Look) -> int:
    from helmsman.terminal.lines import LineScreen, run

    screen = LineScreen(sys.stdout)
    talk = Chat(screen, look, options.face, echo=not sys.stdin.isatty())
    try:
        talk.start(opener)
        await run(talk, screen, sys.stdin)
    finally:
        await talk.close()
    return talk.exit_code
