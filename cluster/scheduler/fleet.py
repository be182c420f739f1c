"""The fleet as the scheduler works on it: what never changes during a pass (`Fleet`), and what is free (`Room`).

Both are structs of parallel sequences indexed by a node's number, so that arrays can take the place of the lists.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from cluster.scheduler.state import NodeView, Placement, Request

EPSILON = 1e-6
"""Two shares closer than this are equal (0.1 + 0.2 is 0.3)."""

_VENDORS = {"nvidia", "amd", "intel", "tesla", "geforce", "instinct", "gpu"}


@dataclass(frozen=True, slots=True)
class Need:
    """What one rank of a session asks of one node. Requests with the same need and node count are one class."""

    group: str
    cpu: float
    memory: int
    gpu: float = 0
    gpu_model: str | None = None

    @property
    def fraction(self) -> bool:
        """Part of one device."""
        return EPSILON < self.gpu < 1 - EPSILON

    @property
    def whole(self) -> int:
        """Whole devices, 0 for a fraction."""
        return 0 if self.fraction else round(self.gpu)

    @property
    def sensible(self) -> bool:
        """A fraction of one device or whole devices, never 1.5."""
        return self.fraction or abs(self.gpu - round(self.gpu)) < EPSILON


def need_of(request: Request) -> Need:
    """The even share of `request` that falls on each of its nodes."""
    count = request.node_count
    return Need(request.group, request.cpu / count, request.memory // count, request.gpu / count, request.gpu_model)


def _words(model: str) -> list[str]:
    words = re.findall(r"[a-z0-9]+", model.lower())
    return [re.sub(r"^(\d+)gi?b$", r"\1g", word) for word in words if word not in _VENDORS]


@lru_cache(maxsize=4096)
def matches_model(asked: str, model: str | None) -> bool:
    """Whether a node's GPU `model` is what a person calls `asked`: "a100" is an A100-80G, "a10" isn't one."""
    wanted = "".join(_words(asked))
    words = _words(model or "")
    runs = ("".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1))
    return bool(wanted) and wanted in runs


def free_whole(devices: Sequence[float]) -> int:
    """How many devices nobody uses."""
    return sum(1 for free in devices if free >= 1 - EPSILON)


def best_share(devices: Sequence[float]) -> float:
    """The largest part of one device that is free."""
    return max(devices, default=0.0)


def offered(devices: Sequence[float], need: Need) -> float:
    """How much of what `need` asks in GPUs these devices could give at most."""
    return best_share(devices) if need.fraction else free_whole(devices)


class Fleet:
    """The nodes of a snapshot, by number, and which of them a need may use."""

    def __init__(self, nodes: Iterable[NodeView]) -> None:
        self.nodes = tuple(sorted(nodes, key=lambda node: node.name))
        self.index: Mapping[str, int] = {node.name: i for i, node in enumerate(self.nodes)}
        self._eligible: dict[Need, tuple[int, ...]] = {}
        self._members: dict[str, tuple[int, ...]] = {}

    def members(self, group: str) -> tuple[int, ...]:
        """All nodes of the group, whatever their status."""
        if group not in self._members:
            self._members[group] = tuple(i for i, node in enumerate(self.nodes) if node.group == group)
        return self._members[group]

    def eligible(self, need: Need) -> tuple[int, ...]:
        """Nodes that take new work and, when empty, could hold one rank of `need`."""
        if need not in self._eligible:
            self._eligible[need] = tuple(i for i in self.capable(need) if self.nodes[i].schedulable)
        return self._eligible[need]

    def capable(self, need: Need) -> tuple[int, ...]:
        """Nodes that could hold one rank of `need` if they were empty and took new work."""
        return tuple(i for i in self.members(need.group) if self.holds(i, need))

    def holds(self, i: int, need: Need) -> bool:
        node = self.nodes[i]
        gpus = need.gpu < EPSILON or (need.sensible and self.suits(i, need) and len(node.devices) >= max(need.whole, 1))
        return gpus and node.cpu >= need.cpu - EPSILON and node.memory >= need.memory

    def suits(self, i: int, need: Need) -> bool:
        """The node has the GPU model asked for, if one was."""
        return need.gpu_model is None or matches_model(need.gpu_model, self.nodes[i].gpu_model)


@dataclass(slots=True)
class Room:
    """What is free, by node number. Changed as the pass places sessions."""

    fleet: Fleet
    cpu: list[float]
    memory: list[int]
    devices: list[list[float]]
    held: list[int] = field(default_factory=list)
    """How many placements were taken from each node in this pass."""

    @classmethod
    def of(cls, fleet: Fleet) -> "Room":
        nodes = fleet.nodes
        return cls(
            fleet,
            [node.cpu_free for node in nodes],
            [node.memory_free for node in nodes],
            [list(node.devices) for node in nodes],
            [0] * len(nodes),
        )

    def copy(self) -> "Room":
        return Room(self.fleet, self.cpu[:], self.memory[:], [d[:] for d in self.devices], self.held[:])

    def floor(self, other: "Room") -> "Room":
        """What is free in both."""
        return Room(
            self.fleet,
            [min(a, b) for a, b in zip(self.cpu, other.cpu, strict=True)],
            [min(a, b) for a, b in zip(self.memory, other.memory, strict=True)],
            [[min(a, b) for a, b in zip(x, y, strict=True)] for x, y in zip(self.devices, other.devices, strict=True)],
            self.held[:],
        )

    def fits(self, i: int, need: Need) -> bool:
        if self.cpu[i] < need.cpu - EPSILON or self.memory[i] < need.memory:
            return False
        return need.gpu < EPSILON or offered(self.devices[i], need) >= need.gpu - EPSILON

    def placement(self, i: int, need: Need) -> Placement:
        """One rank of `need` on node `i`, which must fit: a fraction goes on the fullest device that takes it."""
        return Placement(self.fleet.nodes[i].name, need.cpu, need.memory, self._devices(i, need))

    def _devices(self, i: int, need: Need) -> dict[int, float]:
        free = self.devices[i]
        if need.fraction:
            fitting = [d for d, share in enumerate(free) if share >= need.gpu - EPSILON]
            return {min(fitting, key=lambda d: (free[d], d)): need.gpu}
        empty = [d for d, share in enumerate(free) if share >= 1 - EPSILON]
        return dict.fromkeys(empty[: need.whole], 1.0)

    def take(self, placements: Iterable[Placement]) -> None:
        self._move(placements, -1)

    def give(self, placements: Iterable[Placement]) -> None:
        self._move(placements, 1)

    def _move(self, placements: Iterable[Placement], sign: int) -> None:
        for placement in placements:
            i = self.fleet.index.get(placement.node)
            if i is None:
                continue
            self.cpu[i] += sign * placement.cpu
            self.memory[i] += sign * placement.memory
            self.held[i] -= sign
            for device, share in placement.devices.items():
                self.devices[i][device] = min(1.0, max(0.0, self.devices[i][device] + sign * share))
