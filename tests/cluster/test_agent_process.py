"""The agent as a process, against a small server of the test's own that speaks the same protocol and loses nothing."""

import asyncio
import base64
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import uvicorn
from fastapi import FastAPI

from cluster.agents import processes
from cluster.models import Beat, BeatReply, NodeInfo, Registered, Sample, StopOrder, Work, WorkId, WorkReport

pytestmark = pytest.mark.slow


@dataclass
class Server:
    """Gives each order until it is reported, as the real one does. Can go away and come back."""

    port: int
    nodes: list[NodeInfo] = field(default_factory=list)
    orders: list[Work] = field(default_factory=list)
    stops: list[StopOrder] = field(default_factory=list)
    reports: list[WorkReport] = field(default_factory=list)
    output: dict[str, bytes] = field(default_factory=dict)
    sample: Sample | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    _server: uvicorn.Server | None = None
    _task: "asyncio.Task[None] | None" = None

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/agents/register")
        async def register(info: NodeInfo) -> Registered:
            self.nodes.append(info)
            return Registered(cluster="here")

        @app.post("/v1/agents/{node}/beat")
        async def beat(node: str, beat: Beat) -> BeatReply:
            return await self.beat(beat)

        return app

    async def beat(self, beat: Beat) -> BeatReply:
        self.take(beat)
        if beat.wait and not self.due() and not self.open_stops():
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), beat.wait)
            except TimeoutError:
                return BeatReply()
        return BeatReply(start=self.due(), stop=self.open_stops())

    def take(self, beat: Beat) -> None:
        self.reports += beat.reports
        self.sample = beat.sample or self.sample
        for chunk in beat.logs:
            known = self.output.get(chunk.id.session, b"")
            assert chunk.offset <= len(known), "a hole in the output"
            self.output[chunk.id.session] = known[: chunk.offset] + base64.b64decode(chunk.data)

    def due(self) -> list[Work]:
        told = {r.id.session for r in self.reports}
        return [w for w in self.orders if w.id.session not in told]

    def open_stops(self) -> list[StopOrder]:
        return [s for s in self.stops if self.end(s.id.session) is None]

    def order(self, command: str | None, session: str = "s1") -> None:
        self.orders.append(
            Work(
                id=WorkId(session=session, attempt=1),
                name=session,
                user="minho",
                command=command,
                cpu=1,
                memory=1 << 29,
            )
        )
        self.news.set()

    def stop(self, session: str = "s1", grace: float = 5) -> None:
        self.stops.append(StopOrder(id=WorkId(session=session, attempt=1), grace=grace))
        self.news.set()

    def states(self, session: str = "s1") -> list[str]:
        return [r.state for r in self.reports if r.id.session == session]

    def end(self, session: str = "s1") -> WorkReport | None:
        return next((r for r in self.reports if r.id.session == session and r.state in ("exited", "lost")), None)

    async def up(self) -> None:
        config = uvicorn.Config(
            self.app(), port=self.port, log_level="error", timeout_graceful_shutdown=0, lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._task = asyncio.create_task(self._server.serve())
        await until(lambda: self._server and self._server.started)

    async def down(self) -> None:
        if self._server and self._task:
            self._server.should_exit = True
            self.news.set()
            await self._task


@dataclass
class Node:
    """The agent process of one node."""

    server: Server
    data: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        (self.data / "token").write_text("secret")
        command = [sys.executable, "-m", "cluster.agents", "--name", "here", "--data", str(self.data / "node")]
        command += ["--server", f"http://127.0.0.1:{self.server.port}", "--token-file", str(self.data / "token")]
        with open(self.data / "agent.log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.data)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        assert self.process
        self.process.terminate()
        return self.process.wait(10)

    def family(self, session: str = "s1") -> "list[psutil.Process]":
        return processes.marked(str(self.data.resolve() / "node" / "work" / f"{session}.1.0"))

    def log(self) -> str:
        return (self.data / "agent.log").read_text()


async def until(true: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        made = Server(probe.getsockname()[1])
    await made.up()
    yield made
    await made.down()


@pytest.fixture
async def node(server: Server, tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(server, tmp_path)
    made.start()
    yield made
    if made.process and made.process.poll() is None:
        made.terminate()
    for session in {w.id.session for w in server.orders}:
        processes.send(made.family(session), signal.SIGKILL)


async def test_the_node_says_what_it_is_and_runs_what_it_is_told(server: Server, node: Node) -> None:
    await until(lambda: server.nodes)
    assert server.nodes[0].capacity.cpu >= 1
    assert server.nodes[0].capacity.memory > 1 << 28
    server.order("echo hello; exit 3")
    await until(lambda: server.end())
    assert server.reports[-1].exit_code == 3
    assert server.output["s1"] == b"hello\n"
    assert server.states() == ["running", "exited"] or server.states() == ["preparing", "running", "exited"]


async def test_output_arrives_while_it_runs_and_an_order_to_stop_is_felt_at_once(server: Server, node: Node) -> None:
    server.order("echo first; sleep 300")
    await until(lambda: server.output.get("s1") == b"first\n")
    assert server.end() is None
    server.stop()
    await until(lambda: server.end(), 5)
    assert str(server.reports[-1].detail) == "It was stopped."


async def test_how_much_a_session_uses_of_what_it_holds_is_measured(server: Server, node: Node) -> None:
    server.order("while true; do :; done", session="busy")
    server.order(None, session="idle")
    await until(lambda: server.sample and {"busy", "idle"} <= server.sample.sessions.keys(), 30)
    assert server.sample
    assert server.sample.sessions["busy"] > 0.2
    assert server.sample.sessions["idle"] < 0.1
    assert 1 << 19 < server.sample.memory["busy"] < 1 << 29
    server.stop("busy")
    server.stop("idle")
    await until(lambda: server.end("busy") and server.end("idle"))


async def test_after_kill_9_of_the_agent_the_work_goes_on_and_is_not_started_again(server: Server, node: Node) -> None:
    server.order("echo up; while [ ! -e go ]; do sleep 0.05; done; echo done; exit 6")
    await until(lambda: server.output.get("s1") == b"up\n" and "running" in server.states())
    node.kill()
    (node.data / "node" / "work" / "s1.1.0" / "files" / "go").touch()
    await asyncio.sleep(0)
    node.start()
    await until(lambda: server.end())
    assert server.end().exit_code == 6  # type: ignore[union-attr]
    assert server.output["s1"] == b"up\ndone\n"


async def test_kill_9_at_any_moment_of_the_start_runs_it_once(server: Server, node: Node) -> None:
    await until(lambda: server.nodes)
    for n in range(6):
        session = f"k{n}"
        directory = node.data / "node" / "work" / f"{session}.1.0"
        moments = ["", "spec.json", "supervisor.json", "launched", "status.json", "output.log"]
        server.order("echo once", session)
        await until(lambda: (directory / moments[n]).exists())  # noqa: B023 - awaited before n moves on
        node.kill()
        node.start()
        await until(lambda: server.end(session))  # noqa: B023
        assert server.output.get(session) == b"once\n", moments[n]


async def test_while_the_server_is_away_the_work_goes_on_and_is_told_afterwards(server: Server, node: Node) -> None:
    server.order("echo up; while [ ! -e go ]; do sleep 0.05; done; echo done; exit 6")
    await until(lambda: server.output.get("s1") == b"up\n")
    await server.down()
    directory = node.data / "node" / "work" / "s1.1.0"
    (directory / "files" / "go").touch()
    await until(lambda: '"exited"' in (directory / "status.json").read_text())
    await server.up()
    await until(lambda: server.end())
    assert server.end().exit_code == 6  # type: ignore[union-attr]
    assert server.output["s1"] == b"up\ndone\n"


async def test_ending_the_agent_leaves_the_work_running(server: Server, node: Node) -> None:
    server.order("sleep 300")
    await until(lambda: "running" in server.states())
    assert node.terminate() == 0
    assert node.family() != []
    node.start()
    server.stop()
    await until(lambda: server.end())
    assert node.family() == []


async def test_a_second_agent_on_the_same_directory_says_why_it_does_not_start(server: Server, node: Node) -> None:
    await until(lambda: server.nodes)
    rival = Node(server, node.data)
    rival.start()
    assert rival.process
    assert await asyncio.to_thread(rival.process.wait, 10) == 1
    assert "Another agent already runs on" in node.log()
