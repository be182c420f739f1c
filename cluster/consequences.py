"""What an operation means for everybody's sessions: the scheduler's plan before it against the plan after it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Literal

from cluster import access
from cluster.directory import Directory
from cluster.ledger import Ledger
from cluster.live import LiveSession, Rank
from cluster.models import Effect, NodeStatus, Reason, Resources, User
from cluster.outlook import Outlook
from cluster.scheduler import Plan
from cluster.scheduler.state import Placement
from cluster.sentence import S, Sentence
from cluster.tenancy.veil import seen_by, veiled
from cluster.units import human_duration

MOST = 12
"""Effects on other sessions that are told one by one; the rest is counted."""


@dataclass(frozen=True)
class People:
    """Whose the live sessions are, and which of them the asking person may see."""

    ledger: Ledger
    asking: User

    def effect(
        self, kind: Literal["sooner", "delayed", "held", "stops"], ident: str, message: Sentence, stable: bool = True
    ) -> Effect:
        """On somebody's session; its owner is told when it isn't the asking person's own."""
        session = self.ledger.sessions[ident]
        owner = session.user if session.user != self.asking.name else None
        return Effect(kind=kind, target=session.name, message=message, owner=owner, stable=stable)

    def name(self, ident: str) -> str:
        return self.ledger.sessions[ident].name

    def sees(self, ident: str) -> bool:
        session = self.ledger.sessions[ident]
        return access.sees(self.asking, session.user, session.project)

    def told(self, session: LiveSession, reasons: Iterable[Reason]) -> list[Reason]:
        """Why it waits, without the names of those that the person may not see."""
        return veiled(self.ledger, session, reasons, seen_by(self.asking))


@dataclass(frozen=True)
class Before:
    """What was going to happen before the operation."""

    start: Collection[str]
    estimated: Mapping[str, datetime]
    stopping: frozenset[str]
    """Those that were being stopped already."""
    preempt: frozenset[str] = frozenset()
    """Those that were going to make room anyway."""

    @classmethod
    def of(cls, plan: Plan, ledger: Ledger) -> "Before":
        """Of the plan on the state as it is."""
        return cls(dict.fromkeys(plan.start), dict(plan.estimated), stopping(ledger), frozenset(plan.preempt))


def stopping(ledger: Ledger) -> frozenset[str]:
    """Ids of the sessions that are being stopped."""
    return frozenset(ident for ident, session in ledger.holding.items() if session.state == "terminating")


def why(session: LiveSession, after: Plan, brief: bool = False) -> Sequence[Reason]:
    """Why it waits or is held; if `brief`, without who is ahead of it, which is cheap however many wait."""
    if brief:
        return after.why(session.id)
    return after.wait.get(session.id) or after.hold.get(session.id) or ()


def own(row: LiveSession, after: Plan, people: People, brief: bool = False) -> list[Effect]:
    """What becomes of the session that is being started; if `brief`, without who is ahead of it."""
    if placements := after.start.get(row.id):
        where = ", ".join(_place(p) for p in placements)
        message = S("{name} starts now on {where}.", name=row.name, where=where)
        return [Effect(kind="starts", target=row.name, message=message)]
    if row.id in after.held:
        first = S("{name} does not start yet; it is held back.", name=row.name)
        reasons = people.told(row, why(row, after, brief))
        return [Effect(kind="held", target=row.name, message=m) for m in (first, *(r.message for r in reasons))]
    first = S("{name} does not start yet; it waits.", name=row.name)
    reasons = people.told(row, why(row, after, brief))
    effects = [Effect(kind="waits", target=row.name, message=m) for m in (first, *(r.message for r in reasons))]
    if not brief and (start := after.estimated.get(row.id)):
        text = S("It can start at {time}, if those before it end on time.", time=start.isoformat(timespec="minutes"))
        effects.append(Effect(kind="waits", target=row.name, message=text, stable=False))
    return effects


def _place(p: Placement) -> str:
    devices = f" (GPU {', '.join(map(str, p.devices))})" if p.devices else ""
    return p.node + devices


def give_way(before: Before, after: Plan, people: People) -> list[Effect]:
    """Which running sessions the plan stops to make room because of it."""
    touched: dict[str, Effect] = {}
    for ident in sorted(after.preempt.keys() - before.preempt):
        text = S("{name}, which runs, is stopped to make room, and waits again.", name=people.name(ident))
        touched[ident] = people.effect("stops", ident, text)
    return told(touched, people)


def queued_again(ledger: Ledger, before: Before) -> frozenset[str]:
    """Ids of those that are being stopped to wait again, since `before`."""
    return frozenset(ident for ident in stopping(ledger) - before.stopping if ledger.sessions[ident].requeue)


def others(
    before: Before,
    start: Mapping[str, Sequence[Placement]],
    estimated: Mapping[str, datetime],
    people: People,
    mine: Collection[str],
) -> list[Effect]:
    """Who starts, or doesn't, because of it; and who waits longer or less. By what the plan after it says."""
    touched: dict[str, Effect] = {}
    for ident in start:
        if ident not in before.start and ident not in mine:
            where = ", ".join(p.node for p in start[ident])
            text = S("{name}, which waits, starts now on {where}.", name=people.name(ident), where=where)
            touched[ident] = people.effect("sooner", ident, text)
    for ident in before.start:
        if ident not in start and ident in people.ledger.waiting:
            text = S("{name}, which was about to start, waits longer.", name=people.name(ident))
            touched[ident] = people.effect("delayed", ident, text)
    return told({**_estimates(before, estimated, people, mine), **touched}, people)


