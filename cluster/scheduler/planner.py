"""One pass: take the waiting sessions in order, start what may start, and say of the rest why not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cluster.models import Reason
from cluster.scheduler import reasons
from cluster.scheduler.feasible import impossible
from cluster.scheduler.fleet import Fleet, Need, Room, need_of
from cluster.scheduler.future import Future
from cluster.scheduler.queue import Queue, by_group, latest
from cluster.scheduler.quota import Quotas
from cluster.scheduler.selectors import Mood, Score, mix_of, place, selector
from cluster.scheduler.state import Group, Placement, Plan, Request, Snapshot

ESTIMATES = 200
"""So many waiting sessions of a group, from the front, get an estimated start."""


def plan(snapshot: Snapshot) -> Plan:
    """Who starts where, who waits, who is held, and why. Pure and deterministic.

    `Invalid` when a group names a policy or selector that does not exist.
    """
    return _Pass(snapshot).run()


@dataclass(slots=True)
class _Reserved:
    """The first waiting session's place: nothing that goes ahead of it may be in its way."""

    at: datetime
    room: Room
    """What is left at `at` when it has started."""


@dataclass(slots=True)
class _Lane:
    """One resource group during the pass."""

    group: Group
    queue: Queue
    score: Score
    mood: Mood
    waiting: list[Request] = field(default_factory=list)
    early: list[Request] = field(default_factory=list)
    reserved: _Reserved | None = None


