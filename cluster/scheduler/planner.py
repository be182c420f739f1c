"""One pass: take the waiting sessions in order, start what may start, make room where somebody has a right to it."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from cluster.models import Reason
from cluster.scheduler import explain, preempt
from cluster.scheduler.board import Board
from cluster.scheduler.place import Reserved, Wish, place
from cluster.scheduler.plan import Plan, Started
from cluster.scheduler.queue import Bucket, Key, Lane, Turns
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
    full: set[Wish] = field(default_factory=set)
    """Classes that have no room now."""
    late: set[Wish] = field(default_factory=set)
    """Classes that would be in the head's way if they stayed beyond `at`."""


class _Pass:
    def __init__(self, board: Board, now: datetime) -> None:
        self.board, self.now = board, now
        self.time = now.timestamp()
        self.started: list[Started] = []
        self.preempt: dict[str, Reason] = {}

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
                self._charge(each, -1)
        return Plan(board, self.now, tuple(self.started), self.preempt)

    def _lane(self, name: str) -> _Lane:
        group, lane = self.board.groups[name], self.board.lanes[name]
        chosen = selector(group.selector)
        turns = Turns.of(lane, explain.share_of(self.board, group, self.time))
        return _Lane(group, lane, turns, chosen, self.board.mood(name), self.board.room.maxima(name))

    # ── one session ──────────────────────────────────────────────────────────────────────────────

    def _decide(self, lane: _Lane, bucket: Bucket, request: Request) -> None:
        board, wish = self.board, bucket.wish
        late = lane.head is not None and not self._in_time(lane, bucket)
        if wish in lane.full or (late and wish in lane.late):
            lane.turns.go_on(drop=True)
        elif len(board.fleet.eligible(wish.need)) < wish.count:
            lane.turns.go_on(drop=True)  # nothing that ends will help it: it blocks nobody
        elif over := board.quotas.over(bucket.user, bucket.project, bucket.amounts):
            self._make_way(preempt.for_quota(board, request, over, self.preempt))
            lane.turns.go_on(drop=True)
        elif (spots := self._find(lane, wish, late)) is not None:
            self._begin(lane, bucket, request, spots, late)
        else:
            (lane.late if late and wish not in lane.full else lane.full).add(wish)
            if lane.head is None:
                self._stop(lane, request, wish)
            else:
                lane.turns.go_on(drop=True)

    def _in_time(self, lane: _Lane, bucket: Bucket) -> bool:
        """It has ended when the head has its room."""
        return bucket.limit is not None and self.time + bucket.limit <= lane.at

    def _find(self, lane: _Lane, wish: Wish, late: bool) -> tuple[Spot, ...] | None:
        if self.board.room.hopeless(wish.need, lane.most):
            lane.full.add(wish)
            return None
        return place(self.board.room, wish, lane.selector, lane.mood, lane.reserved if late else None)

    def _begin(self, lane: _Lane, bucket: Bucket, request: Request, spots: tuple[Spot, ...], late: bool) -> None:
        each = Started(request, bucket, spots)
        self._charge(each, 1)
        if late and lane.reserved is not None:
            lane.reserved.take(bucket.wish.need, spots)
        lane.mood.last = spots[-1].node
        self.started.append(each)
        lane.turns.go_on()

    def _charge(self, each: Started, sign: int) -> None:
        """The session starts; with `sign` -1 it has not after all."""
        bucket, room = each.bucket, self.board.room
        (room.take if sign > 0 else room.give)(bucket.wish.need, each.spots)
        self.board.quotas.charge(bucket.user, bucket.project, bucket.amounts, sign)
        self.board.shares_of(bucket.wish.need.group).charge(bucket.user, bucket.amounts, sign)

    # ── nobody passes the first that waits ───────────────────────────────────────────────────────

    def _stop(self, lane: _Lane, head: Request, wish: Wish) -> None:
        """The order ends here; with backfill those go on that the head does not feel."""
        lane.head = head
        self._make_way(preempt.for_room(self.board, head, wish, lane.selector, lane.mood, self.preempt))
        if not lane.group.backfill:
            lane.turns = Turns([], lambda _: 0.0)
            return
        self._reserve(lane, wish)
        gone = Counter(id(each.bucket) for each in self.started)
        left = [(bucket, gone[id(bucket)]) for bucket in self._hopeful(lane)]
        lane.turns = Turns.only(lane.lane, left, explain.share_of(self.board, lane.group, self.time))

    def _reserve(self, lane: _Lane, wish: Wish) -> None:
        future = explain.future_of(self.board, lane.group.name, self.time, self.started)
        spots = future.fit(wish, lane.selector, lane.mood)
        if spots is not None:
            future.room.take(wish.need, spots)
            lane.at, lane.reserved = future.at, Reserved.of(future.room, spots)

    def _hopeful(self, lane: _Lane) -> list[Bucket]:
        """The buckets of the classes that have room now."""
        found: list[Bucket] = []
        for wish, buckets in lane.lane.classes.items():
            if wish not in lane.full and self._find(lane, wish, late=False) is not None:
                found += buckets.values()
            else:
                lane.full.add(wish)
        return found

    def _make_way(self, victims: dict[str, Reason]) -> None:
        self.preempt |= victims


def _next(lanes: list[_Lane]) -> tuple[_Lane, Bucket, Request] | None:
    """The head of the lane whose head has the highest priority, then waits longest: quotas span groups."""
    best: tuple[Key, _Lane, Bucket, Request] | None = None
    for lane in lanes:
        head = lane.turns.head()
        if head is not None and (best is None or (head[0][0], head[0][2]) < (best[0][0], best[0][2])):
            best = head[0], lane, head[1], head[2]
    return best[1:] if best else None
