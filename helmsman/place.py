"""Where a conversation takes place: the cluster that the settings name, the embedded one, or a simulated one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.client import Client
from cluster.models import S
from helmsman.errors import BadConfig
from helmsman.settings import Settings, secret

if TYPE_CHECKING:
    from cluster.simulator.world import World


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Client]:
    """A client of the cluster; the embedded one is started when it isn't running."""
    url, token = await _address(settings)
    client = Client.connect(url, token)
    try:
        yield client
    finally:
        await client.close()


async def _address(settings: Settings) -> tuple[str, str]:
    cluster = settings.cluster
    if cluster.url is None:
        from helmsman.embedded import ensure_running

        endpoint = await ensure_running(settings.data_dir)
        return endpoint.url, endpoint.token
    token = secret(cluster.token, cluster.token_file, "The cluster's token")
    if not token:
        raise BadConfig(
            S("The cluster at {url} needs a token: set token or token_file under [cluster].", url=cluster.url)
        )
    return cluster.url, token


@asynccontextmanager
async def simulate(scenario: Path | None, user: str | None = None) -> AsyncIterator[tuple[Client, "World"]]:
    """A simulated cluster in this process, and a client of `user` (an admin of the scenario when left out).

    Without `scenario` it is the demonstration's. Raises `ScenarioError`, or `NotFound` for an unknown user.
    """
    from cluster.simulator.world import DEMO, World

    world = await World.open(scenario or DEMO)
    client = world.client(user)
    try:
        yield client, world
    finally:
        await client.close()
        await world.close()
