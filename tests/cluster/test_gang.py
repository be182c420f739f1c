"""A session on several nodes, with a real server and two real agents that joined it: its ranks meet."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.client import Client
from cluster.models import Session, StartSession

pytestmark = pytest.mark.slow

MEET = """
import os, socket
rank, hosts = int(os.environ["RANK"]), os.environ["HELMSMAN_HOSTS"].split(",")
assert int(os.environ["WORLD_SIZE"]) == int(os.environ["NNODES"]) == len(hosts) == 2
place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
if rank == 0:
    with socket.create_server(place) as door:
        there, _ = door.accept()
        print("met", there.recv(10).decode(), flush=True)
else:
    while True:
        try:
            with socket.create_connection(place, 1) as there:
                there.sendall(b"rank 1")
            break
        except ConnectionRefusedError:
            continue
"""


class Cluster:
    """A server and what joined it."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.processes: list[subprocess.Popen[bytes]] = []
        self.run("cluster.server", "--data", str(where / "server"))
        self.said: dict[str, Any] = json.loads(self._file(where / "server" / "server.json"))

    def _file(self, path: Path) -> str:
        end = time.monotonic() + 30
        while not path.exists():
            assert time.monotonic() < end
            assert self.processes[0].poll() is None
            time.sleep(0.02)
        return path.read_text()

    def run(self, module: str, *words: str, told: str | None = None) -> None:
        process = subprocess.Popen([sys.executable, "-m", module, *words], stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write((told or "").encode())
        process.stdin.close()
        self.processes.append(process)

    def join(self, name: str) -> None:
        token = Path(self.said["agent_token"]).read_text()
        place = ("--name", name, "--data", str(self.where / name), "--isolation", "process", "--address", "127.0.0.1")
        self.run("cluster.agents", "--join", self.said["url"], "--token-file", "-", *place, told=token)

    def client(self) -> Client:
        return Client.connect(self.said["url"], Path(self.said["user_token"]).read_text().strip())

    def end(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
            process.wait(15)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.end()


async def test_the_ranks_of_a_gang_meet_where_they_are_told(cluster: Cluster, tmp_path: Path) -> None:
    for name in ("n1", "n2"):
        cluster.join(name)
    script = tmp_path / "meet.py"
    script.write_text(MEET)
    client = cluster.client()
    async with asyncio.timeout(60):
        while len((await client.nodes()).items) < 2:
            await asyncio.sleep(0.1)
        started = await client.execute(
            StartSession(command=f"{sys.executable} {script}", name="gang", node_count=2, cpu=1, memory=2**30)
        )
        assert not started.refused, started.refused
        ended = await _end(client, "gang")
    assert (ended.state, ended.result, ended.exit_code) == ("terminated", "success", 0)
    assert (await client.logs("gang")).text == "met rank 1\n"
    assert sorted(n.free.cpu == n.capacity.cpu for n in (await client.nodes()).items) == [True, True]
    await client.close()


async def _end(client: Client, name: str) -> Session:
    async for _ in client.follow_events():
        session = await client.session(name)
        if session.ended is not None:
            return session
    raise AssertionError("the server went away")
