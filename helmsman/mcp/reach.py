"""The cluster behind the server: that of the settings, this machine's, or a simulated one."""

import asyncio
import contextlib
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path

import httpx

from cluster.client import Client
from helmsman.place import connect, simulate
from helmsman.settings import Settings


@dataclass(frozen=True)
class Which:
    """What the command line says about the cluster."""

    settings: Settings
    scenario: Path | None = None
    simulated: bool = False
    user: str | None = None


@dataclass(frozen=True)
class Mine:
    """The cluster, as the person of this machine."""

    client: Client
    timezone: tzinfo | None = None
    workdir: str | None = None


@dataclass(frozen=True)
class Anybodys:
    """The cluster, as whoever brings a token of it."""

    url: str
    transport: httpx.AsyncBaseTransport
    timezone: tzinfo | None = None
    token: str | None = None
    """One to begin with; a simulated cluster has no other way to get one."""

    def client(self, token: str) -> Client:
        """Needs no closing: all share the transport."""
        return Client.connect(self.url, token, self.transport)


async def mine(stack: AsyncExitStack, which: Which) -> Mine:
    """`stack` closes it in the end."""
    if which.simulated:
        client, world = await stack.enter_async_context(simulate(which.scenario, which.user))
        _let_live(stack, asyncio.create_task(world.live()))
        return Mine(client, world.timezone)
    settings = which.settings
    client = await stack.enter_async_context(connect(settings))
    return Mine(client, workdir=os.getcwd() if settings.cluster.url is None else None)


async def anybodys(stack: AsyncExitStack, which: Which) -> Anybodys:
    """`stack` closes it in the end. The token of the settings is not used: every caller brings one."""
    url = which.settings.cluster.url
    if which.simulated:
        client, world = await stack.enter_async_context(simulate(which.scenario, which.user))
        _let_live(stack, asyncio.create_task(world.live()))
        token = world.core.tokens.passing((await client.whoami()).name)
        return Anybodys("http://simulated", httpx.ASGITransport(world.app), world.timezone, token)
    url, transport = (str(url), httpx.AsyncHTTPTransport()) if url else await _embedded(which.settings)
    stack.push_async_callback(transport.aclose)
    return Anybodys(url, transport)


async def _embedded(settings: Settings) -> tuple[str, httpx.AsyncBaseTransport]:
    from helmsman.embedded import ensure_running
    from helmsman.reconnect import EmbeddedTransport

    endpoint = await ensure_running(settings.data_dir)
    return endpoint.url, EmbeddedTransport(settings.data_dir, endpoint)


def _let_live(stack: AsyncExitStack, living: "asyncio.Task[None]") -> None:
    async def end() -> None:
        while not living.done():
            living.cancel()
            await asyncio.wait({living}, timeout=0.5)
        with contextlib.suppress(asyncio.CancelledError, Exception):
            living.result()

    stack.push_async_callback(end)