def _estimates(
    before: Before, estimated: Mapping[str, datetime], people: People, mine: Collection[str]
) -> dict[str, Effect]:
    touched: dict[str, Effect] = {}
    for ident, then in before.estimated.items():
        now = estimated.get(ident)
        if now is None or ident in mine or abs((now - then).total_seconds()) < 60:
            continue
        name, by = people.name(ident), human_duration(abs((now - then).total_seconds()))
        if now > then:
            text = S("{name} waits about {by} longer.", name=name, by=by)
            touched[ident] = people.effect("delayed", ident, text, stable=False)
        else:
            text = S("{name} starts about {by} sooner.", name=name, by=by)
            touched[ident] = people.effect("sooner", ident, text, stable=False)
    return touched


def told(touched: Mapping[str, Effect], people: People) -> list[Effect]:
    """The effects one by one as far as the person may see them and as long as there are few; the rest is counted."""
    visible = [effect for ident, effect in touched.items() if people.sees(ident)]
    hidden = len(touched) - len(visible)
    told = visible if len(visible) <= MOST else visible[:MOST]
    if len(told) < len(visible):
        more = S("{count} more waiting sessions are touched.", count=len(visible) - len(told))
        told = [*told, Effect(kind="changes", target="", message=more, stable=False)]
    if hidden:
        more = S("{count} waiting sessions of other projects are touched.", count=hidden)
        told = [*told, Effect(kind="changes", target="", message=more, stable=False)]
    return told


def once_stopped(before: Before, outlook: Outlook, now: datetime, people: People) -> list[Effect]:
    """Who starts as soon as what is being stopped has let go: the same plan on a copy of the state.

    What was being stopped already `before` is no consequence of this.
    """
    gone = stopping(people.ledger)
    if gone <= before.stopping:
        return []
    anyway = outlook.without(before.stopping, now) if before.stopping else outlook.plan(now).start
    touched: dict[str, Effect] = {}
    for ident, placements in outlook.without(gone, now).items():
        if ident not in anyway and ident not in gone:
            where = ", ".join(p.node for p in placements)
            text = S("{name}, which waits, starts on {where} once it is stopped.", name=people.name(ident), where=where)
            touched[ident] = people.effect("sooner", ident, text)
    return told(touched, people)


Amounts = tuple[float, float, float]
"""Cores, bytes, devices."""


def quota_left(ledger: Ledger, directory: Directory, after: Plan, session: LiveSession) -> Resources | None:
    """What the owner could still start in the session's project, once `after` is carried out; None without a quota.

    The smaller of what user and project have left; of what neither limits, what is free on nodes in use.
    """
    left: list[Amounts] = []
    for scope, owner in (("user", session.user), ("project", session.project)):
        limit = directory.quotas.get((scope, owner))
        if limit is not None:
            left.append(_left((limit.cpu, limit.memory, limit.gpu), _used(ledger, after, scope, owner)))
    left = [amounts for amounts in left if min(amounts) < inf]
    if not left:
        return None
    cpu, memory, gpu = (min(amounts) for amounts in zip(*left, _free(ledger, after), strict=True))
    return Resources(cpu=cpu, memory=int(memory), gpu=gpu)


def _used(ledger: Ledger, after: Plan, scope: str, owner: str) -> Amounts:
    """What those of a user or project hold or are about to hold."""
    mine = [s for s in ledger.sessions.values() if (s.user if scope == "user" else s.project) == owner]
    held = [r for s in mine for r in s.ranks]
    return _sum([*held, *(p for s in mine for p in after.start.get(s.id, ()))])


def _sum(held: Iterable[Placement | Rank]) -> Amounts:
    cpu = memory = gpu = 0.0
    for each in held:
        cpu, memory, gpu = cpu + each.cpu, memory + each.memory, gpu + sum(each.devices.values())
    return cpu, memory, gpu


def _left(caps: tuple[float | None, ...], used: Amounts) -> Amounts:
    cpu, memory, gpu = (inf if cap is None else max(0.0, cap - held) for cap, held in zip(caps, used, strict=True))
    return cpu, memory, gpu


def _free(ledger: Ledger, after: Plan) -> Amounts:
    """On nodes that take new sessions, once `after` is carried out."""
    nodes = [n for n in ledger.nodes.values() if n.status == NodeStatus.ALIVE]
    held = [rank for node in nodes for rank in ledger.ranks_on(node.name)]
    cpu, memory, gpu = _sum([*held, *(p for ranks in after.start.values() for p in ranks)])
    return (
        max(0.0, sum(n.cpu for n in nodes) - cpu),
        max(0.0, sum(n.memory for n in nodes) - memory),
        max(0.0, sum(len(n.devices) for n in nodes) - gpu),
    )
