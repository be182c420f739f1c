"""Opening everything a chat needs, in order: the cluster, the desk, the model in the background."""

import asyncio
import contextlib
import os
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from cluster.client import Client
from helmsman.desk import Desk, open_desk
from helmsman.errors import HelmsmanError
from helmsman.place import connect, simulate
from helmsman.settings import Settings
from helmsman.turn import Language
from tools.base import Context
from tools.registry import default_registry
from tools.views import View
from tools.words import say


async def enter(
    stack: AsyncExitStack, settings: Settings, scenario: Path | None, simulated: bool, user: str | None
) -> Desk:
    """The desk; `stack` closes all of it in the end. A simulated cluster's conversations end with its process."""
    if simulated:
        desk = await _simulated(stack, settings, scenario, user)
    else:
        client = await stack.enter_async_context(connect(settings))
        desk = await open_desk(settings, client)
        stack.push_async_callback(desk.close)
        desk.workdir = os.getcwd() if settings.cluster.url is None else None
    warming = asyncio.create_task(_warm(desk))
    stack.push_async_callback(_cancel, warming)
    return desk


async def _simulated(stack: AsyncExitStack, settings: Settings, scenario: Path | None, user: str | None) -> Desk:
    client, world = await stack.enter_async_context(simulate(scenario, user))
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="helmsman-demo-"))
    desk = await open_desk(settings, client, Path(folder))
    stack.push_async_callback(desk.close)
    desk.timezone = world.timezone
    living = asyncio.create_task(world.live())
    stack.push_async_callback(_cancel, living)
    return desk


async def _warm(desk: Desk) -> None:
    """Load the embedded model while the person still types; an error waits for the first question."""
    warm = getattr(desk.model, "warm", None)
    if warm is not None:
        with contextlib.suppress(HelmsmanError):
            await asyncio.to_thread(warm)


async def _cancel(task: "asyncio.Task[None]") -> None:
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.5)


async def status_view(client: Client, language: Language) -> View:
    """The cluster's state as the tool `get_cluster_status` shows it."""
    me, status, names = await asyncio.gather(client.whoami(), client.status(), client.names())
    ctx = Context(client, me.name, status.now.astimezone(), names, language, lambda s: say(s, language))
    tool = default_registry().get("get_cluster_status")
    assert tool is not None
    return (await tool.run(ctx, tool.arguments())).view
