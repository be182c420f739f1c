"""The nodes as the scheduler counts them: what does not change during a pass, as arrays by node number.

Amounts inside the scheduler are integers (`UNIT` a core and a device, bytes), so that what is taken and given back is
the same to the last bit.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cluster.scheduler.state import NodeView, Request

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

UNIT = 1_000_000
"""One core, one device."""

GPUS = ("cuda", "rocm")
"""The kinds of accelerators that "a GPU" means where a group has others as well."""

AWAKE = 200.0
"""W that a node draws whose power is not known."""

_VENDORS = {"nvidia", "amd", "intel", "tesla", "geforce", "instinct", "gpu"}


def units(amount: float) -> int:
    """Cores or devices as the scheduler counts them."""
    return round(amount * UNIT)


@dataclass(frozen=True, slots=True)
class Need:
    """What one rank of a session asks of one node. Requests with the same need and node count are one class."""

    group: str
    cpu: float
    memory: int
    gpu: float = 0
    gpu_model: str | None = None
    kind: str | None = None
    cores: int = field(init=False, compare=False, repr=False)
    """`cpu` in units."""
    share: int = field(init=False, compare=False, repr=False)
    """`gpu` in units."""
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cores", units(self.cpu))
        object.__setattr__(self, "share", units(self.gpu))
        said = (self.group, self.cpu, self.memory, self.gpu, self.gpu_model, self.kind)
        object.__setattr__(self, "_hash", hash(said))

    def __hash__(self) -> int:
        return self._hash

    @property
    def fraction(self) -> bool:
        """Part of one device."""
        return 0 < self.share < UNIT

    @property
    def whole(self) -> int:
        """Whole devices, 0 for a fraction."""
        return self.share // UNIT

    @property
    def sensible(self) -> bool:
        """A fraction of one device or whole devices, never 1.5."""
        return self.share < UNIT or self.share % UNIT == 0


def need_of(request: Request) -> Need:
    """The even share of `request` that falls on each of its nodes."""
    count = request.node_count
    cpu, memory, gpu = request.cpu / count, request.memory // count, request.gpu / count
    return need_for(request.group, cpu, memory, gpu, request.gpu_model, request.kind)


@lru_cache(maxsize=16384)
def need_for(
    group: str, cpu: float, memory: int, gpu: float, gpu_model: str | None = None, kind: str | None = None
) -> Need:
    """Equal needs are mostly the same object, which is found faster."""
    return Need(group, cpu, memory, gpu, gpu_model, kind)


def _words(model: str) -> list[str]:
    words = re.findall(r"[a-z0-9]+", model.lower())
    return [re.sub(r"^(\d+)gi?b$", r"\1g", word) for word in words if word not in _VENDORS]


@lru_cache(maxsize=4096)
def matches_model(asked: str, model: str | None) -> bool:
    """Whether a node's GPU `model` is what a person calls `asked`: "a100" is an A100-80G, "a10" isn't one; "a100|h100"
    is either."""
    words = _words(model or "")
    runs = {"".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
    return not runs.isdisjoint("".join(_words(wanted)) for wanted in asked.split("|"))


class Fleet:
    """The nodes in the order of their names, and which of them a need may use.

    Arrays over the node's number: `cpu` (units), `memory` (bytes), `count` (devices), `rack` and `model` (-1: none),
    `open` (takes new work), `temperature` (°C; 1000: unknown), `power` (W). A node that comes, goes or changes
    in more than its measurements makes a new fleet.
    """

    def __init__(self, nodes: Iterable[NodeView]) -> None:
        self.nodes = sorted(nodes, key=lambda node: node.name)
        self.index: Mapping[str, int] = {node.name: i for i, node in enumerate(self.nodes)}
        self.cpu: Ints = np.array([units(node.cpu) for node in self.nodes], np.int64)
        self.memory: Ints = np.array([node.memory for node in self.nodes], np.int64)
        self.count: Ints = np.array([len(node.devices) for node in self.nodes], np.int64)
        self.rack: Ints = _numbered([node.rack for node in self.nodes])
        self.open: Bools = np.array([node.schedulable for node in self.nodes], np.bool_)
        self.model: Ints = _numbered([node.gpu_model for node in self.nodes])
        self.temperature: Floats = np.array([_degrees(node) for node in self.nodes])
        self.power: Floats = np.array([node.power or AWAKE for node in self.nodes])
        self.width = max((len(node.devices) for node in self.nodes), default=0) or 1
        """Columns of an array of devices."""
        self._groups = np.array([node.group for node in self.nodes], np.object_)
        self._capable: dict[Need, Ints] = {}
        self._eligible: dict[Need, tuple[Ints, Bools]] = {}
        self._members: dict[str, Ints] = {}
        self._suited: dict[tuple[str | None, str | None, str], Bools] = {}

    def __len__(self) -> int:
        return len(self.nodes)

    def measured(self, i: int, view: NodeView) -> None:
        """New measurements of node `i`, of which nothing else has changed."""
        self.nodes[i] = view
        self.temperature[i], self.power[i] = _degrees(view), view.power or AWAKE

    def members(self, group: str) -> Ints:
        """Numbers of all nodes of the group, whatever their status."""
        if group not in self._members:
            self._members[group] = np.flatnonzero(self._groups == group)
        return self._members[group]

    def eligible(self, need: Need) -> Ints:
        """Nodes that take new work and, when empty, could hold one rank of `need`."""
        return self._chosen(need)[0]

    def is_eligible(self, need: Need) -> Bools:
        """The same as a mask over all nodes."""
        return self._chosen(need)[1]

    def _chosen(self, need: Need) -> tuple[Ints, Bools]:
        if need not in self._eligible:
            capable = self.capable(need)
            nodes = capable[self.open[capable]]
            mask = np.zeros(len(self), np.bool_)
            mask[nodes] = True
            self._eligible[need] = nodes, mask
        return self._eligible[need]

    def capable(self, need: Need) -> Ints:
        """Nodes that could hold one rank of `need` if they were empty and took new work."""
        if need not in self._capable:
            nodes = self.members(need.group)
            fits = (self.cpu[nodes] >= need.cores) & (self.memory[nodes] >= need.memory)
            if need.share > 0:
                fits &= self.suited(need)[nodes] & (self.count[nodes] >= max(need.whole, 1)) & need.sensible
            self._capable[need] = nodes[fits]
        return self._capable[need]

    def suits(self, i: int, need: Need) -> bool:
        """Node `i` has the accelerator asked for, if one was."""
        return bool(self.suited(need)[i])

    def suited(self, need: Need) -> Bools:
        """Which nodes have the model and kind of accelerator asked for."""
        key = need.gpu_model, need.kind, need.group
        if key not in self._suited:
            kinds = self._kinds(need)
            answers: dict[tuple[str | None, str | None], bool] = {}
            for node in self.nodes:
                what = node.gpu_model, node.kind
                if what not in answers:
                    answers[what] = (node.kind or "cuda") in kinds and _named(need, *what)
            told = [answers[node.gpu_model, node.kind] for node in self.nodes]
            self._suited[key] = np.array(told, np.bool_)
        return self._suited[key]

    def _kinds(self, need: Need) -> set[str]:
        """The kinds that will do: the one asked for; any where a model is named; else GPUs where the group has them."""
        there = {self.nodes[i].kind or "cuda" for i in self.members(need.group) if self.nodes[i].devices}
        if need.kind is not None:
            return {need.kind}
        if need.gpu_model is not None:
            return there
        return there & set(GPUS) or there


def _named(need: Need, model: str | None, kind: str | None) -> bool:
    if need.gpu_model is None:
        return True
    return matches_model(need.gpu_model, model) or need.gpu_model.lower() == (kind or "cuda")


def _degrees(node: NodeView) -> float:
    return 1000.0 if node.temperature is None else node.temperature


def _numbered(names: list[str | None]) -> Ints:
    """Equal names get equal numbers, in the order of the names; None is -1."""
    numbers = {name: i for i, name in enumerate(sorted({name for name in names if name is not None}))}
    return np.array([-1 if name is None else numbers[name] for name in names], np.int64)
