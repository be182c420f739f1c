"""A large file through upload and download, with the connection cut on the way.

The server is a process of its own; between it and the client is a proxy that breaks the connection, without a word,
after so many bytes. What comes back must be what was sent, and the server's memory must not grow with the file.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.client import Client
from cluster.models import CreateFolder
from evals.benchmarks.report import Broken, Cell, Options, Report, Target

GIB, CUTS = 4.0, 10
PIECE = 1 << 20
Work = Callable[[Client], Awaitable[int]]
STARTS = 60.0
"""Seconds that the server may take to start."""


@dataclass
class Found:
    """Sizes in bytes, times in seconds."""

    size: int
    cuts_up: int
    cuts_down: int
    equal: bool
    upload: float
    download: float
    peak_memory: int
    """Of the server's resident memory."""
    memory_before: int


class Proxy:
    """Passes on to the server's port, and cuts all connections whenever another share of the bytes has gone through."""

    def __init__(self, port: int, size: int, cuts: int) -> None:
        self._port = port
        self._every = size // (cuts + 1)
        self._left = cuts
        self._passed = 0
        self.cut = 0
        self._open: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            self._cut_all()
            await server.wait_closed()

    async def _serve(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        far_in, far_out = await asyncio.open_connection("127.0.0.1", self._port)
        both = {near_out, far_out}
        self._open |= both
        try:
            await asyncio.gather(self._pass(near_in, far_out), self._pass(far_in, near_out))
        finally:
            self._open -= both
            for writer in both:
                writer.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(1 << 16):
                target.write(data)
                await target.drain()
                self._count(len(data))
            target.close()

    def _count(self, passed: int) -> None:
        self._passed += passed
        if self._left and self._passed >= self._every:
            self._passed, self._left, self.cut = 0, self._left - 1, self.cut + 1
            self._cut_all()

    def _cut_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()


class Memory:
    """The most that a process has held, looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.before = self.peak = self._process.memory_info().rss

    async def watch(self) -> None:
        while True:
            self.peak = max(self.peak, self._process.memory_info().rss)
            await asyncio.sleep(0.1)


@asynccontextmanager
async def served(data: Path) -> AsyncIterator[dict[str, str]]:
    """A server on `data`; what its server.json says, and the user's `token`."""
    command = [sys.executable, "-m", "cluster.server", "--data", str(data)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    try:
        end = time.monotonic() + STARTS
        while not (said := _said(data, process.pid)):
            if process.returncode is not None or time.monotonic() > end:
                raise RuntimeError("the server did not start")
            await asyncio.sleep(0.05)
        yield said
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()


def _said(data: Path, pid: int) -> dict[str, str]:
    file = data / "server.json"
    said: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    if str(said.get("pid")) != str(pid):
        return {}
    return {**said, "token": Path(said["user_token"]).read_text().strip()}


async def measure(where: Path, size: int, cuts: int) -> Found:
    """Both ways in `where`, which needs room for three times the size."""
    source, target = where / "source.bin", where / "back.bin"
    sent = await asyncio.to_thread(_fill, source, size)
    async with served(where / "data") as said:
        port, token = int(said["url"].rsplit(":", 1)[1]), said["token"]
        memory = Memory(int(said["pid"]))
        with _watched(memory):
            cut_up, upload = await _through(port, size, cuts, token, lambda c: _up(c, source))
            cut_down, download = await _through(port, size, cuts, token, lambda c: c.download("big", "x.bin", target))
    equal = await asyncio.to_thread(_sum, target) == sent
    return Found(size, cut_up, cut_down, equal, upload, download, memory.peak, memory.before)


async def _up(client: Client, source: Path) -> int:
    await client.execute(CreateFolder(name="big"))
    return await client.upload("big", source, "x.bin")


async def _through(port: int, size: int, cuts: int, token: str, work: Work) -> tuple[int, float]:
    """Do it through a proxy that cuts; how often it did, and the seconds that it took."""
    proxy, began = Proxy(port, size, cuts), time.monotonic()
    async with proxy.listening() as url:
        client = Client.connect(url, token)
        try:
            await work(client)
        finally:
            await client.close()
    return proxy.cut, time.monotonic() - began


@contextlib.contextmanager
def _watched(memory: Memory) -> Iterator[None]:
    watching = asyncio.create_task(memory.watch())
    try:
        yield
    finally:
        watching.cancel()


def _fill(path: Path, size: int) -> str:
    """Random bytes; their SHA-256."""
    whole = hashlib.sha256()
    with path.open("wb") as file:
        for at in range(0, size, PIECE):
            data = os.urandom(min(PIECE, size - at))
            file.write(data)
            whole.update(data)
    return whole.hexdigest()


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(options: Options) -> Report:
    size = int(GIB * options.size * 2**30)
    with tempfile.TemporaryDirectory(prefix="helmsman-upload-") as where:
        found = asyncio.run(measure(Path(where), size, CUTS))
    if not found.equal:
        raise Broken("What came back is not what was sent.")
    return Report(
        name="upload",
        title=f"a file of {size / 2**30:g} GiB through a connection that is cut {CUTS} times each way",
        columns=["", "cuts", "s", "MiB/s"],
        rows=[
            _row("upload", found.cuts_up, size, found.upload),
            _row("download", found.cuts_down, size, found.download),
        ],
        targets=[
            Target(
                what="the server's memory, at its peak",
                value=found.peak_memory / 2**20,
                target=200,
                better="less",
                unit="MiB",
                known=f"{found.memory_before / 2**20:.0f} before",
            ),
            Target(what="cuts survived, both ways", value=found.cuts_up + found.cuts_down, target=2 * CUTS),
        ],
        notes=["SHA-256 of what came back and of what was sent are equal, or there would be no report."],
    )


def _row(what: str, cuts: int, size: int, seconds: float) -> list[Cell]:
    return [what, cuts, seconds, size / 2**20 / seconds]
