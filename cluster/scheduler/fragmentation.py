"""How much of the free GPUs will be useless for what people usually ask, node by node: the expected fragmentation.

Three parts, in GPUs, over the mix of what waits and runs in the group:

- now: what a request of the mix could not use at this moment (the idea of FGD, USENIX ATC 2023);
- later: what is left of each device, on average, when `OFFERS` more requests of the mix have been offered to it;
- supply: what stays idle for want of cores or memory when the node is filled with requests of one kind.

A rank goes where the sum grows least. "Now" and "later" depend on the devices alone, so that they are looked up in
tables; the mix is rounded, so that the tables are seldom made anew.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf, log2
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cluster.scheduler.fleet import UNIT, Fleet, Floats, Ints, Need
from cluster.scheduler.room import Room, Shares, pick

if TYPE_CHECKING:
    from cluster.scheduler.selectors import Mood

NOW, SUPPLY = 0.25, 0.5
"""Weights of these parts; "later" has 1. Half or twice as much changes little."""

OFFERS = 20
"""Requests offered to a device for what is left of it later."""

STEPS = 1000
"""Shares of a device are looked up to this fraction."""

EQUAL = 1e-5
"""What a free GPU counts for, and a hundred free cores, so that among equals the fullest comes first."""


class Part(NamedTuple):
    """Requests that are alike as far as fragmentation goes."""

    share: int
    """GPUs per node in units."""
    cores: int = 0
    """Units per GPU, to a factor of √2; 0 is none to speak of."""
    memory: int = 0
    """Bytes per GPU, to a factor of √2."""
    model: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Mix:
    parts: tuple[tuple[Part, int], ...]
    """With their weights, powers of 4: it needs no more, and so it is seldom another."""
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(self.parts))

    def __hash__(self) -> int:
        return self._hash


USUAL = Mix(
    ((Part(UNIT // 2), 1), (Part(UNIT), 4), (Part(2 * UNIT), 2), (Part(4 * UNIT), 2), (Part(8 * UNIT), 1)),
)
"""Where nothing in the group tells."""


class Asked:
    """What waits and runs in one group, counted."""

    def __init__(self) -> None:
        self._counts: dict[Part, int] = {}
        self._mix: Mix | None = USUAL

    def count(self, need: Need, more: int) -> None:
        """So many ranks of `need` more."""
        if not need.share:
            return
        part = _part(need)
        before = self._counts.pop(part, 0)
        if before + more:
            self._counts[part] = before + more
        if _weight(before) != _weight(before + more):
            self._mix = None

    @property
    def mix(self) -> Mix:
        """The same object until some part has four times as many or few."""
        if self._mix is None:
            parts = tuple((part, _weight(count)) for part, count in sorted(self._counts.items()))
            self._mix = Mix(parts) if parts else USUAL
        return self._mix


def _weight(count: int) -> int:
    """0, 1, 4, 16 … for 0, 1, 2, 8 …: the power of 4 that is nearest."""
    return 4 ** (count.bit_length() // 2) if count else 0


@lru_cache(maxsize=4096)
def _part(need: Need) -> Part:
    gpus = need.share / UNIT
    cores, memory = _rounded(need.cores / gpus), _rounded(need.memory / gpus)
    return Part(need.share, cores, memory, need.gpu_model or "", need.kind or "")


def _rounded(amount: float) -> int:
    return round(2 ** (round(2 * log2(amount)) / 2)) if amount >= 1 else 0


class _Tables:
    """What the mix means for the nodes of a fleet; the first index is the number of the node's model."""

    def __init__(self, fleet: Fleet, group: str, mix: Mix) -> None:
        parts, suits = [part for part, _ in mix.parts], _suits(fleet, group, mix)
        rows, row = np.unique(suits, axis=0, return_inverse=True)
        self.device: Floats = np.array([_device(parts, weights) for weights in rows])[row]
        """Models x (STEPS + 1): "now" and "later" of a device, by its free share."""
        self.whole: Floats = np.array([_whole(parts, weights, fleet.width) for weights in rows])[row]
        """Models x (width + 1): "now" of the free devices together, by how many there are."""
        self.broken: Floats = self.whole[:, [0, *range(fleet.width)]] - self.whole
        """The same: how much it grows when one of them is."""
        per_gpu = [(max(part.cores, 1), max(part.memory, 1)) for part in parts]
        thirsts, column = np.unique(np.array(per_gpu, float), axis=0, return_inverse=True)
        self._gpus_a_core, self._gpus_a_byte = 1 / thirsts.T
        self._chance: Floats = suits @ np.eye(len(thirsts))[column]
        """Models x thirsts: how much of the mix wants so many cores and bytes for each GPU."""
        self._rows: dict[int, list[float]] = {}

    def useless(self, model: int) -> list[float]:
        """A row of `device`, for looking up one by one."""
        if model not in self._rows:
            self._rows[model] = self.device[model].tolist()
        return self._rows[model]

    def supply(self, model: Ints, cpu: Ints, memory: Ints, gpus: Floats) -> Floats:
        """For nodes with so much free -> GPUs of it for which cores or memory will not do. All but `model` may have
        more dimensions before that of the nodes."""
        usable = cpu[..., None] * self._gpus_a_core
        np.minimum(usable, memory[..., None] * self._gpus_a_byte, out=usable)
        np.minimum(usable, gpus[..., None], out=usable)
        idle: Floats = gpus - np.einsum("...ij,ij->...i", usable, self._chance[model])
        return SUPPLY * idle


