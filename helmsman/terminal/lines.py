"""The chat without a terminal (a pipe, TERM=dumb): one line after the other, plain text out, no prompt-toolkit."""

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator
from typing import TextIO

from helmsman.terminal.chat import Chat


class LineScreen:
    """Implements `chat.Screen`: prints at once, has no live area and no input to put text into."""

    can_edit = False

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.left = asyncio.Event()

    def show(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def refresh(self) -> None:
        """Nothing is drawn twice here."""

    def put(self, text: str) -> None:
        """What was typed too early can't be put back; it is shown, so that it can be typed again."""
        self.show(text + "\n")

    def set_aside(self) -> None:
        """There is no half-typed line here."""

    def bring_back(self) -> None:
        """There is none to bring back."""

    def leave(self) -> None:
        self.left.set()


async def run(chat: Chat, screen: LineScreen, source: TextIO) -> None:
    """Take `source` line by line, each after the turn before it has ended, until its end or /quit."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, lambda: chat.interrupt(has_text=False))
    prompt = "> " if source.isatty() else ""
    try:
        await chat.idle()
        async for line in _lines(source, screen, prompt):
            chat.submit(line)
            await chat.idle()
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _lines(source: TextIO, screen: LineScreen, prompt: str) -> AsyncIterator[str]:
    """Lines of `source`; ends early when the chat is left. A thread reads, since a file can't be awaited."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | None] = asyncio.Queue()
    threading.Thread(target=_pump, args=(source, loop, queue), daemon=True).start()
    left = asyncio.create_task(screen.left.wait())
    while not screen.left.is_set():
        screen.show(prompt)
        get = asyncio.create_task(queue.get())
        await asyncio.wait([get, left], return_when=asyncio.FIRST_COMPLETED)
        line = get.result() if get.done() else None
        get.cancel()
        if line is None:
            break
        yield line.rstrip("\n")
    left.cancel()


def _pump(source: TextIO, loop: asyncio.AbstractEventLoop, queue: "asyncio.Queue[str | None]") -> None:
    try:
        for line in iter(source.readline, ""):
            loop.call_soon_threadsafe(queue.put_nowait, line)
        loop.call_soon_threadsafe(queue.put_nowait, None)
    except RuntimeError:
        sys.stderr.flush()  # the loop is closed: the chat was left while this thread waited for a line
