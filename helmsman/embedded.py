"""The cluster of this machine: one server and one agent, started when somebody needs them, outliving whoever did.

```
DATA/cluster/   the server's: database, volumes, logs of sessions, server.json     STATE/logs/server.log
DATA/node/      the agent's: work, agent.json                                      STATE/logs/agent.log
DATA/up.lock    held while starting or stopping, so that two chats do not start two
```
"""

import asyncio
import contextlib
import fcntl
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

import platformdirs
import psutil
from pydantic import BaseModel, ConfigDict

from cluster.client import Client
from cluster.errors import ClusterError, Conflict, NotFound, Unavailable
from cluster.models import NodeStatus, S, Sentence

T = TypeVar("T")
F = TypeVar("F", bound="ProcessFile")

_START = 30.0
"""Seconds that server and agent each have to be there."""
_END = 10.0
_LOOK = 0.05
_LOG_MOST = 8 << 20


@dataclass(frozen=True)
class Endpoint:
    """Where the cluster is, and who one is there."""

    url: str
    token: str
    user: str


class ProcessFile(BaseModel):
    """server.json and agent.json, as far as this file needs them."""

    model_config = ConfigDict(extra="ignore")

    pid: int


class ServerFile(ProcessFile):
    """Where the server is; the token is a file."""

    url: str
    user_token: Path
    agent_token: Path
    join_url: str | None = None
    """For other machines."""


@dataclass(frozen=True)
class Place:
    """The directories of one embedded cluster."""

    data: Path
    logs: Path

    @classmethod
    def of(cls, data_dir: Path, state_dir: Path | None) -> "Place":
        return cls(data_dir, (state_dir or platformdirs.user_state_path("helmsman")) / "logs")

    @property
    def server(self) -> Path:
        return self.data / "cluster"

    @property
    def node(self) -> Path:
        return self.data / "node"

    def prepare(self) -> None:
        """Make them, for this user only. Raises `Unavailable`."""
        try:
            for directory in (self.data, self.server, self.node, self.logs):
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as e:
            where = str(e.filename or self.data)
            raise Unavailable(
                S("Helmsman cannot write to {path} ({why}); free it, or set XDG_DATA_HOME.", path=where, why=_why(e))
            ) from e


async def ensure_running(
    data_dir: Path, state_dir: Path | None = None, listen: str | None = None, monitor: int | None = None
) -> Endpoint:
    """The running cluster of this machine; what is missing of it is started. It listens on `listen` ("0.0.0.0:8400"),
    else as the last time, at first on loopback. `monitor`: the server's monitor has this port, the agent's the second
    after it.

    Raises `Unavailable`, with the last line of the log of what did not start; `Conflict` when it listens elsewhere.
    """
    place = Place.of(data_dir, state_dir)
    place.prepare()
    endpoint = await find(data_dir)
    if endpoint is not None and (listen not in (None, _listens(place)) or monitor is not None):
        raise Conflict(S("The cluster already runs at {url}; stop it first with `helmsman down`.", url=endpoint.url))
    if endpoint is not None and _process(place.node / "agent.json") is not None:
        return endpoint
    async with _alone(place):
        return await _start_missing(place, listen, monitor)


async def join_command(data_dir: Path) -> str:
    """What to type on another machine to make it a node of this one's cluster. Raises `Unavailable`, `Conflict`."""
    if await find(data_dir) is None:
        raise Unavailable(S("The cluster of this machine is not running. Start it with `helmsman up`."))
    server = _read(data_dir / "cluster" / "server.json", ServerFile)
    if server is None or server.join_url is None:
        raise Conflict(
            S(
                "Other machines cannot reach this server, it listens on this one only: `helmsman down`, then "
                "`helmsman up --listen 0.0.0.0:8400`."
            )
        )
    token = (await asyncio.to_thread(server.agent_token.read_text)).strip()
    return shlex.join(["helmsman", "agent", "--join", server.join_url, "--token", token])


