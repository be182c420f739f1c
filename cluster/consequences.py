"""What an operation means for everybody's sessions: the scheduler's plan before it against the plan after it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cluster.db.tables import SessionRow
from cluster.models import Effect, Resources, User
from cluster.scheduler import plan
from cluster.scheduler.state import NodeView, Placement, Plan, Running, Snapshot
from cluster.sentence import S
from cluster.units import human_duration

MOST = 12
"""Effects on other sessions that are told one by one; the rest is counted."""


@dataclass(frozen=True)
class People:
    """Whose the sessions are: id -> (name, owner)."""

    sessions: Mapping[str, tuple[str, str]]
    asking: str

    def name(self, ident: str) -> str:
        return self.sessions[ident][0]

    def owner(self, ident: str) -> str | None:
        owner = self.sessions[ident][1]
        return owner if owner != self.asking else None


def own(row: SessionRow, after: Plan, people: People) -> list[Effect]:
    """What becomes of the session that is being started."""
    if placements := after.start.get(row.id):
        where = ", ".join(_place(p) for p in placements)
        message = S("{name} starts now on {where}.", name=row.name, where=where)
        return [Effect(kind="starts", target=row.name, message=message)]
    if reasons := after.hold.get(row.id):
        return [Effect(kind="held", target=row.name, message=r.message) for r in reasons]
    effects = [Effect(kind="waits", target=row.name, message=r.message) for r in after.wait.get(row.id, ())]
    if start := after.estimated.get(row.id):
        text = S("It can start at {time}, if those before it end on time.", time=start.isoformat(timespec="minutes"))
        effects.append(Effect(kind="waits", target=row.name, message=text, stable=False))
    return effects


def _place(p: Placement) -> str:
    devices = f" (GPU {', '.join(map(str, p.devices))})" if p.devices else ""
    return p.node + devices


def others(before: Plan, after: Plan, people: People, mine: str | None) -> list[Effect]:
    """Who starts, or doesn't, because of it; and who waits longer or less."""
    effects = []
    for ident in after.start:
        if ident not in before.start and ident != mine:
            where = ", ".join(p.node for p in after.start[ident])
            text = S("{name}, which waits, starts now on {where}.", name=people.name(ident), where=where)
            effects.append(Effect(kind="sooner", target=people.name(ident), message=text, owner=people.owner(ident)))
    for ident in before.start:
        if ident not in after.start and ident in (*after.wait, *after.hold):
            text = S("{name}, which was about to start, waits longer.", name=people.name(ident))
            effects.append(Effect(kind="delayed", target=people.name(ident), message=text, owner=people.owner(ident)))
    effects += _estimates(before, after, people, mine)
    return _bounded(effects)


def _estimates(before: Plan, after: Plan, people: People, mine: str | None) -> list[Effect]:
    effects = []
    for ident, then in before.estimated.items():
        now = after.estimated.get(ident)
        if now is None or ident == mine or abs((now - then).total_seconds()) < 60:
            continue
        by = human_duration(abs((now - then).total_seconds()))
        later = now > then
        text = (
            S("{name} waits about {by} longer.", name=people.name(ident), by=by)
            if later
            else S("{name} starts about {by} sooner.", name=people.name(ident), by=by)
        )
        kind = "delayed" if later else "sooner"
        effects.append(
            Effect(kind=kind, target=people.name(ident), message=text, owner=people.owner(ident), stable=False)
        )
    return effects


def _bounded(effects: list[Effect]) -> list[Effect]:
    if len(effects) <= MOST:
        return effects
    rest = len(effects) - MOST
    more = Effect(
        kind="changes", target="", message=S("{count} more waiting sessions are touched.", count=rest), stable=False
    )
    return [*effects[:MOST], more]


def once_stopped(snapshot: Snapshot, earlier: set[str], stopping: set[str], now: Plan, people: People) -> list[Effect]:
    """Who starts as soon as what is being stopped has let go: the same plan on a copy of the state.

    What was being stopped `earlier` already is no consequence of this.
    """
    if stopping <= earlier:
        return []
    anyway = plan(_after(snapshot, earlier)) if earlier else now
    effects = []
    for ident, placements in plan(_after(snapshot, stopping)).start.items():
        if ident not in anyway.start:
            where = ", ".join(p.node for p in placements)
            text = S("{name}, which waits, starts on {where} once it is stopped.", name=people.name(ident), where=where)
            effects.append(Effect(kind="sooner", target=people.name(ident), message=text, owner=people.owner(ident)))
    return _bounded(effects)


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


def quota_left(snapshot: Snapshot, after: Plan, user: User) -> Resources | None:
    """What the person could still start; None without a quota. After a start that is what is left with it."""
    limit = snapshot.user_limits.get(user.name)
    if limit is None or limit.cpu is limit.memory is limit.gpu is None:
        return None
    starting = [r for r in snapshot.pending if r.id in after.start and r.user == user.name]
    used = [p for r in snapshot.running if r.user == user.name for p in r.placements]
    cpu = sum(p.cpu for p in used) + sum(r.cpu for r in starting)
    memory = sum(p.memory for p in used) + sum(r.memory for r in starting)
    gpu = sum(sum(p.devices.values()) for p in used) + sum(r.gpu for r in starting)
    return Resources(cpu=_left(limit.cpu, cpu), memory=int(_left(limit.memory, memory)), gpu=_left(limit.gpu, gpu))


def _left(limit: float | None, used: float) -> float:
    return max(0.0, limit - used) if limit is not None else 0.0
