"""A look into a running daemon's event loop (aiomonitor), for whoever hunts a task that hangs. Never on by itself.

Loopback only: `telnet 127.0.0.1 PORT`, and a page at `http://127.0.0.1:PORT+1`. There is no password: whoever has an
account on the machine can list tasks and cancel them while it is on. The Python console stays off.
"""

import argparse
import asyncio
import contextlib
import socket
from collections.abc import Iterator

from cluster.errors import Unavailable
from cluster.sentence import S

HOST = "127.0.0.1"
PORT = 20101


def add_option(parser: argparse.ArgumentParser) -> None:
    """`--monitor [PORT]`."""
    said = f"let aiomonitor look into this process on loopback, at PORT ({PORT}) and the one after it"
    parser.add_argument("--monitor", type=int, nargs="?", const=PORT, default=None, metavar="PORT", help=said)


@contextlib.contextmanager
def monitored(port: int | None) -> Iterator[None]:
    """Around what the running loop does; nothing without a port. `Unavailable` when the ports can't be used."""
    if port is None:
        yield
        return
    from aiomonitor import start_monitor

    for each in (port, port + 1):
        _must_be_free(each)
    loop = asyncio.get_running_loop()
    with start_monitor(loop, host=HOST, port=port, webui_port=port + 1, console_enabled=False):
        yield


def _must_be_free(port: int) -> None:
    """aiomonitor would wait for ever."""
    try:
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((HOST, port))
    except (OSError, OverflowError) as e:
        why = getattr(e, "strerror", None) or str(e)
        raise Unavailable(
            S("Port {port} can't be used for the monitor ({why}); choose another with --monitor.", port=port, why=why)
        ) from e