def become_agent(data: Path, options: Mapping[str, str | None], token: str | None) -> NoReturn:
    """This process becomes the agent of a node, with its data in `data`. The token goes through a pipe, so that it is
    not in the list of processes from here on."""
    command = [sys.executable, "-m", "cluster.agents", "--data", str(data)]
    for name, value in options.items():
        command += [] if value is None else [f"--{name}", value]
    if token is not None:
        given, giving = os.pipe()
        os.write(giving, token.encode())
        os.close(giving)
        os.dup2(given, sys.stdin.fileno())
        command += ["--token-file", "-"]
    os.execv(sys.executable, command)


async def find(data_dir: Path) -> Endpoint | None:
    """The running server of `data_dir`, if there is one that answers."""
    file = data_dir / "cluster" / "server.json"
    server = _read(file, ServerFile)
    if server is None or _process(file) is None:
        return None
    with contextlib.suppress(OSError, ClusterError):
        token = await asyncio.to_thread(server.user_token.read_text)
        user = await _ask(server.url, token.strip(), lambda c: c.whoami())
        return Endpoint(server.url, token.strip(), user.name)
    return None


async def stop(data_dir: Path, state_dir: Path | None = None) -> Sentence:
    """End server and agent. Running sessions go on; what became of them is said. Raises `Unavailable`."""
    place = Place.of(data_dir, state_dir)
    place.prepare()
    async with _alone(place):
        endpoint = await find(data_dir)
        running = await _running(endpoint) if endpoint else 0
        ended = [await _end(place.node / "agent.json"), await _end(place.server / "server.json")]
    if not any(ended):
        return S("The cluster of this machine was not running.")
    if running:
        return S("The cluster has stopped; {count} sessions go on, and `helmsman up` finds them again.", count=running)
    return S("The cluster of this machine has stopped.")


# ── starting ─────────────────────────────────────────────────────────────────────────────────────


async def _start_missing(place: Place, listen: str | None, monitor: int | None) -> Endpoint:
    """Start both at once, where they are missing: the agent waits for the server by itself."""
    endpoint, running = await find(place.data), _process(place.node / "agent.json")
    name = _node_name(place)
    server = None if endpoint else await _launch_server(place, listen, monitor)
    command = [*_agent_command(place, name), *_monitor(None if monitor is None else monitor + 2)]
    agent = running.pid if running else _detached(command, place.node, _log(place, "agent"))
    try:
        endpoint = endpoint or await _server_there(place, server or 0)
        await _agent_there(place, endpoint, name, agent)
    except Unavailable:
        if not running:
            await _finish(agent)
        raise
    return endpoint


def _monitor(port: int | None) -> list[str]:
    return [] if port is None else ["--monitor", str(port)]


async def _launch_server(place: Place, listen: str | None, monitor: int | None) -> int:
    await _end(place.server / "server.json")
    (place.server / "server.json").unlink(missing_ok=True)
    where = [*(["--port", "0"] if listen is None else ["--listen", listen]), *_monitor(monitor)]
    return _detached(["cluster.server", "--data", str(place.server), *where], place.server, _log(place, "server"))


def _listens(place: Place) -> str | None:
    """Where the server was last told to listen; it keeps that itself."""
    kept = place.server / "listen"
    return kept.read_text() if kept.exists() else None


async def _server_there(place: Place, pid: int) -> Endpoint:
    log = _log(place, "server")
    async for _ in _tries(pid, log, "server"):
        endpoint = await find(place.data)
        if endpoint is not None:
            return endpoint
    raise _too_slow("server", log)


async def _agent_there(place: Place, endpoint: Endpoint, name: str, pid: int) -> None:
    log = _log(place, "agent")
    async for _ in _tries(pid, log, "agent"):
        there = _process(place.node / "agent.json")
        if there and there.pid == pid and await _is_alive(endpoint, name):
            return
    raise _too_slow("agent", log)


def _agent_command(place: Place, name: str) -> list[str]:
    where = ["--server", str(place.server / "server.json"), "--token-file", str(place.server / "agent.token")]
    return ["cluster.agents", *where, "--name", name, "--data", str(place.node), "--same-host"]