def _suits(fleet: Fleet, group: str, mix: Mix) -> Floats:
    """Models x parts: how much of the mix each part is, 0 where it wants another model. The last row is for nodes
    without a model, so that -1 finds it."""
    some = np.zeros(int(fleet.model.max(initial=-1)) + 2, np.int64)
    some[fleet.model] = np.arange(len(fleet))
    suits = np.zeros((len(some), len(mix.parts)))
    for column, (part, weight) in enumerate(mix.parts):
        wish = Need(group, 0, 0, 1, part.model or None, part.kind or None)
        suits[:, column] = weight * fleet.suited(wish)[some]
    suits /= sum(weight for _, weight in mix.parts)
    return suits


def _device(parts: Iterable[Part], weights: Floats) -> Floats:
    """By free share in steps: what of it is useless now and later."""
    chances: dict[int, float] = {}
    for part, weight in zip(parts, weights, strict=True):
        step = min(max(part.share * STEPS // UNIT, 1), STEPS)
        chances[step] = chances.get(step, 0.0) + float(weight)
    free = np.arange(STEPS + 1) / STEPS
    later, useful = free.copy(), np.zeros(STEPS + 1)
    for _ in range(OFFERS):
        left = later.copy()
        for step, chance in chances.items():
            left[step:] += chance * (later[: STEPS + 1 - step] - later[step:])
        later = left
    for step, chance in chances.items():
        if step < STEPS:
            useful[step:] += chance
    return later + NOW * free * (1 - useful)


def _whole(parts: Iterable[Part], weights: Floats, width: int) -> Floats:
    """By number of free devices: what of them requests for whole ones can use now, taken off."""
    count = np.arange(width + 1)
    useful = np.zeros(width + 1)
    for part, weight in zip(parts, weights, strict=True):
        if part.share >= UNIT:
            useful += weight * count * (count * UNIT >= part.share)
    return -NOW * useful


@lru_cache(maxsize=16)
def _tables(fleet: Fleet, group: str, mix: Mix) -> _Tables:
    return _Tables(fleet, group, mix)


def score(room: Room, need: Need, nodes: Ints, mix: Mix) -> Floats:
    """What becomes useless on each of `nodes`, which fit, when a rank of `need` goes there; among equals the fullest
    is the lowest."""
    tables, model = _tables(room.fleet, need.group, mix), room.fleet.model[nodes]
    cpu, memory, gpus = room.cpu[nodes], room.memory[nodes], room.total[nodes] / UNIT
    taken = np.array([[[need.cores], [0]], [[need.memory], [0]]])
    after, before = tables.supply(model, cpu - taken[0], memory - taken[1], gpus - [[need.gpu], [0]])
    lost: Floats = after - before + EQUAL * gpus + EQUAL / UNIT / 100 * cpu
    if need.fraction:
        lost += _by_device(tables, need, model, room.devices[nodes], room.whole[nodes]).min(axis=1)
    elif need.share:
        whole = room.whole[nodes]
        lost += tables.whole[model, whole - need.whole] - tables.whole[model, whole]
        lost += need.whole * (tables.device[model, 0] - tables.device[model, STEPS])
    return lost


def _by_device(tables: _Tables, need: Need, model: Ints, free: Shares, whole: Ints) -> Floats:
    """The same for a share on each device of each node (nodes x width), infinite where it does not fit; without what
    the devices have in common."""
    left = free - need.share
    steps = np.maximum(np.stack((left, free)), 0) * STEPS // UNIT
    after, before = tables.device[model[:, None], steps]
    broken = tables.broken[model, whole]
    lost = after - before + (free == UNIT) * broken[:, None]
    found: Floats = np.where(left >= 0, lost, np.inf)
    return found


def device(room: Room, i: int, need: Need, mood: "Mood") -> tuple[int, ...]:
    """Which devices of node `i` a rank gets: the one on which a share leaves the least useless."""
    if not need.fraction:
        return pick(room.devices[i].tolist(), need)
    tables, model = _tables(room.fleet, need.group, mood.mix), int(room.fleet.model[i])
    useless, broken = tables.useless(model), float(tables.broken[model, room.whole[i]])
    best, least = -1, inf
    for at, free in enumerate(room.devices[i].tolist()):
        if free >= need.share:
            lost = useless[(free - need.share) * STEPS // UNIT] - useless[free * STEPS // UNIT]
            lost += broken if free == UNIT else 0.0
            if lost < least:
                best, least = at, lost
    return (best,)
