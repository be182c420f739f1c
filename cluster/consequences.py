"""What an operation means for everybody's sessions: the scheduler's plan before it against the plan after it."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

from cluster.db.tables import SessionRow
from cluster.models import Effect, Resources
from cluster.scheduler import Plan, plan
from cluster.scheduler.state import Limit, NodeView, Placement, Request, Running, Snapshot
from cluster.sentence import S, Sentence
from cluster.units import human_duration

MOST = 12
"""Effects on other sessions that are told one by one; the rest is counted."""


@dataclass(frozen=True)
class People:
    """Whose the live sessions are, and which of them the asking person may see."""

    sessions: Mapping[str, tuple[str, str]]
    """Id -> (name, owner)."""
    visible: Collection[str]
    asking: str

    def effect(self, kind: Literal["sooner", "delayed"], ident: str, message: Sentence, stable: bool = True) -> Effect:
        """On somebody's session; its owner is told when it isn't the asking person's own."""
        name, owner = self.sessions[ident]
        return Effect(
            kind=kind, target=name, message=message, owner=owner if owner != self.asking else None, stable=stable
        )

    def name(self, ident: str) -> str:
        return self.sessions[ident][0]


def own(row: SessionRow, after: Plan, people: People) -> list[Effect]:
    """What becomes of the session that is being started."""
    if placements := after.start.get(row.id):
        where = ", ".join(_place(p) for p in placements)
        message = S("{name} starts now on {where}.", name=row.name, where=where)
        return [Effect(kind="starts", target=row.name, message=message)]
    if reasons := after.hold.get(row.id):
        first = S("{name} does not start yet; it is held back.", name=row.name)
        return [Effect(kind="held", target=row.name, message=m) for m in (first, *(r.message for r in reasons))]
    first = S("{name} does not start yet; it waits.", name=row.name)
    why = [r.message for r in after.wait.get(row.id, ())]
    effects = [Effect(kind="waits", target=row.name, message=m) for m in (first, *why)]
    if start := after.estimated.get(row.id):
        text = S("It can start at {time}, if those before it end on time.", time=start.isoformat(timespec="minutes"))
        effects.append(Effect(kind="waits", target=row.name, message=text, stable=False))
    return effects


def _place(p: Placement) -> str:
    devices = f" (GPU {', '.join(map(str, p.devices))})" if p.devices else ""
    return p.node + devices


def others(before: Plan, after: Plan, people: People, mine: str | None) -> list[Effect]:
    """Who starts, or doesn't, because of it; and who waits longer or less."""
    touched: dict[str, Effect] = {}
    for ident in after.start:
        if ident not in before.start and ident != mine:
            where = ", ".join(p.node for p in after.start[ident])
            text = S("{name}, which waits, starts now on {where}.", name=people.name(ident), where=where)
            touched[ident] = people.effect("sooner", ident, text)
    for ident in before.start:
        if ident not in after.start and ident in (*after.wait, *after.hold):
            text = S("{name}, which was about to start, waits longer.", name=people.name(ident))
            touched[ident] = people.effect("delayed", ident, text)
    return _told({**_estimates(before, after, people, mine), **touched}, people)


def _estimates(before: Plan, after: Plan, people: People, mine: str | None) -> dict[str, Effect]:
    touched: dict[str, Effect] = {}
    for ident, then in before.estimated.items():
        now = after.estimated.get(ident)
        if now is None or ident == mine or abs((now - then).total_seconds()) < 60:
            continue
        name, by = people.name(ident), human_duration(abs((now - then).total_seconds()))
        if now > then:
            text = S("{name} waits about {by} longer.", name=name, by=by)
            touched[ident] = people.effect("delayed", ident, text, stable=False)
        else:
            text = S("{name} starts about {by} sooner.", name=name, by=by)
            touched[ident] = people.effect("sooner", ident, text, stable=False)
    return touched


def _told(touched: Mapping[str, Effect], people: People) -> list[Effect]:
    """The effects one by one as far as the person may see them and as long as there are few; the rest is counted."""
    visible = [effect for ident, effect in touched.items() if ident in people.visible]
    hidden = len(touched) - len(visible)
    told = visible if len(visible) <= MOST else visible[:MOST]
    if len(told) < len(visible):
        more = S("{count} more waiting sessions are touched.", count=len(visible) - len(told))
        told = [*told, Effect(kind="changes", target="", message=more, stable=False)]
    if hidden:
        more = S("{count} waiting sessions of other projects are touched.", count=hidden)
        told = [*told, Effect(kind="changes", target="", message=more, stable=False)]
    return told


