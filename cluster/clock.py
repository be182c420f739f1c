"""Time, as an argument: the wall clock in production, a virtual one in simulator, replay and tests."""

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware, UTC."""
        ...


class WallClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class VirtualClock:
    """Stands still until it is moved."""

    def __init__(self, start: datetime) -> None:
        self._now = start.astimezone(UTC)

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> datetime:
        """Move forward by `by` (never back) and return the new time."""
        self._now += max(by, timedelta(0))
        return self._now

    def advance_to(self, when: datetime) -> datetime:
        return self.advance(when - self._now)
