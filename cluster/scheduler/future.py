"""When will it fit? The known ends of what runs, one after the other."""

from collections.abc import Collection, Sequence
from math import inf
from typing import NamedTuple

import numpy as np

from cluster.scheduler.fleet import Floats, Need
from cluster.scheduler.holdings import Giving, Holdings
from cluster.scheduler.place import Wish, place
from cluster.scheduler.room import Room, Spot
from cluster.scheduler.selectors import Mood, Selector

OVERDUE = 60.0
"""What should have ended is given this many seconds."""


class Ending(NamedTuple):
    """Ranks of `need` at `spots`, for `limit` seconds at most."""

    need: Need
    spots: tuple[Spot, ...]
    limit: float | None


class Future:
    """The room of a group as it becomes free, moving forward only, from now (s since the epoch) on.

    `room` is changed: give it a copy. A session without a time limit ends after all others, nobody knows when.
    """

    def __init__(
        self,
        now: float,
        room: Room,
        holdings: Holdings,
        group: str,
        more: Sequence[Ending] = (),
        leaving: Collection[str] = (),
    ) -> None:
        """`more`: what `room` knows already besides what `holdings` tell. `leaving` end before all others."""
        self.at = self._now = now
        self.room = room
        self._rest = _Ends(now, holdings, group, more, leaving)

    def fit(self, wish: Wish, selector: Selector, mood: Mood) -> tuple[Spot, ...] | None:
        """Move to the first moment at which `wish` has room and say where; None when it never has."""
        while (found := place(self.room, wish, selector, mood)) is None:
            count = self._rest.giving.until(self.room, wish, self._rest.passed)
            if count is None:
                return None
            self.at = max(self.at, self._rest.give(self.room, count))
        return found

    def admit(self, need: Need, spots: tuple[Spot, ...], limit: float | None) -> None:
        """Start something now, at `self.at`; it ends after `limit` seconds."""
        self.room.take(need, spots)
        self._rest.insert(Ending(need, spots, limit), self.at)

    @property
    def known(self) -> bool:
        """`at` does not rest on an end that nobody knows."""
        return self.at < inf


class _Ends:
    """What gives its room back, in the order of the ends; `passed` of them have."""

    def __init__(
        self, now: float, holdings: Holdings, group: str, more: Sequence[Ending], leaving: Collection[str]
    ) -> None:
        rows = holdings.of_group(group)
        ends = np.where(holdings.end[rows] <= now, now + OVERDUE, holdings.end[rows])
        ends[holdings.of(leaving)[rows]] = now
        self.giving = Giving(holdings, rows)
        self.giving.append([(need, spot) for need, spots, _ in more for spot in spots])
        ends = np.concatenate([ends, [_end(limit, now) for _, spots, limit in more for _ in spots]])
        order = np.argsort(ends, kind="stable")
        self.ends: Floats = ends[order]
        self.giving.sort(order)
        self.passed = 0

    def give(self, room: Room, count: int) -> float:
        """Let the first `count`, and all that end at the same moment, end; returns that moment."""
        at = float(self.ends[count - 1])
        count = int(np.searchsorted(self.ends, at, side="right"))
        self.giving.give(room, self.passed, count)
        self.passed = count
        return at

    def insert(self, ending: Ending, now: float) -> None:
        """One more, which begins `now`."""
        self.ends = np.concatenate([self.ends, [_end(ending.limit, now)] * len(ending.spots)])
        self.giving.append([(ending.need, spot) for spot in ending.spots])
        order = np.argsort(self.ends[self.passed :], kind="stable") + self.passed
        order = np.concatenate([np.arange(self.passed), order])
        self.ends = self.ends[order]
        self.giving.sort(order)


def _end(limit: float | None, begun: float) -> float:
    return inf if limit is None else begun + limit
