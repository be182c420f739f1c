"""Why each session that does not start waits or is held, and when it could start: on the state after the plan."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cluster.models import Reason
from cluster.scheduler import reasons
from cluster.scheduler.board import Board, Started
from cluster.scheduler.feasible import impossible
from cluster.scheduler.future import Ending, Future
from cluster.scheduler.place import Wish, place
from cluster.scheduler.queue import Amounts, Bucket, Turns, amounts, wish_of
from cluster.scheduler.quota import Over
from cluster.scheduler.selectors import selector
from cluster.scheduler.state import Group, Request, Running

ESTIMATES = 200
"""So many waiting sessions of a group, from the front, get an estimated start."""


@dataclass(slots=True)
class Waiting:
    """Every session that does not start is in `wait` or in `hold`."""

    wait: dict[str, tuple[Reason, ...]] = field(default_factory=dict)
    hold: dict[str, tuple[Reason, ...]] = field(default_factory=dict)
    estimated: dict[str, datetime] = field(default_factory=dict)


def share_of(board: Board, group: Group, now: float) -> Callable[[str], float]:
    """What the group's policy compares users by, `now` in s since the epoch."""
    shares = board.shares_of(group.name)
    if group.policy == "drf":
        return shares.dominant
    if group.policy == "fair_share":
        return lambda user: board.past.get(user, 0.0) + shares.used(user, now)
    return lambda user: 0.0


def future_of(
    board: Board, group: str, now: float, started: Sequence[Started], leaving: Collection[str] = ()
) -> Future:
    """The group's room from now on (s since the epoch), `started` being in it and `leaving` about to be stopped."""
    more = [
        Ending(each.bucket.wish.need, each.spots, each.bucket.limit)
        for each in started
        if each.bucket.wish.need.group == group
    ]
    return Future(now, board.room.copy(), board.holdings, group, more, leaving)


def held_ids(board: Board, started: Sequence[Started], over: Sequence[Bucket]) -> frozenset[str]:
    """Ids of those that wait for another session or for their quota, when `started` have started."""
    found: set[str] = set(board.dependent)
    possible: dict[Wish, bool] = {}

    def hold(bucket: Bucket, first: int) -> None:
        if bucket.wish not in possible:
            possible[bucket.wish] = not _nowhere(board, bucket.wish, bucket.items[0][2])
        if possible[bucket.wish]:
            found.update(ident for _, ident, _ in bucket.items.islice(first))

    for bucket in board.parking.aside():
        hold(bucket, 0)
    with _done(board, started) as gone:
        owners = dict.fromkeys((each.request.user, each.request.project) for each in started)
        touched = {id(b): b for owner in owners for b in board.parking.in_line(*owner)} | {id(b): b for b in over}
        for bucket in touched.values():
            if bucket.aside is None and board.quotas.over(bucket.user, bucket.project, bucket.amounts):
                hold(bucket, gone.get(id(bucket), 0))
    return frozenset(found)


def explain(board: Board, now: datetime, started: Sequence[Started]) -> Waiting:
    """Everything about everybody that waits."""
    found = Waiting()
    for request in board.strangers.values():
        why = board.unusable.get(request.group) or reasons.no_group(request.group, board.groups)
        found.wait[request.id] = (why,)
    for request in board.dependent.values():
        found.hold[request.id] = (reasons.depends(request),)
    for request in board.early.values():
        if request.start_at is not None:
            found.wait[request.id] = (reasons.early(request.start_at),)
            found.estimated[request.id] = max(request.start_at, now)
    with _done(board, started) as gone:
        for name in sorted(board.lanes):
            _Lane(board, name, now, started, gone, found).tell()
    return found


class Brief:
    """Why single sessions wait, without who is ahead of them: what it costs does not grow with how many wait."""

    def __init__(self, board: Board, started: Sequence[Started]) -> None:
        self._board, self._started = board, started
        self._known: dict[tuple[str, str, Amounts, Wish], tuple[Reason, ...]] = {}

    def why(self, ident: str) -> tuple[Reason, ...]:
        """Of a waiting session; empty for any other."""
        board = self._board
        request = board.pending.get(ident)
        if request is None:
            return ()
        if ident in board.strangers:
            return (board.unusable.get(request.group) or reasons.no_group(request.group, board.groups),)
        if ident in board.dependent:
            return (reasons.depends(request),)
        if ident in board.early and request.start_at is not None:
            return (reasons.early(request.start_at),)
        like = (request.user, request.project, amounts(request), wish_of(request))
        if like not in self._known:
            self._known[like] = self._of(request, like[2], like[3])
        return self._known[like]

    def _of(self, request: Request, asked: Amounts, wish: Wish) -> tuple[Reason, ...]:
        board, group = self._board, self._board.groups[request.group]
        if never := _nowhere(board, wish, request):
            return never
        with _done(board, self._started):
            if over := board.quotas.over(request.user, request.project, asked):
                return tuple(reasons.over_quota(each, []) for each in over)
            if place(board.room, wish, selector(group.selector), board.mood(group.name)) is None:
                return reasons.no_room(board.room, wish)
        return (reasons.others_first(group.name),)


