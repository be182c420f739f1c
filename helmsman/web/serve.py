"""Serving the web on this machine."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from cluster.sentence import S
from helmsman.errors import HelmsmanError
from helmsman.web.app import create_web
from helmsman.web.conversations import Conversations
from helmsman.web.gate import Key
from helmsman.web.turns import Turns

ADDRESS = "127.0.0.1"


async def serve(
    conversations: Conversations,
    announce: Callable[[str], None],
    port: int = 0,
    until: asyncio.Event | None = None,
) -> None:
    """Serve until SIGINT, SIGTERM or `until`. `announce` gets the link, and the next one whenever a link was used.

    Port 0 takes a free one. Raises `HelmsmanError` when the port is taken."""
    listener = _listen(port)
    base = f"http://{ADDRESS}:{listener.getsockname()[1]}/?ticket="
    key = Key(on_used=lambda ticket: announce(base + ticket))
    turns = Turns()
    server = _Server(_config(create_web(conversations, key, turns)), turns, until or asyncio.Event())
    announce(base + key.ticket)
    with listener:
        await server.serve(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends by `until` too; ends the event streams before it waits for open connections; and returns after a signal,
    where uvicorn would raise it again and so keep its caller from cleaning up."""

    def __init__(self, config: uvicorn.Config, turns: Turns, until: asyncio.Event) -> None:
        super().__init__(config)
        self._turns = turns
        self._until = until

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._end)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _end(self) -> None:
        """Once: in order. Again: at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._until.is_set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._turns.end_streams()
        await super().shutdown(sockets)


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        access_log=False,  # it would hold the tickets
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=1,
    )


def _listen(port: int) -> socket.socket:
    try:
        made = socket.create_server((ADDRESS, port))
        # said to be TCP, or asyncio would leave Nagle's algorithm on, which holds events back for 40 ms
        return socket.socket(made.family, made.type, socket.IPPROTO_TCP, made.detach())
    except OSError as error:
        why = error.strerror or str(error)
        raise HelmsmanError(
            S("Port {port} of this machine cannot be used ({why}). Choose another with --port.", port=port, why=why)
        ) from error
