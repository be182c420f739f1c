"""The cluster of this machine: real server, real agent, real processes."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from cluster.client import Client
from cluster.errors import Unavailable
from cluster.models import Session, SessionResult, StartSession, TerminateSessions
from helmsman import embedded
from helmsman.embedded import Endpoint, ensure_running, find, stop

pytestmark = pytest.mark.slow


class Home:
    """Where one test's cluster lives."""

    def __init__(self, root: Path) -> None:
        self.data, self.state = root / "data", root / "state"

    async def up(self) -> Endpoint:
        return await ensure_running(self.data, self.state)

    async def down(self) -> str:
        return str(await stop(self.data, self.state))

    def pid(self, name: str) -> int:
        file = {"server": self.data / "cluster" / "server.json", "agent": self.data / "node" / "agent.json"}[name]
        return int(json.loads(file.read_text())["pid"])

    async def kill(self, name: str) -> None:
        """`kill -9`, and wait until it is gone."""
        process = psutil.Process(self.pid(name))
        process.kill()
        await until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


async def until(true: Callable[[], object], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.05)


async def when(
    ask: Callable[[], Awaitable[Session]], true: Callable[[Session], object], seconds: float = 30
) -> Session:
    """The session once `true` holds of it."""
    async with asyncio.timeout(seconds):
        while not true(session := await ask()):
            await asyncio.sleep(0.1)
    return session


async def start(client: Client, command: str, name: str, **more: object) -> str:
    outcome = await client.execute(
        StartSession.model_validate({"command": command, "name": name, "type": "batch", **more})
    )
    assert outcome.refused == []
    assert outcome.session
    return outcome.session.id


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    made = Home(tmp_path)
    yield made
    endpoint = await find(made.data)
    if endpoint:
        client = Client.connect(endpoint.url, endpoint.token)
        live = [s.id for s in (await client.sessions()).items]
        if live:
            await client.execute(TerminateSessions(sessions=live, force=True))
            for each in live:
                await when(lambda each=each: client.session(each), lambda s: s.ended)  # type: ignore[misc]
        await client.close()
    await made.down()


async def test_the_first_start_gives_a_node_that_really_runs_things(home: Home, tmp_path: Path) -> None:
    endpoint = await home.up()
    client = Client.connect(endpoint.url, endpoint.token)
    node = (await client.nodes()).items[0]
    assert node.capacity.cpu >= 1
    ident = await start(client, "echo hello; pwd > here.txt", "first", workdir=str(tmp_path))
    session = await when(lambda: client.session(ident), lambda s: s.ended)
    assert (session.result, session.exit_code) == (SessionResult.SUCCESS, 0)
    assert (await client.logs(ident)).text == "hello\n"
    assert (tmp_path / "here.txt").read_text().strip() == str(tmp_path)
    await client.close()


async def test_two_chats_at_once_start_one_cluster_and_the_second_time_nothing_is_started(home: Home) -> None:
    first, second = await asyncio.gather(home.up(), home.up())
    before = home.pid("server"), home.pid("agent")
    assert first == second == await home.up()
    assert before == (home.pid("server"), home.pid("agent"))


async def test_kill_9_of_server_and_agent_loses_nothing(home: Home, tmp_path: Path) -> None:
    endpoint = await home.up()
    client = Client.connect(endpoint.url, endpoint.token)
    go, command = tmp_path / "go", "echo up; while [ ! -e go ]; do sleep 0.05; done; echo done; exit 3"
    ident = await start(client, command, "survivor", workdir=str(tmp_path))
    await when(lambda: client.session(ident), lambda s: s.state == "running")
    await home.kill("server")
    await home.kill("agent")
    go.touch()
    endpoint = await home.up()
    await client.close()
    client = Client.connect(endpoint.url, endpoint.token)
    session = await when(lambda: client.session(ident), lambda s: s.ended)
    assert (session.exit_code, (await client.logs(ident)).text) == (3, "up\ndone\n")
    await client.close()


@pytest.mark.parametrize("missing", ["server", "agent"])
async def test_only_what_is_missing_is_started_again(home: Home, missing: str) -> None:
    await home.up()
    before = {name: home.pid(name) for name in ("server", "agent")}
    await home.kill(missing)
    await home.up()
    after = {name: home.pid(name) for name in ("server", "agent")}
    assert [name for name in before if before[name] != after[name]] == [missing]


async def test_down_leaves_sessions_running_and_up_finds_them_again(home: Home) -> None:
    assert await home.down() == "The cluster of this machine was not running."
    endpoint = await home.up()
    client = Client.connect(endpoint.url, endpoint.token)
    ident = await start(client, "sleep 300", "long")
    await when(lambda: client.session(ident), lambda s: s.state == "running")
    await client.close()
    assert "1 sessions go on" in await home.down()
    endpoint = await home.up()
    client = Client.connect(endpoint.url, endpoint.token)
    assert (await client.session(ident)).state == "running"
    await client.execute(TerminateSessions(sessions=[ident]))
    session = await when(lambda: client.session(ident), lambda s: s.ended)
    assert session.result == SessionResult.CANCELLED
    await client.close()


async def test_a_server_that_cannot_start_is_one_sentence_with_its_last_words(home: Home) -> None:
    (home.data / "cluster" / "cluster.db").mkdir(parents=True)
    with pytest.raises(Unavailable, match=r"The cluster's server did not start: .+\. Its log: .*server\.log"):
        await home.up()
    assert embedded._process(home.data / "node" / "agent.json") is None


async def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a directory should be")
    with pytest.raises(Unavailable, match=r"Helmsman cannot write to .*data"):
        await ensure_running(tmp_path / "data", tmp_path / "state")


async def test_a_number_in_server_json_that_belongs_to_somebody_else_is_not_taken_for_the_server(home: Home) -> None:
    (home.data / "cluster").mkdir(parents=True)
    said = {"pid": os.getpid(), "url": "http://127.0.0.1:9", "user_token": str(home.data / "user.token")}
    (home.data / "cluster" / "server.json").write_text(json.dumps(said))
    assert await find(home.data) is None
    assert await home.down() == "The cluster of this machine was not running."
