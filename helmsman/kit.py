"""What the graph's nodes work with: the model, the tools, the cluster, and the ways out (events, stop)."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import TypeVar

from langchain_core.language_models.chat_models import BaseChatModel
from pydantic import BaseModel

from cluster.client import Client
from helmsman.approve import Rule
from helmsman.events import Happening
from helmsman.once import PATIENCE
from helmsman.turn import Asking, Language
from tools.base import Context
from tools.registry import Registry
from tools.words import say

T = TypeVar("T")
Emit = Callable[[Happening, str | None], Awaitable[None]]
"""Put an event into the stream; the second argument names it, so that a node that runs again does not say it twice."""


class Opened(BaseModel):
    """A question that is put to the person: what the store keeps until it is answered."""

    id: str
    digest: str
    """Empty for a question back."""
    asking: Asking | None = None
    type_word: str | None = None
    """What has to be typed instead of a plain yes."""


Open = Callable[[Opened, Happening], Awaitable[None]]
"""Keep an open question and show it, in one step."""


class Stopped(Exception):
    """The person stopped the turn."""


async def _nothing() -> None:
    return None


@dataclass
class Kit:
    """One conversation's means. `emit`, `open`, `rules` go to the store; `settle` lets a simulated world catch up."""

    model: Callable[[], BaseChatModel]
    """The one in use; it may be changed between two turns."""
    registry: Registry
    client: Client
    user: str
    emit: Emit
    open: Open
    rules: Callable[[], Awaitable[Sequence[Rule]]]
    settle: Callable[[], Awaitable[None]] = _nothing
    workdir: str | None = None
    timezone: tzinfo | None = None
    patience: Sequence[float] = PATIENCE
    """Seconds before a change is asked for again whose reply got lost."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def context(self, language: Language) -> Context:
        """The moment, as tools see it. Raises a `ClusterError` when the cluster doesn't answer."""
        status, names = await asyncio.gather(self.client.status(), self.client.names())
        return Context(
            client=self.client,
            user=self.user,
            now=status.now.astimezone(self.timezone),
            names=names,
            language=language,
            say=lambda sentence: say(sentence, language),
            workdir=self.workdir,
        )

    async def unless_stopped(self, work: Awaitable[T]) -> T:
        """The result of `work`, which is cancelled when the person stops the turn. Raises `Stopped`."""
        doing = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait({doing, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise Stopped
            return doing.result()
        finally:
            for task in (doing, stop):
                task.cancel()
            await asyncio.gather(doing, stop, return_exceptions=True)