def _nowhere(board: Board, wish: Wish, request: Request) -> tuple[Reason, ...]:
    """Why nothing that ends will help the class: it is too large, or only closed nodes could hold it."""
    return impossible(board, request) or reasons.shut(board.fleet, wish)


@contextmanager
def _done(board: Board, started: Sequence[Started]) -> Iterator[dict[int, int]]:
    """The board as it will be when `started` have started; how many of each bucket have."""
    gone: dict[int, int] = {}
    try:
        for each in started:
            board.count_in(each)
            gone[id(each.bucket)] = gone.get(id(each.bucket), 0) + 1
        yield gone
    finally:
        for each in started:
            board.count_in(each, -1)


class _Lane:
    """The sessions of one group that still wait, in their order."""

    def __init__(
        self,
        board: Board,
        name: str,
        now: datetime,
        started: Sequence[Started],
        gone: dict[int, int],
        found: Waiting,
    ) -> None:
        self.board, self.now, self.started, self.gone, self.found = board, now, started, gone, found
        self.group, self.lane = board.groups[name], board.lanes[name]
        self.selector, self.mood = selector(self.group.selector), board.mood(name)
        self.shares = board.shares_of(name)
        self._short: dict[Wish, tuple[Reason, ...]] = {}
        self._never: dict[Wish, tuple[Reason, ...]] = {}
        self._holders: dict[tuple[str, str], list[str]] = {}
        self.names: list[str] = []
        self.line: list[tuple[Request, Wish]] = []

    def tell(self) -> None:
        turns = Turns(self.lane, share_of(self.board, self.group, self.now.timestamp()), gone=self.gone)
        charged: list[Bucket] = []
        while (head := turns.head()) is not None:
            _, bucket, request = head
            if self._tell(bucket, request):
                self.shares.charge(bucket.user, bucket.amounts)
                charged.append(bucket)
            turns.go_on()
        for bucket in charged:
            self.shares.charge(bucket.user, bucket.amounts, -1)
        for bucket in self.lane.buckets.values():
            if bucket.aside is not None:
                for _, _, request in bucket.items:
                    self._tell(bucket, request)
        self._estimate()

    def _tell(self, bucket: Bucket, request: Request) -> bool:
        """One session's reasons. True when it stands in line for room."""
        if never := self._could_never(bucket.wish, request):
            self.found.wait[request.id] = never
            return False
        if over := self.board.quotas.over(bucket.user, bucket.project, bucket.amounts):
            self.found.hold[request.id] = tuple(reasons.over_quota(each, self._held_by(each)) for each in over)
            return False
        short = self._why(bucket.wish)
        if self.names:
            behind = reasons.behind(self.group.name, self.names, fits=not short, backfill=self.group.backfill)
            short = (*short, behind)
        self.found.wait[request.id] = short or (reasons.next_pass(),)
        self.names.append(request.name)
        self.line.append((request, bucket.wish))
        return True

    def _held_by(self, over: Over) -> list[str]:
        """Names of the owner's sessions that run or start now."""
        key = over.scope, over.owner
        if key not in self._holders:
            holding: list[Running | Request] = [*self.board.running.values()]
            holding += [each.request for each in self.started]
            mine = [each for each in holding if (each.user if over.scope == "user" else each.project) == over.owner]
            self._holders[key] = [each.name for each in sorted(mine, key=lambda each: each.id)]
        return self._holders[key]

    def _could_never(self, wish: Wish, request: Request) -> tuple[Reason, ...]:
        if wish not in self._never:
            self._never[wish] = _nowhere(self.board, wish, request)
        return self._never[wish]

    def _why(self, wish: Wish) -> tuple[Reason, ...]:
        """What is short for the class; empty when it has room."""
        if wish not in self._short:
            fits = place(self.board.room, wish, self.selector, self.mood) is not None
            self._short[wish] = () if fits else reasons.no_room(self.board.room, wish)
        return self._short[wish]

    # ── later ────────────────────────────────────────────────────────────────────────────────────

    def _estimate(self) -> None:
        """The earliest start of those that wait, each after those ahead of it."""
        future = future_of(self.board, self.group.name, self.now.timestamp(), self.started)
        for request, wish in self.line[:ESTIMATES]:
            spots = future.fit(wish, self.selector, self.mood)
            if spots is None or not future.known:
                break
            future.admit(wish.need, spots, request.time_limit)
            self.found.estimated[request.id] = datetime.fromtimestamp(future.at, UTC)
