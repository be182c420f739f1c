"""The server as a process: it listens, is found, survives being killed, and ends in order."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.client import Client
from cluster.errors import Unavailable
from cluster.models import Beat, BeatReply, CreateFolder, Event, NodeInfo, Resources, StartSession, WorkReport

pytestmark = pytest.mark.slow


class Server:
    """`python -m cluster.server` on a directory."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.process: subprocess.Popen[str] | None = None

    def start(self, *more: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "cluster.server", "--data", str(self.data), *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        deadline = time.monotonic() + 30
        while True:
            assert self.process.poll() is None, self.process.stdout and self.process.stdout.read()
            assert time.monotonic() < deadline, "the server did not announce itself"
            said = self.said()
            if said.get("pid") == self.process.pid:
                return said
            time.sleep(0.02)

    def said(self) -> dict[str, Any]:
        file = self.data / "server.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        code = self.process.wait(15)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    def client(self, agent: bool = False) -> Client:
        said = self.said()
        return Client.connect(said["url"], Path(said["agent_token" if agent else "user_token"]).read_text().strip())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "data")
    yield made
    if made.process is not None:
        made.end(signal.SIGKILL)


@asynccontextmanager
async def talking(server: Server, agent: bool = False) -> AsyncIterator[Client]:
    client = server.client(agent)
    yield client
    await client.close()


async def beat(agent: Client, beat: Beat) -> BeatReply:
    return BeatReply.model_validate_json((await agent.send("POST", "/v1/agents/n1/beat", beat)).content)


async def test_it_is_found_by_its_file_and_ends_in_order(server: Server) -> None:
    said = server.start()
    assert said["url"].startswith("http://127.0.0.1:")
    for file in (server.data / "server.json", Path(said["user_token"]), Path(said["agent_token"])):
        assert file.stat().st_mode & 0o777 == 0o600
    async with talking(server) as client:
        assert (await client.whoami()).role == "admin"
    assert server.end(signal.SIGTERM) == 0


async def test_what_was_acknowledged_is_there_after_a_kill_and_runs_once(server: Server) -> None:
    server.start()
    info = NodeInfo(name="n1", capacity=Resources(cpu=4, memory=2**33))
    async with talking(server) as client, talking(server, agent=True) as agent:
        await agent.send("POST", "/v1/agents/register", info)
        await client.execute(CreateFolder(name="cats"))
        await client.execute(StartSession(command="train", name="job"))
        work = (await beat(agent, Beat(wait=10))).start[0].id
        at = (await client.status()).now
        await beat(agent, Beat(running=[work], reports=[WorkReport(id=work, state="running", at=at)]))
    server.end(signal.SIGKILL)
    server.start()
    async with talking(server) as client, talking(server, agent=True) as agent:
        assert [f.name for f in (await client.folders()).items] == ["cats"]
        reply = await beat(agent, Beat(running=[work]))
        assert (reply.start, reply.stop) == ([], [])
        assert (await client.session("job")).state == "running"


async def test_events_are_told_as_they_happen(server: Server) -> None:
    server.start()
    seen: asyncio.Queue[Event] = asyncio.Queue()

    async def follow(client: Client) -> None:
        async for event in client.follow_events():
            seen.put_nowait(event)

    async with talking(server) as client, talking(server) as other:
        following = asyncio.create_task(follow(other))
        await client.execute(CreateFolder(name="cats"))
        first = await asyncio.wait_for(seen.get(), 10)
        await client.execute(CreateFolder(name="dogs"))
        second = await asyncio.wait_for(seen.get(), 10)
        assert [str(e.message).split()[-1] for e in (first, second)] == ["cats.", "dogs."]
        assert second.seq == first.seq + 1
        assert server.end(signal.SIGTERM) == 0  # although somebody listens
        await asyncio.gather(following, return_exceptions=True)


async def test_two_servers_do_not_share_a_directory(server: Server) -> None:
    server.start()
    second = subprocess.run(
        [sys.executable, "-m", "cluster.server", "--data", str(server.data)], capture_output=True, text=True, timeout=30
    )
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert "already" in second.stderr


async def test_a_port_in_use_is_one_sentence(server: Server, tmp_path: Path) -> None:
    port = server.start()["url"].rsplit(":", 1)[1]
    second = subprocess.run(
        [sys.executable, "-m", "cluster.server", "--data", str(tmp_path / "other"), "--port", port],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode == 1
    assert second.stderr.strip() == f"Port {port} can't be used (Address already in use); choose another with --port."


async def test_a_directory_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    failed = subprocess.run(
        [sys.executable, "-m", "cluster.server", "--data", str(tmp_path / "file" / "data")],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1


async def test_a_server_that_is_gone_is_a_sentence(server: Server) -> None:
    server.start()
    async with talking(server) as client:
        server.end(signal.SIGKILL)
        with pytest.raises(Unavailable, match="helmsman up"):
            await client.whoami()