async def _is_alive(endpoint: Endpoint, name: str) -> bool:
    try:
        node = await _ask(endpoint.url, endpoint.token, lambda c: c.node(name))
    except NotFound:
        return False
    return node.status != NodeStatus.LOST


async def _tries(pid: int, log: Path, what: str) -> AsyncIterator[None]:
    """Once every moment, until the time is up or the process is gone, which is an error."""
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        yield
        if not _lives(pid):
            raise Unavailable(
                S(
                    "The cluster's {what} did not start: {why}. Its log: {log}",
                    what=what,
                    why=_last_line(log),
                    log=str(log),
                )
            )
        await asyncio.sleep(_LOOK)


def _too_slow(what: str, log: Path) -> Unavailable:
    said = S(
        "The cluster's {what} was not there after {seconds} s; its last words: {why}. Its log: {log}",
        what=what,
        seconds=int(_START),
        why=_last_line(log),
        log=str(log),
    )
    return Unavailable(said)


def _detached(module: list[str], cwd: Path, log: Path) -> int:
    """Start `python -m …` as nobody's child, in a session of its own; its process number."""
    command = [sys.executable, "-m", *module]
    started = subprocess.run(
        ["/bin/sh", "-c", '"$@" </dev/null >>"$LOG" 2>&1 & echo $!', "sh", *command],
        cwd=cwd,
        env={**os.environ, "LOG": str(log)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        check=True,
    )
    return int(started.stdout)


def _node_name(place: Place) -> str:
    """This machine's name at the first start; it stays when the machine is renamed, since it is the node's identity."""
    file = place.node / "name"
    if not file.exists():
        name = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().split(".")[0].lower()).strip("-")
        file.write_text(name or "localhost")
    return file.read_text().strip()


def _log(place: Place, name: str) -> Path:
    """The log's file; a long one is put aside first."""
    log = place.logs / f"{name}.log"
    if log.exists() and log.stat().st_size > _LOG_MOST:
        log.replace(log.with_suffix(".log.1"))
    return log


def _last_line(log: Path) -> str:
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1][-300:].rstrip(".") if lines else "it said nothing"


# ── stopping, asking, locking ────────────────────────────────────────────────────────────────────


async def _end(file: Path) -> bool:
    """End the process that `file` names. False when there is none."""
    process = _process(file)
    if process is not None:
        await _finish(process.pid)
    return process is not None


async def _finish(pid: int) -> None:
    """Ask the process to end, and kill it if it does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.terminate()
        deadline = time.monotonic() + _END
        while _lives(pid):
            if time.monotonic() > deadline:
                process.kill()
            await asyncio.sleep(_LOOK)


async def _running(endpoint: Endpoint) -> int:
    page = await _ask(endpoint.url, endpoint.token, lambda c: c.sessions(status="running", limit=1))
    return page.total


async def _ask(url: str, token: str, question: Callable[[Client], Coroutine[None, None, T]]) -> T:
    client = Client.connect(url, token)
    try:
        return await question(client)
    finally:
        await client.close()


def _process(file: Path) -> psutil.Process | None:
    """The living process that `file` (server.json, agent.json) names, if it is still that one."""
    said = _read(file, ProcessFile)
    try:
        process = psutil.Process(said.pid) if said else None
        same = process is not None and "-m cluster." in " ".join(process.cmdline())
        return process if process and same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def _read(file: Path, shape: type[F]) -> F | None:
    try:
        return shape.model_validate_json(file.read_text())
    except (OSError, ValueError):
        return None


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@asynccontextmanager
async def _alone(place: Place) -> AsyncIterator[None]:
    """Only one process at a time starts or stops this cluster."""
    with open(place.data / "up.lock", "w") as lock:  # noqa: ASYNC230 - an empty local file
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOOK)
        yield


def _why(error: OSError) -> str:
    return error.strerror or str(error)
