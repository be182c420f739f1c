"""Turns that run behind a request: a browser that is closed must not break off what it began.

A line is taken with 202 and its consequences come on the event stream. What is refused at once (somebody else's turn
is running, the question is closed) is the request's own answer; what fails later goes to the streams of the thread.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from itertools import chain

import structlog

from helmsman.conversation import Conversation
from helmsman.events import Event
from helmsman.web.messages import Problem
from helmsman.web.problems import as_problem, describe

log = structlog.get_logger(__name__)
REFUSAL_WINDOW = 2.0
"""Seconds in which a refusal still is the request's answer; a turn that ends sooner is answered sooner."""


@dataclass(frozen=True)
class Live:
    """Everything stored has been sent; what comes now happens now."""


Item = Event | Live | Problem


class Turns:
    """The running turns and the open streams of one server."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._streams: dict[str, set[asyncio.Queue[Item | None]]] = defaultdict(set)

    async def take(self, thread: str, turn: Coroutine[None, None, None]) -> None:
        """Run `turn`; return when it was taken. Raises what it raises within `REFUSAL_WINDOW`."""
        task = asyncio.create_task(turn)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await asyncio.wait({task}, timeout=REFUSAL_WINDOW)
        if task.done():
            task.result()
        else:
            task.add_done_callback(lambda ended: self._report(thread, ended))

    async def stream(self, conversation: Conversation, after: int) -> AsyncIterator[Item]:
        """Stored events with seq > `after`, `Live`, then what comes, including failures of turns taken here."""
        queue: asyncio.Queue[Item | None] = asyncio.Queue()
        pump = asyncio.create_task(_pump(conversation, after, queue))
        listeners = self._streams[conversation.thread]
        listeners.add(queue)
        try:
            while (item := await queue.get()) is not None:
                yield item
        finally:
            pump.cancel()
            listeners.discard(queue)

    def end_streams(self) -> None:
        """End every open stream, so that a server that stops has nothing to wait for."""
        for queue in chain.from_iterable(self._streams.values()):
            queue.put_nowait(None)

    async def close(self) -> None:
        """Break off what still runs; the store keeps what had happened."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _report(self, thread: str, ended: asyncio.Task[None]) -> None:
        error = None if ended.cancelled() else ended.exception()
        if isinstance(error, Exception):
            for queue in self._streams[thread]:
                queue.put_nowait(_told(error))


async def _pump(conversation: Conversation, after: int, queue: "asyncio.Queue[Item | None]") -> None:
    """Move the conversation's events into the queue; None ends the stream, and the browser comes again."""
    try:
        async for event in conversation.events(after, follow=False):
            after = event.seq
            queue.put_nowait(event)
        queue.put_nowait(Live())
        async for event in conversation.events(after):
            queue.put_nowait(event)
    except Exception as error:  # the stream's edge: told, logged, and begun anew by the browser
        queue.put_nowait(_told(error))
    queue.put_nowait(None)


def _told(error: Exception) -> Problem:
    status, code, sentence = describe(error)
    if code == "internal":
        log.error("web.turn_failed", exc_info=error)
    return as_problem(status, code, sentence)
