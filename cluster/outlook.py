"""The one place where the core meets the scheduler: the ledger as the scheduler sees it, and what it decides.

The scheduler's board is told only what has changed since the last look.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, cast

import structlog

from cluster.directory import Directory
from cluster.errors import Invalid
from cluster.ledger import Ledger
from cluster.lifecycle import WAITING
from cluster.live import LiveNode, LiveSession
from cluster.models import NodeStatus, Reason, SessionState
from cluster.scheduler import Board, Plan, checked_policy, checked_selector, feasible, plan, reasons
from cluster.scheduler.learned import line_up
from cluster.scheduler.state import Group, NodeView, Placement, Request, Running

log = structlog.get_logger(__name__)

FRESH = timedelta(seconds=1)
"""For so long a plan holds while nothing has changed."""
LAST = 1e12
"""The standing of a session that nobody has looked at yet."""
AGING = timedelta(minutes=1)
"""Past use decays slowly: the scheduler is told so often, when nobody's has grown."""


@dataclass(frozen=True, slots=True)
class Kin:
    """A resource group's nodes, as far as a new session's defaults depend on them."""

    devices: bool
    memory_per_core: float
    """Bytes, of the leanest node."""


class Outlook:
    """What the scheduler makes of `ledger`."""

    def __init__(self, ledger: Ledger, directory: Directory) -> None:
        self._ledger = ledger
        self._board = Board()
        self._plan: tuple[datetime, int, Plan] | None = None
        self._aged: datetime | None = None
        self._never: dict[tuple[object, ...], tuple[Reason, ...]] = {}
        self._natures: dict[str, tuple[object, ...]] = {}
        self._kin: dict[str, Kin] | None = None
        self._standings: dict[str, float] = {}
        ledger.stirred.update(ledger.sessions)
        ledger.stirred_nodes.update(ledger.nodes)
        self.know(directory)

    def know(self, directory: Directory) -> None:
        """Groups and limits are those of `directory` now. One whose policy does not exist waits, the others go on."""
        groups = directory.policies()
        unusable = {name: reasons.unusable(group) for name, group in groups.items() if not _is_usable(group)}
        for name in unusable.keys() - self._board.unusable.keys():
            log.error("resource group can't be scheduled", group=name, why=str(unusable[name].message))
        self._board.unusable = unusable
        self._board.set_groups({name: group for name, group in groups.items() if name not in unusable})
        self._board.set_limits(directory.limits("user"), directory.limits("project"), directory.cohorts)
        self._short = {group.name for group in directory.groups.values() if group.policy == "short_first"}
        self._fair = any(group.policy == "fair_share" for group in directory.groups.values())
        self._never.clear()
        self._supposed = False

    def stand(self, standings: Mapping[str, float]) -> None:
        """Where sessions stand under short_first; those that are not named go last until they are."""
        self._standings = dict(standings)
        line_up(self._board, self._standings)

    def suppose(self, group: Group) -> None:
        """Plan as if `group` were so, until `settle`."""
        self._supposed = True
        self._board.set_groups(self._board.groups | {group.name: group})

    def imagine(self, directory: Directory) -> None:
        """Plan as if groups and limits were those of `directory`, until `settle`."""
        self.know(directory)
        self._supposed = True

    def settle(self, directory: Directory) -> None:
        """Nothing is supposed any more."""
        if self._supposed:
            self.know(directory)

    @property
    def unusable(self) -> Mapping[str, Reason]:
        """Groups in which nothing can start, and why."""
        return self._board.unusable

    # ── decisions ────────────────────────────────────────────────────────────────────────────────

    def plan(self, now: datetime) -> Plan:
        """What the scheduler would do now. The same as before, while nothing has changed and it is fresh.

        Who waits and why must be asked of it before the next look.
        """
        self._look(now)
        if self._plan is not None:
            then, version, decided = self._plan
            fresh = timedelta(0) <= now - then < FRESH and version == self._board.version
            if fresh and not self._due(then, now):
                return decided
        decided = plan(self._board, now)
        self._plan = now, self._board.version, decided
        return decided

    def without(self, gone: Collection[str], now: datetime) -> Mapping[str, tuple[Placement, ...]]:
        """Who would start where, if the sessions `gone` held nothing any more; those of them that are to be queued
        again wait in their old place."""
        with self._gone(gone, now) as decided:
            return dict(decided.start)

    def estimated_without(self, gone: Collection[str], now: datetime) -> Mapping[str, datetime]:
        """When those that wait could start then."""
        with self._gone(gone, now) as decided:
            return dict(decided.estimated)

    @contextmanager
    def _gone(self, gone: Collection[str], now: datetime) -> Iterator[Plan]:
        self._look(now)
        with self._board.trial():
            for ident in gone:
                self._board.end(ident)
                session = self._ledger.sessions[ident]
                if session.requeue:
                    self._board.submit(_request(session, (), self._standing(session)))
            yield plan(self._board, now)

    def never(self, session: LiveSession, group: str, now: datetime) -> tuple[Reason, ...]:
        """Why `session` could never run in `group`; empty when it could."""
        self._look(now)
        key = (group, session.cpu, session.memory, session.gpu, session.gpu_model, session.accelerator, session.rack,
               session.node_count, session.user, session.project)  # fmt: skip
        if key not in self._never:
            self._never[key] = feasible(self._board, replace(_request(session), group=group))
        return self._never[key]

    @property
    def kin(self) -> Mapping[str, Kin]:
        """Every resource group that has nodes."""
        if self._kin is None or self._ledger.stirred_nodes:
            by_group: dict[str, list[LiveNode]] = {}
            for node in self._ledger.nodes.values():
                by_group.setdefault(node.resource_group, []).append(node)
            self._kin = {group: _kin(nodes) for group, nodes in by_group.items()}
        return self._kin

    def _due(self, then: datetime, now: datetime) -> bool:
        """A session's start time has come since `then`."""
        soon = self._ledger.next_start(then) if self._ledger.timed else None
        return soon is not None and soon <= now

    # ── what it is told ──────────────────────────────────────────────────────────────────────────

    def _look(self, now: datetime) -> None:
        """Sessions before nodes: what is free on a node is told as it is after all of them."""
        stirred, self._ledger.stirred = self._ledger.stirred, set()
        for ident in sorted(stirred):
            self._look_at(ident)
        nodes, self._ledger.stirred_nodes = self._ledger.stirred_nodes, set()
        for name in sorted(nodes):
            self._look_at_node(name)
        self._look_at_use(now)

    def _look_at(self, ident: str) -> None:
        session, board = self._ledger.sessions.get(ident), self._board
        if session is None:
            if ident in board.pending:
                board.withdraw(ident)
            elif ident in board.running:
                board.end(ident)
        elif session.state in WAITING:
            self._waits(_request(session, tuple(self._ledger.unmet(session)), self._standing(session)))
        elif (before := board.running.get(ident)) is None:
            board.start(_running(session, self._standing(session)))
        else:
            self._runs(session, before)

    def _standing(self, session: LiveSession) -> float:
        if session.resource_group not in self._short:
            return 0.0
        return self._standings.get(session.id, LAST)

    def _waits(self, request: Request) -> None:
        board = self._board
        if board.pending.get(request.id) == request:
            return
        if request.id in board.pending:
            board.withdraw(request.id)
        elif request.id in board.running:
            board.end(request.id)
        board.submit(request)

    def _runs(self, session: LiveSession, before: Running) -> None:
        """On the same places as `before`: the board sees it wait before it can have others."""
        stopping = session.state == SessionState.TERMINATING
        ends_by = _ends_by(session, stopping)
        if (ends_by, session.priority, stopping) != (before.ends_by, before.priority, before.stopping):
            started = session.started or before.started
            self._board.change(
                replace(before, started=started, ends_by=ends_by, priority=session.priority, stopping=stopping)
            )

    def _look_at_node(self, name: str) -> None:
        node, before = self._ledger.nodes.get(name), self._natures.pop(name, None)
        if node is None:
            if before is not None:
                self._board.remove_node(name)
        else:
            view = self._view(node)
            self._board.set_node(view)
            self._natures[name] = _nature(view)
        if before is None or before != self._natures.get(name):
            self._kin = None
            self._never.clear()

    def _look_at_use(self, now: datetime) -> None:
        if not self._fair:
            return
        aged = self._aged is None or not timedelta(0) <= now - self._aged < AGING
        if self._ledger.used or (aged and self._ledger.usage):
            self._ledger.used, self._aged = set(), now
            self._board.set_past_use({user: use.by(now) for user, use in self._ledger.usage.items()})

    def _view(self, node: LiveNode) -> NodeView:
        free = [1.0] * len(node.devices)
        cpu, memory = node.cpu, node.memory
        for rank in self._ledger.ranks_on(node.name):
            cpu, memory = cpu - rank.cpu, memory - rank.memory
            for index, share in rank.devices.items():
                free[index] -= share
        return NodeView(
            name=node.name,
            group=node.resource_group,
            schedulable=node.status == NodeStatus.ALIVE,
            cpu=node.cpu,
            memory=node.memory,
            cpu_free=cpu,
            memory_free=memory,
            devices=tuple(max(0.0, round(share, 6)) for share in free),
            gpu_model=node.gpu_model,
            rack=node.rack,
            power=node.sample.get("power"),
            temperature=node.sample.get("temperature"),
            kind=node.devices[0].get("kind") if node.devices else None,
        )


