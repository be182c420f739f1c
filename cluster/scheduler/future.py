"""When will it fit? The known ends of what runs, one after the other."""

from math import inf

import numpy as np

from cluster.scheduler.fleet import Floats, Need
from cluster.scheduler.holdings import Giving, Holdings
from cluster.scheduler.place import Wish, place
from cluster.scheduler.room import Room, Spot
from cluster.scheduler.selectors import Mood, Selector

OVERDUE = 60.0
"""What should have ended is given this many seconds."""


class Future:
    """The room of a group as it becomes free, moving forward only, from now (s since the epoch) on.

    `room` is changed: give it a copy. A session without a time limit ends after all others, nobody knows when.
    """

    def __init__(self, now: float, room: Room, holdings: Holdings, group: str) -> None:
        self.at = self._now = now
        self.room = room
        self._rest = _Ends(now, holdings, group)

    def fit(self, wish: Wish, selector: Selector, mood: Mood) -> tuple[Spot, ...] | None:
        """Move to the first moment at which `wish` has room and say where; None when it never has."""
        while (found := place(self.room, wish, selector, mood)) is None:
            count = self._rest.giving.until(self.room, wish, self._rest.passed)
            if count is None:
                return None
            self.at = max(self.at, self._rest.give(self.room, count))
        return found

    def expect(self, need: Need, spots: tuple[Spot, ...], limit: float | None) -> None:
        """Something that `room` knows already ends `limit` seconds from `self.at`."""
        self._rest.insert(need, spots, inf if limit is None else self.at + limit)

    def admit(self, need: Need, spots: tuple[Spot, ...], limit: float | None) -> None:
        """Start something now, at `self.at`; it ends after `limit` seconds."""
        self.room.take(need, spots)
        self.expect(need, spots, limit)

    @property
    def known(self) -> bool:
        """`at` does not rest on an end that nobody knows."""
        return self.at < inf


class _Ends:
    """What gives its room back, in the order of the ends; `passed` of them have."""

    def __init__(self, now: float, holdings: Holdings, group: str) -> None:
        rows = holdings.of_group(group)
        ends = np.maximum(holdings.end[rows], now)
        ends = np.where(ends <= now, now + OVERDUE, ends)
        order = np.argsort(ends, kind="stable")
        self.ends: Floats = ends[order]
        self.giving = Giving(holdings, rows[order])
        self.passed = 0

    def give(self, room: Room, count: int) -> float:
        """Let the first `count`, and all that end at the same moment, end; returns that moment."""
        at = float(self.ends[count - 1])
        count = int(np.searchsorted(self.ends, at, side="right"))
        self.giving.give(room, self.passed, count)
        self.passed = count
        return at

    def insert(self, need: Need, spots: tuple[Spot, ...], end: float) -> None:
        at = max(int(np.searchsorted(self.ends, end, side="right")), self.passed)
        self.ends = np.insert(self.ends, at, [end] * len(spots))
        self.giving.insert(at, need, spots)
