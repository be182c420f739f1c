"""One pass: take the waiting sessions in order, start what may start, make room where somebody has a right to it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cluster.models import Reason
from cluster.scheduler import explain, preempt
from cluster.scheduler.board import Board, Started
from cluster.scheduler.place import Reserved, Wish, place
from cluster.scheduler.plan import Plan
from cluster.scheduler.queue import Bucket, Key, Kind, Lane, Turns
from cluster.scheduler.room import Spot
from cluster.scheduler.selectors import Mood, Selector, selector
from cluster.scheduler.state import Group, Request, Snapshot


def plan(state: Snapshot | Board, now: datetime | None = None) -> Plan:
    """Who starts where, who gives way, who waits, who is held, and why. Pure and deterministic: a board is afterwards
    as it was before. `now` is the snapshot's when left out; a board has none.

    `Invalid` when a group names a policy or selector that does not exist.
    """
    if isinstance(state, Snapshot):
        return _Pass(Board.of(state), now or state.now).run()
    if now is None:
        raise TypeError("a board has no time of its own: say what time it is")
    return _Pass(state, now).run()


@dataclass(slots=True)
class _Lane:
    """One resource group during the pass."""

    group: Group
    lane: Lane
    share: Callable[[str], float]
    turns: Turns
    selector: Selector
    mood: Mood
    most: tuple[int, int, int, int]
    """The most that is free on one node of each thing, when the pass began."""
    head: Request | None = None
    """The first that found no room: all others are behind it."""
    reserved: Reserved | None = None
    at: float = 0.0
    """When the head has its room (s since the epoch)."""


class _Pass:
    def __init__(self, board: Board, now: datetime) -> None:
        self.board, self.now = board, now
        self.time = now.timestamp()
        self.started: list[Started] = []
        self.preempt: dict[str, Reason] = {}
        self.over: list[tuple[Lane, Bucket]] = []
        """What found its quota used up."""

    def run(self) -> Plan:
        board = self.board
        board.wake(self.now)
        board.room.forget()
        lanes = [self._lane(name) for name in sorted(board.lanes)]
        try:
            while (found := _next(lanes)) is not None:
                self._decide(*found)
        finally:
            for each in self.started:
                board.count_in(each, -1)
        for lane, bucket in self.over:
            board.parking.look(lane, bucket)
        return Plan(board, self.now, tuple(self.started), self.preempt, tuple(bucket for _, bucket in self.over))

    def _lane(self, name: str) -> _Lane:
        group, lane = self.board.groups[name], self.board.lanes[name]
        chosen = selector(group.selector)
        share = explain.share_of(self.board, group, self.time)
        mood, most = self.board.mood(name), self.board.room.maxima(name)
        return _Lane(group, lane, share, Turns(lane, share), chosen, mood, most)

    # ── one session ──────────────────────────────────────────────────────────────────────────────

    def _decide(self, lane: _Lane, bucket: Bucket, request: Request) -> None:
        board, wish = self.board, bucket.wish
        late = lane.head is not None and not self._in_time(lane, bucket.limit)
        if len(board.fleet.eligible(wish.need)) < wish.count:
            lane.turns.go_on(drop=True)  # nothing that ends will help it: it blocks nobody
        elif over := board.quotas.over(bucket.user, bucket.project, bucket.amounts):
            self.preempt |= preempt.for_quota(board, request, over, self.preempt, self.now)
            self.over.append((lane.lane, bucket))
            lane.turns.go_on(drop=True)
        elif (spots := self._find(lane, wish, late)) is not None:
            self._begin(lane, bucket, request, spots, late)
        elif lane.head is None:
            self._stop(lane, request, wish)
        else:
            lane.turns.close(bucket.kind)

    def _in_time(self, lane: _Lane, limit: float | None) -> bool:
        """A session of that time limit has ended when the head has its room."""
        return limit is not None and self.time + limit <= lane.at

    def _find(self, lane: _Lane, wish: Wish, late: bool) -> tuple[Spot, ...] | None:
        if self.board.room.hopeless(wish.need, lane.most):
            return None
        return place(self.board.room, wish, lane.selector, lane.mood, lane.reserved if late else None)

    def _begin(self, lane: _Lane, bucket: Bucket, request: Request, spots: tuple[Spot, ...], late: bool) -> None:
        each = Started(request, bucket, spots)
        self.board.count_in(each)
        if late and lane.reserved is not None:
            lane.reserved.take(bucket.wish.need, spots)
        lane.mood.last = spots[-1].node
        self.started.append(each)
        lane.turns.go_on()

    # ── nobody passes the first that waits ───────────────────────────────────────────────────────

    def _stop(self, lane: _Lane, head: Request, wish: Wish) -> None:
        """The order ends here; with backfill those go on that the head does not feel."""
        lane.head = head
        self.preempt |= preempt.for_room(self.board, head, wish, lane.selector, lane.mood, self.preempt, self.now)
        kinds: list[Kind] = []
        if lane.group.backfill:
            if not preempt.by_right(self.board, lane.group.name, self.preempt):
                self._reserve(lane, wish)
            kinds = self._open(lane)
        gone = Counter(id(each.bucket) for each in self.started)
        lane.turns = Turns(lane.lane, lane.share, kinds, gone)

    def _reserve(self, lane: _Lane, wish: Wish) -> None:
        future = explain.future_of(self.board, lane.group.name, self.time, self.started, self.preempt)
        spots = future.fit(wish, lane.selector, lane.mood)
        if spots is not None:
            future.room.take(wish.need, spots)
            lane.at, lane.reserved = future.at, Reserved.of(future.room, spots)

    def _open(self, lane: _Lane) -> list[Kind]:
        """The kinds that have room now and would not be in the head's way."""
        room: dict[tuple[Wish, bool], bool] = {}
        found: list[Kind] = []
        for wish, limit in lane.lane.kinds:
            key = wish, not self._in_time(lane, limit)
            if key not in room:
                room[key] = self._find(lane, *key) is not None
            if room[key]:
                found.append(lane.lane.kinds[wish, limit])
        return found


def _next(lanes: list[_Lane]) -> tuple[_Lane, Bucket, Request] | None:
    """The head of the lane whose head has the highest priority, then waits longest: quotas span groups."""
    best: tuple[Key, _Lane, Bucket, Request] | None = None
    for lane in lanes:
        head = lane.turns.head()
        if head is not None and (best is None or (head[0][0], head[0][2]) < (best[0][0], best[0][2])):
            best = head[0], lane, head[1], head[2]
    return best[1:] if best else None