def _is_usable(group: Group) -> bool:
    try:
        checked_policy(group.policy)
        checked_selector(group.selector)
    except Invalid:
        return False
    return True


def _nature(view: NodeView) -> tuple[object, ...]:
    """What of a node decides whether something could ever run there."""
    return view.group, view.cpu, view.memory, len(view.devices), view.gpu_model, view.rack, view.kind


def _kin(nodes: list[LiveNode]) -> Kin:
    lean = min((node.memory / node.cpu for node in nodes if node.cpu), default=0.0)
    return Kin(any(node.devices for node in nodes), lean)


def _request(session: LiveSession, waiting_for: tuple[str, ...] = (), standing: float = 0.0) -> Request:
    return Request(
        id=session.id,
        name=session.name,
        user=session.user,
        project=session.project,
        group=session.resource_group,
        submitted=session.submitted,
        cpu=session.cpu,
        memory=session.memory,
        gpu=session.gpu,
        node_count=session.node_count,
        gpu_model=session.gpu_model,
        priority=session.priority,
        time_limit=session.time_limit,
        start_at=session.start_at,
        waiting_for=waiting_for,
        rack=cast(Literal["required", "preferred"] | None, session.rack),
        kind=session.accelerator,
        preemptible=session.preemptible,
        standing=standing,
    )


def _running(session: LiveSession, standing: float) -> Running:
    stopping = session.state == SessionState.TERMINATING
    return Running(
        id=session.id,
        name=session.name,
        user=session.user,
        project=session.project,
        group=session.resource_group,
        placements=tuple(Placement(r.node, r.cpu, r.memory, r.devices) for r in session.ranks),
        started=session.started or session.state_since,
        priority=session.priority,
        ends_by=_ends_by(session, stopping),
        gpu_model=session.gpu_model,
        preemptible=session.preemptible,
        stopping=stopping,
        standing=standing,
    )


def _ends_by(session: LiveSession, stopping: bool) -> datetime | None:
    """When it is gone at the latest."""
    limit = None
    if session.time_limit:
        limit = (session.started or session.state_since) + timedelta(seconds=session.time_limit)
    if not stopping:
        return limit
    grace = session.state_since + timedelta(seconds=session.grace)
    return min(grace, limit) if limit else grace
