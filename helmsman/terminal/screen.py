"""The prompt-toolkit screen: one application for the whole chat, so that no key press is ever lost between two prompts.

┌ printed above, by `show` ────────────┐
│ transcript                           │
├ live area (redrawn) ─────────────────┤
│ words as they come                   │
│ ⠋ looking at sessions · 3 s          │
│ › what is being typed                │
└──────────────────────────────────────┘
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import ANSI, StyleAndTextTuples, to_formatted_text
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.shortcuts import PromptSession
from prompt_toolkit.styles import Style

from cluster.models import Names
from cluster.sentence import S, Sentence
from helmsman.events import Asked, PlanShown
from helmsman.render import how_to_answer
from helmsman.render.look import LOWEST_WIDTH
from helmsman.terminal.chat import Chat
from helmsman.terminal.completion import ChatCompleter

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
TICK = 0.125
"""Seconds between two frames of the spinner."""
LIVE_LINES = 8

STYLE = Style.from_dict(
    {
        "mark": "ansicyan bold",
        "spinner": "ansicyan",
        "pale": "italic",
        "completion-menu": "noinherit",
        "completion-menu.completion": "noinherit",
        "completion-menu.completion.current": "noinherit reverse",
        "completion-menu.meta.completion": "noinherit italic",
        "completion-menu.meta.completion.current": "noinherit reverse",
        "scrollbar.background": "noinherit",
        "scrollbar.button": "noinherit reverse",
    }
)


class KeptHistory(FileHistory):
    """The last `count` lines of a file; new ones are added to it."""

    def __init__(self, path: Path, count: int) -> None:
        super().__init__(path)
        self._count = count

    def load_history_strings(self) -> Iterable[str]:
        return islice(super().load_history_strings(), self._count)


def open_history(path: Path | None, count: int = 5000) -> History:
    """The lines typed before, from `path` (made readable for its owner only); in memory where that can't be written."""
    if path is None or count == 0:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
    except OSError:
        return InMemoryHistory()
    return KeptHistory(path, count)


