"""When will it fit? The queue is walked through the known ends of what runs."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from heapq import heappop, heappush

from cluster.scheduler.fleet import Need, Room
from cluster.scheduler.selectors import Mood, Score, place
from cluster.scheduler.state import Placement, Running

UNKNOWN = timedelta(days=3650)
"""A session without a time limit is taken to end this much later; no estimate rests on that."""

OVERDUE = timedelta(seconds=60)
"""What should have ended is given this long."""


class Future:
    """The room of a group as it becomes free, moving forward only. `room` is changed: give it a copy."""

    def __init__(self, now: datetime, room: Room, score: Score, mood: Mood) -> None:
        self.at = now
        self.room = room
        self._now, self._score, self._mood = now, score, mood
        self._ends: list[tuple[datetime, int, tuple[Placement, ...]]] = []
        self._count = 0

    def expect(self, placements: tuple[Placement, ...], end: datetime | None) -> None:
        """`placements` become free at `end`, or at an unknown time."""
        self._count += 1
        when = self._now + UNKNOWN if end is None else max(end, self.at + OVERDUE if end <= self._now else end)
        heappush(self._ends, (when, self._count, placements))

    def expect_all(self, running: Iterable[Running], group: str) -> None:
        for session in running:
            if session.group == group:
                self.expect(session.placements, session.ends_by)

    def fit(self, need: Need, count: int) -> tuple[Placement, ...] | None:
        """Move to the first moment at which `count` ranks fit and say where; None when they never do."""
        while (found := place(self.room, need, count, self._score, self._mood)) is None:
            if not self._ends:
                return None
            self._step()
        return found

    def admit(self, placements: tuple[Placement, ...], limit: float | None) -> None:
        """Start something now, at `self.at`."""
        self.room.take(placements)
        self.expect(placements, None if limit is None else self.at + timedelta(seconds=limit))

    @property
    def known(self) -> datetime | None:
        """`at`, unless it rests on an unknown end."""
        return self.at if self.at < self._now + UNKNOWN / 2 else None

    def _step(self) -> None:
        """To the next end, and all that end at the same moment."""
        self.at = self._ends[0][0]
        while self._ends and self._ends[0][0] <= self.at:
            self.room.give(heappop(self._ends)[2])