def once_stopped(snapshot: Snapshot, earlier: set[str], stopping: set[str], now: Plan, people: People) -> list[Effect]:
    """Who starts as soon as what is being stopped has let go: the same plan on a copy of the state.

    What was being stopped `earlier` already is no consequence of this.
    """
    if stopping <= earlier:
        return []
    anyway = plan(_after(snapshot, earlier)) if earlier else now
    touched: dict[str, Effect] = {}
    for ident, placements in plan(_after(snapshot, stopping)).start.items():
        if ident not in anyway.start:
            where = ", ".join(p.node for p in placements)
            text = S("{name}, which waits, starts on {where} once it is stopped.", name=people.name(ident), where=where)
            touched[ident] = people.effect("sooner", ident, text)
    return _told(touched, people)


def _after(snapshot: Snapshot, gone: set[str]) -> Snapshot:
    """The state when the sessions `gone` hold nothing any more."""
    left = [r for r in snapshot.running if r.id not in gone]
    freed = [r for r in snapshot.running if r.id in gone]
    return replace(snapshot, running=left, nodes=[_without(n, freed) for n in snapshot.nodes])


def _without(node: NodeView, freed: list[Running]) -> NodeView:
    """The node as it is when the `freed` hold nothing there any more."""
    back = [p for r in freed for p in r.placements if p.node == node.name]
    devices = list(node.devices)
    for p in back:
        for index, share in p.devices.items():
            devices[index] = min(1.0, devices[index] + share)
    return replace(
        node,
        cpu_free=node.cpu_free + sum(p.cpu for p in back),
        memory_free=node.memory_free + sum(p.memory for p in back),
        devices=tuple(devices),
    )


def quota_left(snapshot: Snapshot, after: Plan, session: SessionRow) -> Resources | None:
    """What the owner could still start in the session's project, once `after` is carried out; None without a quota.

    The smaller of what user and project have left; of what neither limits, what is free on nodes in use.
    """
    limits = [
        (snapshot.user_limits.get(session.user), lambda one: one.user == session.user),
        (snapshot.project_limits.get(session.project), lambda one: one.project == session.project),
    ]
    left = [_left(limit, _used(snapshot, after, mine)) for limit, mine in limits if limit is not None]
    left = [amounts for amounts in left if min(amounts) < inf]
    if not left:
        return None
    cpu, memory, gpu = (min(amounts) for amounts in zip(*left, _free(snapshot, after), strict=True))
    return Resources(cpu=cpu, memory=int(memory), gpu=gpu)


Amounts = tuple[float, float, float]
"""Cores, bytes, devices."""


def _used(snapshot: Snapshot, after: Plan, mine: Callable[[Running | Request], bool]) -> Amounts:
    """What those that count as `mine` hold or are about to hold."""
    held = [p for r in snapshot.running if mine(r) for p in r.placements]
    return _sum([*held, *(p for r in snapshot.pending if mine(r) for p in after.start.get(r.id, ()))])


def _sum(placements: Iterable[Placement]) -> Amounts:
    held = list(placements)
    return (
        sum(p.cpu for p in held),
        float(sum(p.memory for p in held)),
        sum(sum(p.devices.values()) for p in held),
    )


def _left(limit: Limit, used: Amounts) -> Amounts:
    caps = (limit.cpu, limit.memory, limit.gpu)
    cpu, memory, gpu = (inf if cap is None else max(0.0, cap - held) for cap, held in zip(caps, used, strict=True))
    return cpu, memory, gpu


def _free(snapshot: Snapshot, after: Plan) -> Amounts:
    nodes = [n for n in snapshot.nodes if n.schedulable]
    cpu, memory, gpu = _sum(p for ranks in after.start.values() for p in ranks)
    return (
        max(0.0, sum(n.cpu_free for n in nodes) - cpu),
        max(0.0, sum(n.memory_free for n in nodes) - memory),
        max(0.0, sum(sum(n.devices) for n in nodes) - gpu),
    )
