"""Completion: slash commands while they are typed, names that exist in the cluster on Tab."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from cluster.models import Names
from helmsman.render import Look, one_line
from helmsman.terminal.commands import COMMANDS

MOST = 50
_WORD = re.compile(r"[^\s,;\"'`()]*$")


class ChatCompleter(Completer):
    """`names` gives what exists, or None while the cluster is being opened."""

    def __init__(self, names: Callable[[], Awaitable[Names | None]], look: Callable[[], Look]) -> None:
        self._names, self._look = names, look

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Commands only: names have to be waited for, see `get_completions_async`."""
        return self._commands(document.text_before_cursor)

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        for command in self._commands(document.text_before_cursor):
            yield command
        match = _WORD.search(document.text_before_cursor)
        word = match[0] if match else ""
        if word.startswith("/") or not complete_event.completion_requested:
            return
        names = await self._names()
        for name, kind in matching(names, word) if names else ():
            yield Completion(name, start_position=-len(word), display=one_line(name), display_meta=kind)

    def _commands(self, text: str) -> Iterator[Completion]:
        if not re.fullmatch(r"/[a-zA-Z]*", text):
            return
        for command in COMMANDS.values():
            if command.name.startswith(text[1:].lower()):
                about = self._look().say(command.about)
                yield Completion(f"/{command.name}", start_position=-len(text), display_meta=about)


def matching(names: Names, word: str) -> list[tuple[str, str]]:
    """Name and kind of what begins with `word`, then of what contains it; at most `MOST`, each once."""
    wanted = word.lower()
    known = dict(reversed(list(_all(names))))
    found = [(name, kind) for name, kind in known.items() if wanted in name.lower()]
    return sorted(found, key=lambda pair: (not pair[0].lower().startswith(wanted), pair[1], pair[0]))[:MOST]


def _all(names: Names) -> Iterator[tuple[str, str]]:
    """Every name with the word for its kind; the first kind counts when two things have one name."""
    yield from ((name, "session") for name in names.sessions.values())
    for field in sorted(Names.model_fields.keys() - {"sessions"}):
        yield from ((name, field.removesuffix("s").replace("_", " ")) for name in getattr(names, field))
