"""What keeps something in the state that was asked for, pass after pass: endpoints, runs of pipelines, clones."""

from datetime import datetime
from typing import Protocol


class Keeper(Protocol):
    """Looked at after every scheduling pass (`Core.keepers`). It finds out what is missing from what is written, never
    from what it did before: a crash between two steps leaves nothing to be remembered."""

    async def load(self) -> None:
        """Once, when the core opens: find what a crash left under way."""

    async def step(self) -> bool:
        """Do what can be done now, in transactions of its own (`Core.writer`); cheap when there is nothing. True if
        something changed, so that another pass is worth while. Never waits for a network or a large file."""

    def due(self) -> datetime | None:
        """When it wants to be asked again if nothing happens before; for clocks that are moved by hand."""

    async def close(self) -> None:
        """End what it runs in the background."""
