"""A cluster in process, on a virtual clock, with nodes that a test plays by hand."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from cluster.api.app import create_app
from cluster.client import Client
from cluster.clock import VirtualClock
from cluster.core import Core
from cluster.db.tables import MemberRow, ProjectRow, UserRow
from cluster.simulator.lab import Lab


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    clock = VirtualClock(datetime(2026, 3, 2, 9, 0, tzinfo=UTC))
    core = await Core.open(tmp_path / "cluster.db", clock=clock, data_dir=tmp_path, name="lab")
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
