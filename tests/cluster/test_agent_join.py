"""A machine joins a cluster, comes back, and is not taken for another one."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from cluster.agents import discover
from cluster.api.app import create_app
from cluster.client import Client
from cluster.errors import Conflict, Invalid, NotFound
from cluster.models import (
    Beat,
    DrainNode,
    Node,
    NodeInfo,
    NodeStatus,
    Registered,
    Resources,
    StartSession,
    rendezvous_port,
)
from cluster.server import Address
from cluster.simulator.lab import Lab

# ── whose name it is, in process ─────────────────────────────────────────────────────────────────


@dataclass
class Machine:
    """One that speaks as an agent, with the agents' token and its own secret."""

    client: Client
    secret: str | None
    cluster: str | None = None

    async def register(self, name: str = "a100-01") -> str | None:
        info = NodeInfo(name=name, capacity=Resources(cpu=8, memory=2**33), secret=self.secret, cluster=self.cluster)
        reply = await self.client.send("POST", "/v1/agents/register", info)
        return Registered.model_validate_json(reply.content).cluster

    async def beat(self, name: str = "a100-01") -> None:
        await self.client.send("POST", f"/v1/agents/{name}/beat", Beat(secret=self.secret))


@pytest.fixture
async def agents(lab: Lab) -> AsyncIterator[Callable[[str | None], Machine]]:
    """Machines of one cluster, by their secret."""
    http = httpx.ASGITransport(create_app(lab.core))
    client = Client.connect("http://lab", await lab.core.token_for(""), http)
    yield lambda secret: Machine(client, secret)
    await client.close()


async def test_a_name_belongs_to_the_machine_that_had_it_first(lab: Lab, agents: Callable[..., Machine]) -> None:
    first, second, without = agents("one"), agents("two"), agents(None)
    await first.register()
    for other in (second, without):
        with pytest.raises(Conflict, match="Another machine is a100-01 here, and is alive; give this one another"):
            await other.register()
        with pytest.raises(Conflict, match="a100-01 is another machine by now"):
            await other.beat()
    await first.register()
    await first.beat()
    await second.register("a100-02")


async def test_a_lost_machines_name_can_be_taken_over_and_it_is_then_shut_out(
    lab: Lab, agents: Callable[..., Machine]
) -> None:
    first, second = agents("one"), agents("two")
    await first.register()
    await lab.later(60)
    assert (await lab.boss.node("a100-01")).status == NodeStatus.LOST
    with pytest.raises(Conflict):
        await agents(None).register()
    await second.register()
    await second.beat()
    for refused in (first.beat, first.register):
        with pytest.raises(Conflict):
            await refused()


async def test_a_name_without_a_secret_goes_to_the_first_that_comes_with_one(
    lab: Lab, agents: Callable[..., Machine]
) -> None:
    await agents(None).register()
    await agents(None).beat()
    await agents("one").register()
    with pytest.raises(Conflict):
        await agents(None).beat()


async def test_secrets_are_kept_as_hashes_and_hold_after_a_restart(lab: Lab, agents: Callable[..., Machine]) -> None:
    await agents("one").register()
    assert "one" not in str(await lab.core.meta("node_secret:a100-01"))
    restarted = Client.connect("http://lab", await lab.core.token_for(""), httpx.ASGITransport(create_app(lab.core)))
    with pytest.raises(Conflict):
        await Machine(restarted, "two").register()
    await Machine(restarted, "one").beat()
    await restarted.close()


async def test_a_machine_of_another_cluster_is_refused(lab: Lab, agents: Callable[..., Machine]) -> None:
    mine = await agents("one").register()
    assert mine
    again, foreign = agents("one"), agents("one")
    again.cluster, foreign.cluster = mine, "feedbeef"
    assert await again.register() == mine
    with pytest.raises(Conflict, match="This machine's data belongs to another cluster"):
        await foreign.register()


@pytest.mark.parametrize("name", ["", "a/b", "a b", "x" * 101])
async def test_what_cannot_be_a_name_is_none(agents: Callable[..., Machine], name: str) -> None:
    with pytest.raises(Invalid):
        await agents("one").register(name)


# ── addresses ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("host", "url", "join"),
    [
        ("127.0.0.1", "http://127.0.0.1:8400", None),
        ("10.0.0.5", "http://10.0.0.5:8400", "http://10.0.0.5:8400"),
        ("fd00::5", "http://[fd00::5]:8400", "http://[fd00::5]:8400"),
        ("0.0.0.0", "http://127.0.0.1:8400", r"http://[\w.-]+:8400"),
    ],
)
def test_a_server_says_where_it_is_for_this_machine_and_for_others(host: str, url: str, join: str | None) -> None:
    address = Address(host, 8400)
    assert address.url == url
    assert address.join_url == join or re.fullmatch(str(join), str(address.join_url))


