"""Where a conversation takes place: the cluster that the settings name, the embedded one, or a simulated one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.client import Client
from cluster.errors import NotFound
from cluster.models import S
from helmsman.errors import BadConfig
from helmsman.settings import Settings, secret

if TYPE_CHECKING:
    from cluster.simulator.world import World


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Client]:
    """A client of the cluster; the embedded one is started when it isn't running, also when it dies meanwhile."""
    client = _named(settings) if settings.cluster.url else await _embedded(settings)
    try:
        yield client
    finally:
        await client.close()


async def _embedded(settings: Settings) -> Client:
    from helmsman.embedded import ensure_running
    from helmsman.reconnect import EmbeddedTransport

    endpoint = await ensure_running(settings.data_dir)
    return Client.connect(endpoint.url, endpoint.token, EmbeddedTransport(settings.data_dir, endpoint))


def _named(settings: Settings) -> Client:
    cluster = settings.cluster
    token = secret(cluster.token, cluster.token_file, "The cluster's token")
    url = str(cluster.url)
    if not token:
        raise BadConfig(S("The cluster at {url} needs a token: set token or token_file under [cluster].", url=url))
    return Client.connect(url, token)


@asynccontextmanager
async def simulate(scenario: Path | None, user: str | None = None) -> AsyncIterator[tuple[Client, "World"]]:
    """A simulated cluster in this process, and a client of `user` (an admin of the scenario when left out).

    Without `scenario` it is the demonstration's. Raises `ScenarioError`, or `BadConfig` for an unknown user.
    """
    from cluster.simulator.world import DEMO, World

    world = await World.open(scenario or DEMO)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(world.close)
        client = _as(world, user)
        stack.push_async_callback(client.close)
        yield client, world


def _as(world: "World", user: str | None) -> Client:
    try:
        return world.client(user)
    except NotFound as e:
        raise BadConfig(e.sentence) from e