class TerminalScreen:
    """Implements `chat.Screen`. `bind` gives it its chat before `run`."""

    can_edit = True

    def __init__(self, history: History, color: bool, input: Input | None = None, output: Output | None = None) -> None:
        self.chat: Chat | None = None
        self._aside = ""
        self._pending: list[str] = []
        self._wake = asyncio.Event()
        self._no_editor = asyncio.Event()
        """Cleared while the person's editor has the terminal."""
        self._no_editor.set()
        self._session: PromptSession[None] = PromptSession(
            message=self._message,
            placeholder=self._placeholder,
            prompt_continuation="  ",
            multiline=True,
            history=history,
            completer=ChatCompleter(self._names, lambda: self._chat.look),
            complete_while_typing=Condition(lambda: self._buffer.text.startswith("/")),
            key_bindings=self._keys(),
            enable_suspend=True,
            tempfile_suffix=lambda: ".toml" if self._chat.editing else ".txt",
            style=STYLE,
            color_depth=None if color else ColorDepth.DEPTH_1_BIT,
            include_default_pygments_style=False,
            reserve_space_for_menu=6,
            erase_when_done=True,
            input=input,
            output=output,
        )
        self._buffer = self._session.default_buffer
        self._buffer.accept_handler = self._accept

    def bind(self, chat: Chat) -> None:
        self.chat = chat

    async def run(self, on_start: Callable[[], None]) -> None:
        """Until the chat is left. `on_start` is called when the prompt is there."""
        writer, ticker = asyncio.create_task(self._write()), asyncio.create_task(self._tick())
        try:
            await self._session.prompt_async(pre_run=on_start)
        finally:
            writer.cancel()
            ticker.cancel()
            await asyncio.gather(writer, ticker, return_exceptions=True)
            self.flush()

    # ── chat.Screen ──────────────────────────────────────────────────────────────────────────────

    def show(self, text: str) -> None:
        if text:
            self._pending.append(text)
            self._wake.set()

    def refresh(self) -> None:
        self._session.app.invalidate()

    def put(self, text: str) -> None:
        self._buffer.document = Document(text)
        self.refresh()

    def set_aside(self) -> None:
        self._aside = self._aside or self._buffer.text
        self._buffer.reset()

    def bring_back(self) -> None:
        if self._aside and not self._buffer.text:
            self.put(self._aside)
        self._aside = ""

    def leave(self) -> None:
        if self._session.app.is_running:
            self._session.app.exit()

    # ── printing ─────────────────────────────────────────────────────────────────────────────────

    async def _write(self) -> None:
        """Print what is pending, above the prompt, all of it in one redraw.

        Not by prompt-toolkit's `in_terminal`: that turns the terminal's own line editing on for a moment, and what is
        typed just then would be echoed, a pasted CR LF doubled, and a Ctrl+D taken for the end of all input.
        """
        app = self._session.app
        while True:
            await self._wake.wait()
            await self._no_editor.wait()
            self._wake.clear()
            app.renderer.erase()
            self.flush()
            app.renderer.request_absolute_cursor_position()
            app.invalidate()

    def flush(self) -> None:
        """Write what is pending to where the cursor is."""
        text, self._pending = "".join(self._pending), []
        output = self._session.app.output
        output.write_raw(text)
        output.flush()

    async def _tick(self) -> None:
        """Turn the spinner while there is one."""
        while True:
            await asyncio.sleep(TICK)
            if self.chat and self.chat.doing:
                self.refresh()

    # ── the live area ────────────────────────────────────────────────────────────────────────────

    @property
    def _chat(self) -> Chat:
        assert self.chat is not None
        return self.chat

    def _message(self) -> StyleAndTextTuples:
        chat = self._chat
        size = self._session.app.output.get_size()
        chat.look = replace(chat.look, width=max(LOWEST_WIDTH, size.columns), height=size.rows)
        parts: StyleAndTextTuples = []
        if tail := chat.story.tail(LIVE_LINES):
            parts += [*to_formatted_text(ANSI(tail)), ("", "\n")]
        parts += [("class:pale", f"  {line.splitlines()[0]} …\n") for line in chat.waiting]
        parts += self._spinner(chat)
        mark = "›" if chat.look.unicode else ">"
        return [*parts, ("class:mark", f"{mark} ")]

    def _spinner(self, chat: Chat) -> StyleAndTextTuples:
        if not chat.doing and not chat.follower:
            return []
        seconds = time.monotonic() - chat.since
        frame = FRAMES[int(seconds / TICK) % len(FRAMES)] if chat.look.unicode else "-\\|/"[int(seconds / TICK) % 4]
        if not chat.doing and chat.follower:
            what = chat.look.say(S("following {session}", session=chat.follower.session))
            return [("class:pale", f"{what} · Ctrl+C\n")]
        parts: StyleAndTextTuples = [("class:spinner", f"{frame} "), ("", chat.doing or "")]
        if seconds >= 2:
            parts.append(("class:pale", f" · {seconds:.0f} s · Ctrl+C"))
        return [*parts, ("", "\n")]

    def _placeholder(self) -> StyleAndTextTuples:
        return [("class:pale", self._chat.look.say(self._hint()))]

    def _hint(self) -> Sentence:
        """What the empty input says."""
        question = self._chat.story.question
        if isinstance(question, PlanShown):
            return how_to_answer([call.plan for call in question.calls])
        if isinstance(question, Asked):
            return S("a number, or in your own words") if question.choices else S("in your own words")
        return S("say what you want · /help")

    # ── keys ─────────────────────────────────────────────────────────────────────────────────────

    async def _names(self) -> Names | None:
        conversation = self._chat.conversation
        return await conversation.names() if conversation else None

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        typing = Condition(lambda: self._session.app.layout.has_focus(self._buffer))
        keys.add("enter", filter=typing)(lambda event: event.current_buffer.validate_and_handle())
        keys.add("escape", "enter", filter=typing)(lambda event: event.current_buffer.insert_text("\n"))
        keys.add("c-x", "c-e", filter=typing)(self._open_editor)
        keys.add("c-c", filter=typing)(self._interrupt)
        keys.add("<sigint>")(self._interrupt)
        nothing_typed = Condition(lambda: not self._buffer.text)
        keys.add("c-d", filter=typing & nothing_typed)(lambda event: self._chat.leave())
        return keys

    def _accept(self, buffer: Buffer) -> bool:
        """Enter, or back from the editor: take the whole line. Answers and edits aren't kept in the history."""
        chat = self._chat
        text = buffer.text
        if text.strip() and not isinstance(chat.story.question, PlanShown):
            buffer.append_to_history()
        buffer.reset()
        chat.submit(text)
        return True

    def _open_editor(self, event: KeyPressEvent) -> None:
        """The line in $VISUAL or $EDITOR; it is taken when the editor ends."""
        self._no_editor.clear()
        editing = event.current_buffer.open_in_editor(validate_and_handle=True)
        editing.add_done_callback(lambda done: self._no_editor.set())

    def _interrupt(self, event: KeyPressEvent) -> None:
        if self._chat.interrupt(has_text=bool(self._buffer.text)):
            self._buffer.reset()