def test_a_nodes_address_is_the_one_that_leads_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = {"10.0.0.5": "10.0.0.9", "127.0.0.1": "127.0.0.1", "192.0.2.1": "172.16.0.3"}
    monkeypatch.setattr(discover, "_own_address", lambda host, port: ways.get(host))
    assert discover.address("http://10.0.0.5:8400") == "10.0.0.9"
    assert discover.address("http://127.0.0.1:8400") == "172.16.0.3", "others can't use loopback"
    assert discover.address("http://nowhere:1") is None
    del ways["192.0.2.1"]
    assert discover.address("http://127.0.0.1:8400") == "127.0.0.1"


def test_ranks_meet_at_a_port_of_their_own_attempt() -> None:
    ports = {rendezvous_port(f"s-{n}", attempt) for n in range(50) for attempt in (1, 2)}
    assert len(ports) > 95
    assert min(ports) >= 20_000
    assert max(ports) <= 29_999


# ── processes ────────────────────────────────────────────────────────────────────────────────────

CLI = [sys.executable, "-c", "from helmsman.cli import main; main()"]


@dataclass
class Place:
    """A server's and its machines' processes."""

    root: Path
    started: "list[subprocess.Popen[str]]"

    def serve(self, name: str = "server", *more: str) -> dict[str, str]:
        """A server, once it listens: its server.json."""
        file = self.root / name / "server.json"
        file.unlink(missing_ok=True)
        process = self._start([sys.executable, "-m", "cluster.server", "--data", str(self.root / name), *more])
        return json.loads(self.wait(lambda: file.exists() and file.read_text(), process))

    def wait(self, true: Callable[[], str | bool], process: "subprocess.Popen[str]") -> str:
        while not (found := true()):
            assert process.poll() is None, process.stdout and process.stdout.read()
            with_pause(process)
        return str(found)

    def agent(self, *words: str, token: str | None = None, data: str = "m1") -> "subprocess.Popen[str]":
        flags = [] if token is None else ["--token-file", "-"]
        command = [sys.executable, "-m", "cluster.agents", "--data", str(self.root / data), *words, *flags]
        return self._start(command, token)

    def cli(self, *words: str, **env: str) -> "subprocess.Popen[str]":
        return self._start([*CLI, *words])

    def _start(self, command: list[str], given: str | None = None) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdin
        process.stdin.write(given or "")
        process.stdin.close()
        self.started.append(process)
        return process


def with_pause(process: "subprocess.Popen[str]") -> None:
    """A moment, or until the process ends."""
    try:
        process.wait(0.02)
    except subprocess.TimeoutExpired:
        return


def token(said: dict[str, str], whose: str = "agent_token") -> str:
    return Path(said[whose]).read_text().strip()


def last_words(process: "subprocess.Popen[str]") -> str:
    assert process.wait(20) == 1
    assert process.stdout
    return process.stdout.read().strip()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path, [])
    yield made
    for process in made.started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        if process.stdout:
            process.stdout.close()


@asynccontextmanager
async def person(said: dict[str, str]) -> AsyncIterator[Client]:
    client = Client.connect(said["url"], token(said, "user_token"))
    yield client
    await client.close()


async def there(said: dict[str, str], name: str) -> Node:
    async with person(said) as client, asyncio.timeout(30):
        while True:
            try:
                return await client.node(name)
            except NotFound:
                await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_one_command_joins_and_later_no_word_is_needed(place: Place) -> None:
    said = place.serve()
    wishes = ["--name", "m1", "--resource-group", "lab", "--rack", "r1", "--isolation", "process"]
    agent = place.agent("--join", said["url"], *wishes, token=token(said))
    node = await there(said, "m1")
    assert (node.resource_group, node.rack, node.isolation) == ("lab", "r1", "process")
    kept = place.root / "m1" / "join.json"
    place.wait(kept.exists, agent)  # type: ignore[arg-type]
    for file in (kept, place.root / "m1" / "secret"):
        assert file.stat().st_mode & 0o777 == 0o600
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(20) == 0
    again = place.agent()
    place.wait(lambda: (place.root / "m1" / "agent.json").exists(), again)
    async with person(said) as client, asyncio.timeout(30):
        before = node.last_beat
        while (await client.node("m1")).last_beat == before:
            await asyncio.sleep(0.05)
        assert [n.name for n in (await client.nodes()).items] == ["m1"]


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["wrong", "user_token"])
def test_a_token_that_is_not_the_agents_is_one_sentence(place: Place, whose: str) -> None:
    said = place.serve()
    given = whose if whose == "wrong" else token(said, whose)
    agent = place.agent("--join", said["url"], "--name", "m1", "--isolation", "process", token=given)
    assert last_words(agent) == (
        f"The server at {said['url']} does not know this token; `helmsman agent-token` prints the right one there."
    )
    assert not (place.root / "m1" / "join.json").exists(), "what did not work is not remembered"


