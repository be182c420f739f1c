"""Serving the web on this machine."""

import socket
from collections.abc import Callable

import uvicorn

from cluster.sentence import S
from helmsman.errors import HelmsmanError
from helmsman.web.app import create_web
from helmsman.web.conversations import Conversations
from helmsman.web.gate import Key

ADDRESS = "127.0.0.1"


async def serve(conversations: Conversations, announce: Callable[[str], None], port: int = 0) -> None:
    """Serve until SIGINT or SIGTERM. `announce` gets the link, and the next one whenever a link was used.

    Port 0 takes a free one. Raises `HelmsmanError` when the port is taken."""
    listener = _listen(port)
    base = f"http://{ADDRESS}:{listener.getsockname()[1]}/?ticket="
    key = Key(on_used=lambda ticket: announce(base + ticket))
    config = uvicorn.Config(
        create_web(conversations, key),
        access_log=False,  # it would hold the tickets
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    announce(base + key.ticket)
    with listener:
        await uvicorn.Server(config).serve(sockets=[listener])


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((ADDRESS, port))
    except OSError as error:
        why = error.strerror or str(error)
        raise HelmsmanError(
            S("Port {port} of this machine cannot be used ({why}). Choose another with --port.", port=port, why=why)
        ) from error
