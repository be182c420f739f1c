"""`python -m cluster.server` on PostgreSQL, as a process: told where by word or environment, killed, and left alone."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import URL

from cluster.client import Client
from cluster.db.temporary import outside
from cluster.models import CreateFolder
from evals.chaos.house import Daemon

pytestmark = pytest.mark.slow
SECRET = "hunter2"


class Served(Daemon):
    """The server, its data in a folder of its name."""

    def __init__(self, folder: Path, *more: str) -> None:
        super().__init__(folder.name, ["cluster.server", "--data", str(folder), *more], folder)

    def up(self) -> "Served":
        self.start()
        deadline = time.monotonic() + 30
        while not self.said or self.said["pid"] != self.process.pid:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "the server did not announce itself"
            time.sleep(0.02)
        return self

    @property
    def said(self) -> dict[str, Any]:
        file = self.folder / "server.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def refused(self) -> str:
        """The one sentence with which it ends."""
        self.start()
        assert self.process.wait(30) == 1
        (line,) = self.log.read_text().splitlines()
        return line

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        client = Client.connect(self.said["url"], Path(self.said["user_token"]).read_text().strip())
        yield client
        await client.close()


@pytest.fixture
async def url(postgres: Any) -> AsyncIterator[URL]:
    url = await postgres.fresh()
    yield url.set(password=SECRET)  # which this server does not ask for
    await postgres.drop(url)


@pytest.fixture
def server(tmp_path: Path, url: URL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("HELMSMAN_DATABASE", url.render_as_string(hide_password=False))
    made = Served(tmp_path / "data")
    made.up()
    monkeypatch.delenv("HELMSMAN_DATABASE")
    yield made
    if made.process.poll() is None:
        made.kill()


async def folders(served: Served) -> list[str]:
    async with served.client() as client:
        return [folder.name for folder in (await client.folders()).items]


async def test_it_stays_with_its_database_and_keeps_no_password(server: Served, url: URL) -> None:
    async with server.client() as client:
        assert not (await client.execute(CreateFolder(name="cats"))).refused
    server.kill()
    assert await folders(server.up()) == ["cats"]
    assert not (server.folder / "cluster.db").exists()
    words = Path(f"/proc/{server.process.pid}/cmdline").read_bytes().decode()
    kept = [path.read_text(errors="replace") for path in server.folder.rglob("*") if path.is_file()]
    assert SECRET not in " ".join([words, server.log.read_text(), *kept])
    assert (server.folder / "database").stat().st_mode & 0o777 == 0o600
    assert await outside(url, "SELECT name FROM folders") == [("cats",)]
    server.stop()
    assert server.fell == []


async def test_another_server_on_another_folder_does_not_get_it(server: Served, url: URL, tmp_path: Path) -> None:
    second = Served(tmp_path / "second", "--database", url.render_as_string(hide_password=False))
    said = await asyncio.to_thread(second.refused)
    assert "Another server uses the database" in said
    assert SECRET not in said
    assert not (second.folder / "database").exists()
    assert await folders(server) == []


async def test_who_changes_the_database_can_log_in_all_the_same(server: Served) -> None:
    server.stop()
    with_file = Served(server.folder, "--database", "file").up()
    assert await folders(with_file) == []
    assert not (server.folder / "database").exists()
    with_file.stop()


async def test_while_the_database_is_away_it_says_so_and_goes_on_and_can_be_ended(
    server: Served, postgres: Any
) -> None:
    async with server.client() as client:
        assert not (await client.execute(CreateFolder(name="cats"))).refused
        await asyncio.to_thread(postgres.server.stop)
        try:
            token = Path(server.said["user_token"]).read_text().strip()
            async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as http:
                reply = await http.get(f"{server.said['url']}/v1/folders")
            assert (reply.status_code, reply.json()["code"]) == (503, "unavailable")
            assert [r.code for r in (await client.execute(CreateFolder(name="dogs"))).refused] == ["unavailable"]
        finally:
            await asyncio.to_thread(postgres.server.start)
        assert not (await client.execute(CreateFolder(name="dogs"))).refused
    assert await folders(server) == ["cats", "dogs"]
    await asyncio.to_thread(postgres.server.stop)
    try:
        await asyncio.to_thread(server.stop)
    finally:
        await asyncio.to_thread(postgres.server.start)
    assert server.fell == []
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("address", ["postgresql://ann:hunter2@127.0.0.1:1/helm", "mysql://ann:hunter2@db/helm"])
def test_an_address_that_does_not_work_is_one_sentence(tmp_path: Path, address: str) -> None:
    said = Served(tmp_path / "data", "--database", address).refused()
    assert SECRET not in said
    assert not (tmp_path / "data" / "database").exists()