@pytest.mark.slow
async def test_a_second_machine_cannot_take_a_living_ones_name(place: Place) -> None:
    said = place.serve()
    words = ["--join", said["url"], "--name", "m1", "--isolation", "process"]
    place.agent(*words, token=token(said))
    await there(said, "m1")
    second = place.agent(*words, token=token(said), data="m2")
    assert last_words(second) == "Another machine is m1 here, and is alive; give this one another --name."


@pytest.mark.slow
async def test_data_of_one_cluster_does_not_go_to_another(place: Place) -> None:
    said, other = place.serve(), place.serve("other")
    words = ["--name", "m1", "--isolation", "process"]
    agent = place.agent("--join", said["url"], *words, token=token(said))
    await there(said, "m1")
    place.wait((place.root / "m1" / "join.json").exists, agent)  # type: ignore[arg-type]
    agent.send_signal(signal.SIGTERM)
    agent.wait(20)
    moved = place.agent("--join", other["url"], token=token(other))
    assert last_words(moved).startswith("This machine's data belongs to another cluster")


@pytest.mark.slow
async def test_a_server_that_is_not_up_yet_is_waited_for(place: Place) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    early = place.serve()
    agents = token(early)
    place.started[0].send_signal(signal.SIGTERM)
    assert place.started[0].wait(20) == 0
    words = ["--name", "m1", "--isolation", "process"]
    agent = place.agent("--join", f"http://127.0.0.1:{port}", *words, token=agents)
    assert agent.stdout
    assert "server away" in await asyncio.to_thread(agent.stdout.readline)
    said = place.serve("server", "--listen", f"127.0.0.1:{port}")
    assert (await there(said, "m1")).name == "m1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "This machine has not joined a cluster yet: give --join URL and --token-file FILE."),
        (["--join", "10.0.0.5", "--token-file", "/dev/null"], "10.0.0.5 is not a server's address"),
        (["--join", "http://10.0.0.5:8400"], "The agents' token is missing"),
        (["--join", "http://x:1", "--token-file", "/no/such"], "The token cannot be read from /no/such"),
        (["--join", "http://x:1", "--name", "a b", "--token-file", "/etc/hostname"], "a b can't be a node's name"),
        (
            ["--join", "http://x:1", "--isolation", "dokcer", "--token-file", "/etc/hostname"],
            "There is no isolation dokcer; it is one of podman, docker,",
        ),
    ],
)
def test_what_cannot_begin_says_why_in_one_sentence(place: Place, words: list[str], sentence: str) -> None:
    said = last_words(place.agent(*words))
    assert said.startswith(sentence)
    assert "\n" not in said


@pytest.mark.slow
def test_where_a_server_listens_is_remembered(place: Place) -> None:
    said = place.serve("server", "--listen", "0.0.0.0:0")
    assert said["url"].startswith("http://127.0.0.1:")
    assert said["join_url"]
    place.started[0].send_signal(signal.SIGTERM)
    assert place.started[0].wait(20) == 0
    assert place.serve("server")["join_url"]


@pytest.mark.slow
async def test_a_drained_nodes_sessions_have_their_grace_to_say_goodbye(place: Place) -> None:
    said = place.serve()
    place.agent("--join", said["url"], "--name", "m1", token=token(said))
    await there(said, "m1")
    command = "trap 'echo bye; exit 7' TERM; echo up; while true; do sleep 0.05; done"
    async with person(said) as client:
        await client.execute(StartSession(command=command, name="job"))
        await text_in_logs(client, "up")
        await client.execute(DrainNode(node="m1", grace=60))
        await text_in_logs(client, "bye")
        async with asyncio.timeout(20):
            while not (ended := await client.session("job")).ended:
                await asyncio.sleep(0.05)
        assert (ended.exit_code, ended.result) == (7, "cancelled")
        assert (await client.node("m1")).status == NodeStatus.DRAINING


async def text_in_logs(client: Client, text: str) -> None:
    async with asyncio.timeout(20):
        while text not in (await client.logs("job")).text:
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_helmsman_agent_joins_and_its_token_is_not_in_the_list_of_processes(place: Place) -> None:
    said = place.serve()
    data = place.root / "m1"
    words = ["--join", said["url"], "--token", token(said), "--name", "m1", "--group", "lab", "--data", str(data)]
    agent = place.cli("agent", *words, "--isolation", "process")
    assert (await there(said, "m1")).resource_group == "lab"
    command = Path(f"/proc/{agent.pid}/cmdline").read_text().split("\0")
    assert "cluster.agents" in command
    assert token(said) not in command
