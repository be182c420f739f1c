"""What the web needs besides a single `Conversation`: all of them."""

from typing import Protocol

from cluster.models import Names
from helmsman.conversation import Conversation, ThreadInfo


class Conversations(Protocol):
    """The threads of one person. `helmsman.desk.Desk` is the real one."""

    async def open(self, thread: str | None = None) -> Conversation:
        """The thread of this id, or a new one. Raises `cluster.errors.NotFound` when there is none of this id."""
        ...

    async def threads(self) -> list[ThreadInfo]:
        """Past conversations, newest first."""
        ...

    async def names(self) -> Names:
        """What exists in the cluster, for completion."""
        ...


class Opened:
    """The conversations that this server has opened. One without a line yet is known nowhere else."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations
        self._opened: dict[str, Conversation] = {}

    async def begin(self) -> Conversation:
        """A new one."""
        return self._keep(await self._conversations.open())

    async def get(self, thread: str) -> Conversation:
        """The one of this id. Raises `cluster.errors.NotFound`."""
        return self._opened.get(thread) or self._keep(await self._conversations.open(thread))

    def _keep(self, conversation: Conversation) -> Conversation:
        return self._opened.setdefault(conversation.thread, conversation)
