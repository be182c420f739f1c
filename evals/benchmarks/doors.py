"""The two ways to a real core: in this process, and over HTTP to `python -m cluster.server` as a process of its own."""

import asyncio
import json
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from pydantic import BaseModel

from cluster.clock import WallClock
from cluster.core import Core
from cluster.db.engine import Where
from cluster.models import Beat, BeatReply, NodeInfo, OperationRequest, Outcome, StartSession
from evals.benchmarks.nodes import Send
from evals.benchmarks.report import ROOT, Wrong

Submit = Callable[[StartSession], Awaitable[Outcome]]


class Door(Protocol):
    """How clients and agents reach the core."""

    async def client(self, user: str) -> Submit:
        """One person's way to submit, with a connection of its own where there are connections."""
        ...

    async def agent(self, node: str) -> Send:
        """One node's way to beat."""
        ...

    async def register(self, info: NodeInfo) -> None: ...


# ── in process ───────────────────────────────────────────────────────────────────────────────────


class InProcess:
    """Calls `core` directly, as its routes do."""

    def __init__(self, core: Core) -> None:
        self.core = core

    async def client(self, user: str) -> Submit:
        person = await self.core.user(user)
        return lambda operation: self.core.execute(person, OperationRequest(operation=operation))

    async def agent(self, node: str) -> Send:
        return lambda beat: self.core.agents.beat(node, beat)

    async def register(self, info: NodeInfo) -> None:
        await self.core.agents.register(info)


@asynccontextmanager
async def in_process(folder: Path, where: Where | None = None) -> AsyncIterator[InProcess]:
    """A durable core on the wall clock, with its passes going."""
    database = where or folder / "cluster.db"
    core = await Core.open(database, clock=WallClock(), data_dir=folder, name="benchmark")
    passes = asyncio.create_task(core.run_forever())
    try:
        yield InProcess(core)
    finally:
        passes.cancel()
        await asyncio.gather(passes, return_exceptions=True)
        await core.close()


# ── over HTTP ────────────────────────────────────────────────────────────────────────────────────


class Wire:
    """One kept-alive HTTP/1.1 connection, one request at a time; as little work as can be, so that the server is
    what is measured."""

    def __init__(self, url: str, token: str) -> None:
        self._host = urlsplit(url).hostname or ""
        self._port = urlsplit(url).port or 80
        self._token = token
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: BaseModel) -> bytes:
        """The answer's body; raises `Wrong` for any answer but a 2xx."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        payload = body.model_dump_json().encode()
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
            + payload
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = next((int(h.split(":")[1]) for h in head.split("\r\n") if h.startswith("content-length:")), 0)
        answer = await reader.readexactly(length)
        if head.split(" ", 2)[1][0] != "2":
            raise Wrong(f"The server answered {head.split(' ', 2)[1]} to {path}: {answer.decode()}")
        return answer

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


class Http:
    """Calls the server at `url`; `tokens` by user, "" is the agents'."""

    def __init__(self, url: str, tokens: dict[str, str], pid: int) -> None:
        self.url = url
        self.pid = pid
        self._tokens = tokens
        self._wires: list[Wire] = []

    def _wire(self, owner: str) -> Wire:
        wire = Wire(self.url, self._tokens[owner])
        self._wires.append(wire)
        return wire

    async def client(self, user: str) -> Submit:
        wire = self._wire(user)

        async def submit(operation: StartSession) -> Outcome:
            return Outcome.model_validate_json(await wire.post("/v1/operations", OperationRequest(operation=operation)))

        return submit

    async def agent(self, node: str) -> Send:
        wire = self._wire("")

        async def send(beat: Beat) -> BeatReply:
            return BeatReply.model_validate_json(await wire.post(f"/v1/agents/{node}/beat", beat))

        return send

    async def register(self, info: NodeInfo) -> None:
        wire = self._wire("")
        await wire.post("/v1/agents/register", info)
        wire.close()

    def close(self) -> None:
        for wire in self._wires:
            wire.close()


@asynccontextmanager
async def served(folder: Path, users: Iterable[str]) -> AsyncIterator[Http]:
    """`python -m cluster.server` on `folder` as a child process, with a token for each of `users`."""
    core = await Core.open(folder / "cluster.db", clock=WallClock(), data_dir=folder, name="benchmark")
    tokens = {user: await core.token_for(user) for user in users}
    await core.close()
    with (folder / "server.log").open("wb") as log:
        words = (sys.executable, "-m", "cluster.server", "--data", str(folder))
        process = await asyncio.create_subprocess_exec(*words, cwd=ROOT, stdout=log, stderr=log)
    door = None
    try:
        while (told := _told(folder)) is None:
            if process.returncode is not None:
                raise Wrong(f"The server ended before it listened: {_last_line(folder / 'server.log')}")
            await asyncio.sleep(0.05)
        url, tokens[""] = told
        door = Http(url, tokens, process.pid)
        yield door
    finally:
        if door is not None:
            door.close()
        await _end(process)


def _told(folder: Path) -> tuple[str, str] | None:
    """The server's URL and the agents' token; None until it listens."""
    file = folder / "server.json"
    if not file.exists():
        return None
    told = json.loads(file.read_text(encoding="utf-8"))
    return told["url"], Path(told["agent_token"]).read_text(encoding="utf-8")


def _last_line(log: Path) -> str:
    return next(reversed(log.read_text(encoding="utf-8", errors="replace").splitlines()), "it said nothing")


async def _end(process: Process) -> None:
    """SIGTERM, and SIGKILL when that is not enough in 20 s."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), 20)
    except TimeoutError:
        process.kill()
        await process.wait()
