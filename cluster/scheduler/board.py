"""The scheduler's picture of the cluster, kept up to date change by change: what `plan` looks at."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from heapq import heappop, heappush

from cluster.models import Reason
from cluster.scheduler.fleet import Fleet, Need, need_for, units
from cluster.scheduler.fragmentation import USUAL, Asked
from cluster.scheduler.holdings import Holdings
from cluster.scheduler.parking import Parking
from cluster.scheduler.queue import Amounts, Bucket, Lane, checked, wish_of
from cluster.scheduler.quota import Quotas
from cluster.scheduler.room import Room, Spot
from cluster.scheduler.selectors import Mood
from cluster.scheduler.shares import Shares
from cluster.scheduler.state import Group, Limit, NodeView, Request, Running, Snapshot


@dataclass(frozen=True, slots=True)
class Started:
    """A session that a pass starts, and where."""

    request: Request
    bucket: Bucket
    spots: tuple[Spot, ...]


@dataclass(frozen=True, slots=True)
class _Arrays:
    """Made together, and anew when a node comes, goes or changes in more than its measurements."""

    fleet: Fleet
    room: Room
    holdings: Holdings


class Board:
    """Nodes, what runs on them, who waits, and the rules. Every change is cheap; `plan` leaves it as it was."""

    def __init__(self) -> None:
        self.version = 0
        """Grows with every change."""
        self.groups: dict[str, Group] = {}
        self.unusable: Mapping[str, Reason] = {}
        """Groups that are there and not in `groups`, since nobody knows how to schedule them: why."""
        self.quotas = Quotas()
        self.parking = Parking(self.quotas)
        self.past: Mapping[str, float] = {}
        """Decayed device-seconds of each user's ended sessions."""
        self.pending: dict[str, Request] = {}
        self.running: dict[str, Running] = {}
        self.lanes: dict[str, Lane] = {}
        """The waiting sessions that may start as far as time and dependencies go, by group."""
        self.early: dict[str, Request] = {}
        self.dependent: dict[str, Request] = {}
        self.strangers: dict[str, Request] = {}
        """They wait for a group that does not exist."""
        self.shares: dict[str, Shares] = {}
        self.asked: dict[str, Asked] = {}
        """What ranks with GPUs wait or run, by group."""
        self._limits: tuple[Mapping[str, Limit], Mapping[str, Limit], Mapping[str, str]] = ({}, {}, {})
        self._views: dict[str, NodeView] = {}
        self._made: _Arrays | None = None
        self._alarms: list[tuple[datetime, str]] = []
        self._undo: list[Callable[[], None]] | None = None

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Board":
        """The same as a board that was told everything one by one. `Invalid` for a policy that does not exist."""
        board = cls()
        board.set_groups(snapshot.groups)
        board.set_limits(snapshot.user_limits, snapshot.project_limits, snapshot.cohorts)
        board.past = snapshot.past_use
        board._views = {view.name: view for view in snapshot.nodes}
        for running in sorted(snapshot.running, key=lambda r: r.id):
            board._hold(running)
        for request in snapshot.pending:
            board._enqueue(request)
        return board

    # ── nodes ────────────────────────────────────────────────────────────────────────────────────

    @property
    def fleet(self) -> Fleet:
        return self._arrays.fleet

    @property
    def room(self) -> Room:
        return self._arrays.room

    @property
    def holdings(self) -> Holdings:
        return self._arrays.holdings

    @property
    def _arrays(self) -> _Arrays:
        if self._made is None:
            fleet = Fleet(self._views.values())
            self._made = _Arrays(fleet, Room.of(fleet), Holdings(fleet, self.running.values()))
            for group, shares in self.shares.items():
                shares.measure(fleet, group)
        return self._made

    def _keep_free(self) -> None:
        """Write what is free into the views, before the arrays are made anew."""
        if self._made is None:
            return
        for i, view in enumerate(self._made.fleet.nodes):
            if view.name in self._views:
                self._views[view.name] = self._made.room.view(i, self._views[view.name])
        self._made = None

    def set_node(self, view: NodeView) -> None:
        """A new node, or one that has changed; what is free there is what `view` says."""
        before = self._views.get(view.name)
        if before is not None and self._made is not None and _static(before) == _static(view):
            self._measured(view)
        else:
            self._keep_free()
            before = self._views.get(view.name)
            self._views[view.name] = view
        if before is None:
            self._changed(lambda: self.remove_node(view.name))
        else:
            self._changed(lambda: self.set_node(before))

    def _measured(self, view: NodeView) -> None:
        fleet, room = self.fleet, self.room
        i = fleet.index[view.name]
        before = room.view(i, self._views[view.name])
        self._views[view.name] = view
        fleet.measured(i, view)
        if _free(before) != _free(view):
            room.set(i, view)
        elif before.temperature != view.temperature or before.power != view.power:
            room.log.append(i)

    def remove_node(self, name: str) -> None:
        self._keep_free()
        view = self._views.pop(name)
        self._changed(lambda: self.set_node(view))

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────

    def submit(self, request: Request) -> None:
        """It waits, whether for room, for a time, for others or for its quota."""
        self._enqueue(request)
        self._changed(lambda: self.withdraw(request.id))

    def withdraw(self, ident: str) -> None:
        """It waits no more."""
        request = self._dequeue(ident)
        self._changed(lambda: self.submit(request))

    def start(self, running: Running) -> None:
        """It holds its places from now on, and leaves the queue if it was in it."""
        if running.id in self.pending:
            self.withdraw(running.id)
        self._hold(running)
        self._give_or_take(running, -1)
        self._changed(lambda: self.end(running.id))

    def end(self, ident: str) -> None:
        """It holds nothing any more."""
        running = self._let_go(ident)
        self._give_or_take(running, 1)
        self._changed(lambda: self.start(running))

    def change(self, running: Running) -> None:
        """The same session on the same places, with another end, priority or `stopping`."""
        before = self._let_go(running.id)
        self._hold(running)
        self._changed(lambda: self.change(before))

    def _enqueue(self, request: Request) -> None:
        self.pending[request.id] = request
        if request.group not in self.groups:
            self.strangers[request.id] = request
        elif request.waiting_for:
            self.dependent[request.id] = request
        elif request.start_at is not None:
            self.early[request.id] = request
            heappush(self._alarms, (request.start_at, request.id))
        else:
            self._line_up(request)
        self._mix(request, 1)

    def _line_up(self, request: Request) -> None:
        lane = self.lanes.get(request.group)
        if lane is None:
            lane = self.lanes[request.group] = Lane(self.groups[request.group])
        bucket = lane.add(request)
        if bucket is not None:
            self.parking.joined(lane, bucket)

    def _dequeue(self, ident: str) -> Request:
        request = self.pending.pop(ident)
        apart = (self.strangers, self.dependent, self.early)
        if not any(place.pop(ident, None) for place in apart):
            lane = self.lanes[request.group]
            bucket = lane.remove(request)
            if bucket is not None:
                self.parking.left(bucket)
            if not lane.waiting:
                del self.lanes[request.group]
        self._mix(request, -1)
        return request

    def _mix(self, request: Request, sign: int) -> None:
        if request.gpu:
            self._count(request.group, wish_of(request).need, sign * request.node_count)

    def _count(self, group: str, need: Need, more: int) -> None:
        if group not in self.asked:
            self.asked[group] = Asked()
        self.asked[group].count(need, more)

    def wake(self, now: datetime) -> None:
        """Those whose start time has come line up with the others. Nothing else changes."""
        while self._alarms and self._alarms[0][0] <= now:
            request = self.early.pop(heappop(self._alarms)[1], None)
            if request is None:
                continue
            if request.start_at is not None and request.start_at > now:
                self.early[request.id] = request
            else:
                self._line_up(request)

    def _hold(self, running: Running) -> None:
        self.running[running.id] = running
        used = held_by(running)
        self.quotas.charge(running.user, running.project, used)
        self.parking.taken(running.user, running.project)
        self._shares(running.group).runs(running, used)
        if self._made is not None:
            self._made.holdings.add(running)
        for need in _needs(running):
            self._count(running.group, need, 1)

    def _let_go(self, ident: str) -> Running:
        running = self.running.pop(ident)
        used = held_by(running)
        self.quotas.charge(running.user, running.project, used, -1)
        self.parking.given(running.user, running.project)
        self._shares(running.group).runs(running, used, -1)
        if self._made is not None:
            self._made.holdings.remove(ident)
        for need in _needs(running):
            self._count(running.group, need, -1)
        return running

    def _shares(self, group: str) -> Shares:
        found = self.shares.get(group)
        if found is None:
            found = self.shares[group] = Shares()
            if self._made is not None:
                found.measure(self._made.fleet, group)
        return found

    def shares_of(self, group: str) -> Shares:
        """What each user holds in the group."""
        self.fleet  # noqa: B018 - the group's capacity is known from here on
        return self._shares(group)

    def _give_or_take(self, running: Running, sign: int) -> None:
        for p in running.placements:
            i = self.fleet.index.get(p.node)
            if i is not None:
                devices = {device: sign * units(share) for device, share in p.devices.items()}
                self.room.shift(i, sign * units(p.cpu), sign * p.memory, devices)

    def count_in(self, started: Started, sign: int = 1) -> None:
        """What a pass decides, until it is taken back: room, quotas and shares are as if it had started; with `sign`
        -1 it has not after all."""
        bucket, need = started.bucket, started.bucket.wish.need
        (self.room.take if sign > 0 else self.room.give)(need, started.spots)
        self.quotas.charge(bucket.user, bucket.project, bucket.amounts, sign)
        self.shares_of(need.group).charge(bucket.user, bucket.amounts, sign)

    # ── rules ────────────────────────────────────────────────────────────────────────────────────

    def set_groups(self, groups: Mapping[str, Group]) -> None:
        """The resource groups and their policies. `Invalid` for a policy that does not exist."""
        for group in groups.values():
            checked(group.policy)
        before = self.groups
        touched = {name for name in groups.keys() | before.keys() if groups.get(name) != before.get(name)}
        moving = [self._dequeue(r.id) for r in [*self.pending.values()] if r.group in touched]
        self.groups = dict(groups)
        for request in moving:
            self._enqueue(request)
        self._changed(lambda: self.set_groups(before))

    def set_limits(
        self, users: Mapping[str, Limit], projects: Mapping[str, Limit], cohorts: Mapping[str, str] | None = None
    ) -> None:
        """The quotas; projects of one cohort lend each other what they leave idle."""
        before = self._limits
        self._limits = (users, projects, cohorts or {})
        self.quotas.limit(*self._limits)
        self.parking.changed()
        self._changed(lambda: self.set_limits(*before))

    def set_past_use(self, past: Mapping[str, float]) -> None:
        """Decayed device-seconds per user, as of now."""
        before = self.past
        self.past = past
        self._changed(lambda: self.set_past_use(before))

    def mood(self, group: str) -> Mood:
        """What selectors may know of the group besides its nodes."""
        mix = self.asked[group].mix if group in self.asked else USUAL
        if self.groups[group].selector != "round_robin":
            return Mood(mix)
        there = [r for r in self.running.values() if r.group == group and r.placements]
        last = max(there, key=lambda r: (r.started, r.id)).placements[-1].node if there else ""
        return Mood(mix, self.fleet.index.get(last, -1))

    # ── taking back ──────────────────────────────────────────────────────────────────────────────

    def _changed(self, undo: Callable[[], None]) -> None:
        self.version += 1
        if self._undo is not None:
            self._undo.append(undo)

    @contextmanager
    def trial(self) -> Iterator[None]:
        """What is changed inside is taken back at the end."""
        outer, self._undo = self._undo, []
        try:
            yield
        finally:
            undos, self._undo = self._undo, None
            for undo in reversed(undos):
                undo()
            self._undo = outer


def held_by(running: Running) -> Amounts:
    """What a session holds in all."""
    cpu = sum(units(p.cpu) for p in running.placements)
    gpu = sum(units(share) for p in running.placements for share in p.devices.values())
    return cpu, sum(p.memory for p in running.placements), gpu


def _needs(running: Running) -> list[Need]:
    return [
        need_for(running.group, p.cpu, p.memory, sum(p.devices.values()), running.gpu_model)
        for p in running.placements
        if p.devices
    ]


def _static(view: NodeView) -> NodeView:
    """What the fleet's arrays are made of."""
    return replace(view, cpu_free=0, memory_free=0, devices=(0.0,) * len(view.devices), temperature=None, power=None)


def _free(view: NodeView) -> tuple[float, int, tuple[float, ...]]:
    return view.cpu_free, view.memory_free, view.devices
