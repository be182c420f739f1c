"""What the terminal needs besides the conversation. `helmsman.session` implements it; `scripted.py` fakes it.

cli ── opener() ──► Opened(conversation, host)
                          │            ├─ cluster: the client, for the welcome, /history and /follow
                          │            ├─ models, use_model: /model
                          │            ├─ approvals, allow, revoke: /approvals
                          │            └─ open: /new, /resume
                          └─ one thread
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from cluster.models import AuditEntry, ClusterStatus, LogPage, Page
from helmsman.conversation import Conversation


class ClusterReads(Protocol):
    """The reads of `cluster.client.Client` that need no model in between."""

    async def status(self) -> ClusterStatus: ...

    async def logs(self, ref: str, tail: int | None = 100, offset: int | None = None) -> LogPage: ...

    async def audit(self, *, user: str | None = None, limit: int | None = None) -> Page[AuditEntry]: ...


@dataclass(frozen=True)
class ModelChoice:
    """A model that can be talked to."""

    name: str
    about: str
    """One line: "in this process", "https://… through the OpenAI API"."""
    current: bool = False


@dataclass(frozen=True)
class Approval:
    """A standing approval: this W tool needs no question when its target fits."""

    id: str
    tool: str
    pattern: str | None = None
    """A name pattern like `test-*`; None fits every name."""


class Host(Protocol):
    """Methods raise `HelmsmanError` (its sentence is shown) where something can't be done."""

    user: str
    """Who asks."""

    @property
    def cluster(self) -> ClusterReads: ...

    async def models(self) -> list[ModelChoice]:
        """What there is to choose from; exactly one is current."""
        ...

    async def use_model(self, name: str) -> None:
        """From the next turn on, in this and later conversations of this process."""
        ...

    async def approvals(self) -> list[Approval]: ...

    async def allow(self, tool: str, pattern: str | None) -> Approval:
        """Add a standing approval; refused for tools that destroy (risk D)."""
        ...

    async def revoke(self, approval: str) -> None: ...

    async def open(self, thread: str | None) -> Conversation:
        """A past conversation, or a new one."""
        ...


@dataclass(frozen=True)
class Opened:
    conversation: Conversation
    host: Host


Opener = Callable[[], Awaitable[Opened]]
"""Connects, loads and opens. The prompt is there already while it runs, so heavy imports belong into
`await asyncio.to_thread(importlib.import_module, …)` inside it. Raises `HelmsmanError` or `ClusterError`."""
