"""Who is next in a resource group: priority first, then the group's policy."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime

from cluster.errors import Invalid
from cluster.scheduler.state import Group, NodeView, Placement, Request, Running, Snapshot
from cluster.sentence import S

POLICIES = ("fifo", "lifo", "drf", "fair_share")

CORES_PER_DEVICE = 16.0
"""For fair_share, this many cores count as one device."""

AHEAD = 3600.0
"""For fair_share, a session that runs or starts counts with what it will use in this many seconds."""

Key = tuple[float, float, float, str]


class Shares:
    """What each user holds in one group, on the scale that its policy compares."""

    def __init__(self, snapshot: Snapshot, group: Group) -> None:
        self._policy = group.policy
        self._capacity = _capacity(node for node in snapshot.nodes if node.group == group.name)
        self._held: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        self._past = snapshot.past_use
        for running in snapshot.running:
            if running.group == group.name:
                self.charge(running.user, amounts(running.placements))

    def charge(self, user: str, used: tuple[float, float, float]) -> None:
        held = self._held[user]
        for i, amount in enumerate(used):
            held[i] += amount

    def of(self, user: str) -> float:
        """0 under fifo and lifo, the dominant share under drf, device-seconds under fair_share."""
        cpu, memory, gpu = self._held.get(user, (0.0, 0.0, 0.0))
        if self._policy == "drf":
            return max(amount / total for amount, total in zip((cpu, memory, gpu), self._capacity, strict=True))
        if self._policy == "fair_share":
            return self._past.get(user, 0.0) + AHEAD * max(gpu, cpu / CORES_PER_DEVICE)
        return 0.0


def amounts(placements: Iterable[Placement]) -> tuple[float, float, float]:
    """Cores, bytes and devices of all ranks together."""
    cpu = memory = gpu = 0.0
    for placement in placements:
        cpu += placement.cpu
        memory += placement.memory
        gpu += sum(placement.devices.values())
    return cpu, memory, gpu


def _capacity(nodes: Iterable[NodeView]) -> tuple[float, float, float]:
    cpu = memory = gpu = 0.0
    for node in nodes:
        cpu, memory, gpu = cpu + node.cpu, memory + node.memory, gpu + len(node.devices)
    return cpu or 1.0, memory or 1.0, gpu or 1.0


class Queue:
    """The waiting sessions of one group, given out one by one. Each user has a line; shares decide between lines."""

    def __init__(self, snapshot: Snapshot, group: Group, requests: Iterable[Request]) -> None:
        if group.policy not in POLICIES:
            known = ", ".join(POLICIES)
            raise Invalid(S("There is no scheduling policy {name}; there are {known}.", name=group.policy, known=known))
        self.group = group
        self._age = -1.0 if group.policy == "lifo" else 1.0
        self._shares = Shares(snapshot, group)
        self._lines = self._lines_of(requests)

    def _lines_of(self, requests: Iterable[Request]) -> dict[str, list[Request]]:
        lines: dict[str, list[Request]] = defaultdict(list)
        for request in requests:
            lines[request.user].append(request)
        for line in lines.values():
            line.sort(key=self._place, reverse=True)
        return lines

    def _place(self, request: Request) -> tuple[float, float, str]:
        return -request.priority, self._age * _seconds(request.submitted), request.id

    def head(self) -> tuple[Key, Request] | None:
        """The next session and where it stands (lower goes first); None when all were given out."""
        best: tuple[Key, Request] | None = None
        for user, line in self._lines.items():
            priority, age, ref = self._place(line[-1])
            key = (priority, self._shares.of(user), age, ref)
            if best is None or key < best[0]:
                best = key, line[-1]
        return best

    def pop(self, request: Request) -> None:
        """Take the head out."""
        line = self._lines[request.user]
        line.pop()
        if not line:
            del self._lines[request.user]

    def charge(self, request: Request) -> None:
        """Count `request` as held by its user, so that the next pick in this pass is fair."""
        self._shares.charge(request.user, (request.cpu, float(request.memory), request.gpu))


def _seconds(when: datetime) -> float:
    return when.timestamp()


def by_group(items: Iterable[Request]) -> Mapping[str, list[Request]]:
    groups: dict[str, list[Request]] = defaultdict(list)
    for item in items:
        groups[item.group].append(item)
    return groups


def latest(running: Iterable[Running], group: str) -> str | None:
    """The node that got the group's latest session."""
    there = [r for r in running if r.group == group and r.placements]
    return max(there, key=lambda r: (r.started, r.id)).placements[-1].node if there else None
