"""Real processes: the journal after a kill, a stream at the end of its server, a look inside with aiomonitor."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.client import Client
from cluster.errors import Unavailable
from cluster.models import CreateFolder, DeleteFolder

pytestmark = pytest.mark.slow


class Daemon:
    """`python -m MODULE` with its data in `data`; `file` says that it is ready."""

    def __init__(self, module: str, data: Path, file: str) -> None:
        self.module, self.data, self.file = module, data, file
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> dict[str, Any]:
        command = [sys.executable, "-m", self.module, "--data", str(self.data), *more]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, f"{self.module} has ended"
            assert time.monotonic() < deadline, f"{self.module} did not say that it is ready"
            with contextlib.suppress(OSError, ValueError):
                said: dict[str, Any] = json.loads((self.data / self.file).read_text())
                if said["pid"] == self.process.pid:
                    return said
            time.sleep(0.02)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        code, self.process = self.process.wait(20), None
        return code


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon("cluster.server", tmp_path / "server", "server.json")
    yield made
    if made.process is not None:
        made.end(signal.SIGKILL)


def client_of(said: dict[str, Any]) -> Client:
    return Client.connect(said["url"], Path(said["user_token"]).read_text().strip())


async def test_a_kill_between_two_acknowledgements_leaves_no_change_without_its_row_and_no_row_without_its_change(
    server: Daemon,
) -> None:
    client = client_of(server.start())
    told: dict[str, str | None] = {}

    async def works(who: int) -> None:
        with contextlib.suppress(Unavailable):
            for number in range(1000):
                name = f"f-{who}-{number}"
                told[name] = (await client.execute(CreateFolder(name=name))).audit_id
                assert (await client.execute(DeleteFolder(folder="nothing"))).refused

    at_work = [asyncio.create_task(works(who)) for who in range(4)]
    while len(told) < 25:
        await asyncio.sleep(0)
    server.end(signal.SIGKILL)
    await asyncio.gather(*at_work)
    await client.close()
    client = client_of(server.start())
    rows = (await client.audit(action="create_folder", result="done", limit=1000)).items
    journal = {row.targets[0].rpartition("/")[2]: row.id for row in rows}
    folders = {folder.name for folder in (await client.folders(limit=1000)).items}
    check = await client.verify_audit()
    await client.close()
    assert told.items() <= journal.items()
    assert journal.keys() == folders
    assert check.whole, check.fault


async def test_a_stream_ends_in_order_with_its_server_and_goes_on_with_the_next(server: Daemon) -> None:
    client = client_of(server.start())
    await client.execute(CreateFolder(name="cats"))
    last = (await client.events(after=-1, limit=1)).items[-1].seq
    seen: asyncio.Queue[int] = asyncio.Queue()

    async def follow() -> None:
        async for event in client.follow_events(after=last - 1):
            seen.put_nowait(event.seq)

    following = asyncio.create_task(follow())
    assert await asyncio.wait_for(seen.get(), 10) == last
    assert await asyncio.to_thread(server.end) == 0
    with contextlib.suppress(httpx.HTTPError):
        await asyncio.wait_for(following, 10)
    await client.close()
    client = client_of(server.start())
    await client.execute(CreateFolder(name="dogs"))
    following = asyncio.create_task(follow())
    assert [await asyncio.wait_for(seen.get(), 10) for _ in range(2)] == [last, last + 1]
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await client.close()


# ── a look inside ────────────────────────────────────────────────────────────────────────────────


def two_ports() -> int:
    """A free port whose next one is free as well."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


async def tasks_of(port: int) -> str:
    """What aiomonitor's page knows of the loop's tasks, as JSON; its telnet side has to answer too."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert (await reader.read(1)) == b"\xff"  # telnet's "interpret as command"
        writer.close()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port + 1}") as http:
            return (await http.post("/api/live-tasks", data={"filter": "", "persistent": "false"})).text


async def test_the_server_can_be_looked_into_when_it_was_told_so(server: Daemon) -> None:
    port = two_ports()
    server.start("--monitor", str(port))
    assert "run_forever" in await tasks_of(port)
    assert server.end() == 0


async def test_nothing_listens_for_a_look_inside_by_itself(server: Daemon) -> None:
    from psutil import Process

    server.start()
    assert server.process is not None
    assert len([c for c in Process(server.process.pid).net_connections("tcp") if c.status == "LISTEN"]) == 1


async def test_an_agent_can_be_looked_into_when_it_was_told_so(server: Daemon, tmp_path: Path) -> None:
    said = server.start()
    agent, port = Daemon("cluster.agents", tmp_path / "agent", "agent.json"), two_ports()
    here = str(server.data / "server.json")
    try:
        agent.start("--server", here, "--token-file", said["agent_token"], "--name", "n1", "--monitor", str(port))
        assert "Agent.run" in await tasks_of(port)
    finally:
        agent.end()


def test_a_monitors_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "cluster.server", "--data", str(tmp_path), "--monitor", port]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines() == [
        f"Port {port} can't be used for the monitor (Address already in use); choose another with --monitor."
    ]
