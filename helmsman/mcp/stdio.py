"""Over standard input and output: the client starts Helmsman, and its end of input ends it."""

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import anyio
from mcp.server.stdio import stdio_server

from cluster.errors import ClusterError
from helmsman.errors import HelmsmanError
from helmsman.mcp.reach import Which, mine
from helmsman.mcp.server import Door, create
from helmsman.render.look import language_of_locale

LONGEST = 16 << 20
"""Bytes of one line, which is one message."""


async def serve(which: Which) -> None:
    """Until the input ends, or SIGTERM, or Ctrl-C. From the first moment on, whatever else writes to standard output
    (a child, a library) reaches standard error instead."""
    task = asyncio.current_task()
    assert task is not None
    ended: list[int] = []

    def end(number: int) -> None:
        ended.append(number)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    sorry: HelmsmanError | ClusterError | None = None
    try:
        async with _input() as lines, stdio_server(stdin=lines) as streams:
            await _serve(which, *streams)
    except* (HelmsmanError, ClusterError) as errors:
        sorry = cast("HelmsmanError | ClusterError", _first(errors))
    except* asyncio.CancelledError:
        if not ended:
            raise
    if sorry is not None:
        raise sorry


async def _serve(which: Which, reading: Any, writing: Any) -> None:
    async with AsyncExitStack() as stack:
        here = await mine(stack, which)
        door = Door(
            client_for=lambda request: here.client,
            language=which.settings.language,
            locale=language_of_locale(),
            timezone=here.timezone,
            workdir=here.workdir,
        )
        server = create(door)
        await server.run(reading, writing, server.create_initialization_options())


@asynccontextmanager
async def _input() -> AsyncIterator["anyio.AsyncFile[str] | None"]:
    """The lines of standard input, read without a thread: one that waits for a line can't be called off, and the
    process would stay after SIGTERM. Children see an empty input. None (the library reads) where it never waits."""
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or sys.stdin.isatty()):
        yield None  # a file, or /dev/null: they can't be polled, and end by themselves
        return
    kept = os.dup(sys.stdin.fileno())
    reader = asyncio.StreamReader(limit=LONGEST)
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(kept, "rb", buffering=0)
    )
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)
    try:
        yield cast("anyio.AsyncFile[str]", _lines(reader))
    finally:
        pipe.close()


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[str]:
    async for line in reader:
        yield line.decode("utf-8", "replace")


def _first(errors: BaseExceptionGroup[Exception]) -> Exception:
    """The first of a group that is no group itself."""
    inner = errors.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
