"""What the web needs besides a single `Conversation`: all of them."""

from typing import Protocol

from cluster.models import Names
from helmsman.conversation import Conversation, ThreadInfo


class Conversations(Protocol):
    """The threads of one person. `helmsman.web.hub.Hub` is the real one."""

    async def open(self, thread: str | None = None) -> Conversation:
        """The thread of this id, or a new one. Raises `cluster.errors.NotFound` when there is none of this id."""
        ...

    async def threads(self) -> list[ThreadInfo]:
        """Past conversations, newest first."""
        ...

    async def names(self) -> Names:
        """What exists in the cluster, for completion."""
        ...