class _Pass:
    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.now = snapshot.now
        self.fleet = Fleet(snapshot.nodes)
        self.room = Room.of(self.fleet)
        self.quotas = Quotas(snapshot)
        self._start: dict[str, tuple[Placement, ...]] = {}
        self._wait: dict[str, tuple[Reason, ...]] = {}
        self._hold: dict[str, tuple[Reason, ...]] = {}
        self._estimated: dict[str, datetime] = {}
        self._ends: dict[str, list[tuple[tuple[Placement, ...], datetime | None]]] = {}

    def run(self) -> Plan:
        lanes = self._lanes()
        while lane := self._next(lanes):
            self._decide(*lane)
        for each in lanes:
            self._estimate(each)
        return Plan(self._start, self._wait, self._hold, self._estimated)

    # ── order ────────────────────────────────────────────────────────────────────────────────────

    def _lanes(self) -> list[_Lane]:
        lanes: list[_Lane] = []
        for name, requests in sorted(by_group(self.snapshot.pending).items()):
            group = self.snapshot.groups.get(name)
            if group is None:
                self._refuse_all(name, requests)
            else:
                queue = Queue(self.snapshot, group, requests)
                lanes.append(_Lane(group, queue, selector(group.selector), self._mood(name, requests)))
        return lanes

    def _mood(self, group: str, requests: Sequence[Request]) -> Mood:
        last = latest(self.snapshot.running, group)
        return Mood(mix_of(map(need_of, requests)), -1 if last is None else self.fleet.index.get(last, -1))

    def _refuse_all(self, group: str, requests: Sequence[Request]) -> None:
        for request in requests:
            self._wait[request.id] = (reasons.no_group(group, self.snapshot.groups),)

    def _next(self, lanes: Sequence[_Lane]) -> tuple[_Lane, Request] | None:
        """The head of the lane whose head has the highest priority, then waits longest: quotas span groups."""
        heads = [(head[0][0], head[0][2], i, head[1]) for i, lane in enumerate(lanes) if (head := lane.queue.head())]
        if not heads:
            return None
        _, _, i, request = min(heads, key=lambda head: head[:3])
        lanes[i].queue.pop(request)
        return lanes[i], request

    # ── one session ──────────────────────────────────────────────────────────────────────────────

    def _decide(self, lane: _Lane, request: Request) -> None:
        if request.waiting_for:
            self._hold[request.id] = (reasons.depends(request),)
        elif request.start_at and request.start_at > self.now:
            self._wait[request.id] = (reasons.early(request.start_at),)
            lane.early.append(request)
        elif never := self._never(request):
            self._wait[request.id] = never
        elif over := self.quotas.over(request):
            self._hold[request.id] = over
        else:
            self._place(lane, request)

    def _never(self, request: Request) -> tuple[Reason, ...]:
        """Nothing that ends will help it: too large, or only closed nodes could hold it. It blocks nobody."""
        if found := impossible(self.snapshot, self.fleet, request):
            return found
        need = need_of(request)
        able = self.fleet.eligible(need)
        if len(able) >= request.node_count:
            return ()
        shut = [self.fleet.nodes[i] for i in self.fleet.capable(need) if i not in able]
        return (reasons.closed(request.group, request.node_count, len(able), shut),)

    def _place(self, lane: _Lane, request: Request) -> None:
        lane.queue.charge(request)
        need, count = need_of(request), request.node_count
        found = self._find(lane, request, need)
        if found is not None:
            self._begin(lane, request, found)
            return
        self._wait[request.id] = self._why(lane, need, count)
        if not lane.waiting and lane.group.backfill:
            lane.reserved = self._reserve(lane, need, count)
        lane.waiting.append(request)

    def _find(self, lane: _Lane, request: Request, need: Need) -> tuple[Placement, ...] | None:
        if not lane.waiting:
            return place(self.room, need, request.node_count, lane.score, lane.mood)
        if not lane.group.backfill or lane.reserved is None:
            return None
        if self._ends_before(request, lane.reserved.at):
            return place(self.room, need, request.node_count, lane.score, lane.mood)
        both = self.room.floor(lane.reserved.room)
        found = place(both, need, request.node_count, lane.score, lane.mood)
        if found:
            lane.reserved.room.take(found)
        return found

    def _ends_before(self, request: Request, when: datetime) -> bool:
        return request.time_limit is not None and self.now + timedelta(seconds=request.time_limit) <= when

    def _begin(self, lane: _Lane, request: Request, placements: tuple[Placement, ...]) -> None:
        self.room.take(placements)
        self.quotas.charge(request)
        lane.mood.last = self.fleet.index[placements[-1].node]
        self._start[request.id] = placements
        end = None if request.time_limit is None else self.now + timedelta(seconds=request.time_limit)
        self._ends.setdefault(lane.group.name, []).append((placements, end))

    def _why(self, lane: _Lane, need: Need, count: int) -> tuple[Reason, ...]:
        fits = place(self.room, need, count, lane.score, lane.mood) is not None
        short = () if fits else reasons.no_room(self.room, need, count)
        if not lane.waiting:
            return short
        ahead = [request.name for request in lane.waiting]
        return (*short, reasons.behind(lane.group.name, ahead, fits=fits, backfill=lane.group.backfill))

    # ── later ────────────────────────────────────────────────────────────────────────────────────

    def _future(self, lane: _Lane) -> Future:
        future = Future(self.now, self.room.copy(), lane.score, lane.mood)
        future.expect_all(self.snapshot.running, lane.group.name)
        for placements, end in self._ends.get(lane.group.name, []):
            future.expect(placements, end)
        return future

    def _reserve(self, lane: _Lane, need: Need, count: int) -> _Reserved | None:
        future = self._future(lane)
        placements = future.fit(need, count)
        if placements is None:
            return None
        future.room.take(placements)
        return _Reserved(future.at, future.room)

    def _estimate(self, lane: _Lane) -> None:
        """The earliest start of those that wait, each after those ahead of it."""
        future = self._future(lane)
        for request in lane.waiting[:ESTIMATES]:
            found = future.fit(need_of(request), request.node_count)
            if found is None or future.known is None:
                break
            future.admit(found, request.time_limit)
            self._estimated[request.id] = future.at
        for request in lane.early:
            self._estimated[request.id] = max(request.start_at or self.now, self.now)
