"""A cluster in process, on a virtual clock, with nodes that a test plays by hand; on SQLite, and where it matters on
PostgreSQL as well."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from sqlalchemy import URL

from cluster.api.app import create_app
from cluster.client import Client
from cluster.clock import VirtualClock
from cluster.core import Core
from cluster.db.engine import Database, Where
from cluster.db.tables import MemberRow, ProjectRow, UserRow
from cluster.db.temporary import Missing, Server
from cluster.simulator.lab import Lab

ON_BOTH = (
    "test_core_",
    "test_storage_",
    "test_db_",
    "test_pipelines_runs",
    "test_journal_chain",
    "test_serving_endpoints",
)
"""Files (how their names begin) whose tests run on both database programs."""
ON_ONE = (
    "test_core_api",
    "test_core_standing",
    "test_core_server",
    "test_db_copy",
    "test_db_postgres",
    "test_db_server",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    name = metafunc.module.__name__.rpartition(".")[2]
    if "where" in metafunc.fixturenames and name.startswith(ON_BOTH) and not name.startswith(ON_ONE):
        metafunc.parametrize("where", ["sqlite", "postgresql"], indirect=True)


class Databases:
    """A PostgreSQL server, and fresh databases on it: copies of one whose schema is up to date."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._count = 0

    async def fresh(self) -> URL:
        """A new one, with the schema in it."""
        if self._count == 0:
            await self.server.sql("CREATE DATABASE pattern")
            await (await Database.open(self.server.url("pattern"))).close()
        self._count += 1
        await self.server.sql(f"CREATE DATABASE lab{self._count} TEMPLATE pattern")
        return self.server.url(f"lab{self._count}")

    async def drop(self, url: URL) -> None:
        await self.server.sql(f"DROP DATABASE {url.database} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Databases]:
    """One server for all tests."""
    try:
        server = Server.make()
    except Missing as e:
        pytest.skip(str(e))
    yield Databases(server)
    server.close()


@pytest.fixture
async def where(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Where]:
    """A new database: a file that is not there yet, or one of PostgreSQL's."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield tmp_path / "cluster.db"
        return
    databases: Databases = request.getfixturevalue("postgres")
    url = await databases.fresh()
    yield url
    await databases.drop(url)


@pytest.fixture
async def lab(tmp_path: Path, where: Where) -> AsyncIterator[Lab]:
    clock = VirtualClock(datetime(2026, 3, 2, 9, 0, tzinfo=UTC))
    core = await Core.open(where, clock=clock, data_dir=tmp_path, name="lab")
    async with core.db.write() as db:
        db.add_all([ProjectRow(name="red"), ProjectRow(name="blue"), UserRow(name="boss", role="admin")])
        db.add_all([UserRow(name=n, role="user") for n in ("ann", "bob", "eve")])
        await db.flush()
        db.add_all(
            [
                MemberRow(project=p, user=u)
                for p, u in (("red", "ann"), ("red", "bob"), ("blue", "eve"), ("red", "boss"))
            ]
        )
    transport = httpx.ASGITransport(create_app(core))
    clients = [Client.connect("http://lab", await core.token_for(n), transport) for n in ("boss", "ann", "bob", "eve")]
    yield Lab(core, clock, *clients)
    for client in clients:
        await client.close()
    await core.close()
