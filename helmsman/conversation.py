"""What a face (terminal, web, ask) can do with a conversation. `helmsman.session.Session` is the real one."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from cluster.models import Names
from helmsman.events import Decision, Event


@dataclass(frozen=True)
class ThreadInfo:
    """A past conversation, for /resume."""

    id: str
    title: str
    """Its first line."""
    updated: str
    """ISO 8601."""
    turns: int


class Conversation(Protocol):
    """One thread. Several processes may hold the same thread; the store keeps them in step."""

    thread: str

    async def send(self, text: str, face: str) -> None:
        """Take a line: a new request, or, while a question is open, its answer ("no, instead …"). Returns when the turn
        has ended or a question is open. Raises `helmsman.errors.Busy` while another face's turn is running."""
        ...

    async def decide(
        self,
        question: str,
        digest: str,
        decision: Decision,
        face: str,
        comment: str | None = None,
        edited: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        """Answer a plan card. `edited` (with "edit"): call id -> new arguments; they are previewed and asked again.
        Raises `helmsman.errors.Stale` when that question is no longer open or has another digest."""
        ...

    async def stop(self) -> None:
        """Stop the running turn of this thread; it ends with TurnEnded(stopped) that says what had already happened."""
        ...

    def events(self, after: int = 0, follow: bool = True) -> AsyncIterator[Event]:
        """Stored events with seq > after, then (with `follow`) those that come, from whichever process."""
        ...

    async def names(self) -> Names:
        """What exists, for completion; cached for some seconds."""
        ...

    async def threads(self) -> list[ThreadInfo]:
        """Past conversations, newest first."""
        ...
