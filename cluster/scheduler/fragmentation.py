"""How much of the free GPUs becomes useless for what people usually ask (the idea of FGD, USENIX ATC 2023)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from cluster.scheduler.fleet import UNIT, Floats, Ints, Need
from cluster.scheduler.room import Room, pick

if TYPE_CHECKING:
    from cluster.scheduler.selectors import Mood

Mix = tuple[tuple[int, int], ...]
"""(GPUs per node in units, weight), of the needs in a group."""

USUAL: Mix = ((UNIT // 2, 1), (UNIT, 4), (2 * UNIT, 2), (4 * UNIT, 2), (8 * UNIT, 1))
"""Where nothing there tells."""


def mix_of(counts: Iterable[tuple[Need, int]]) -> Mix:
    """The mix of so many requests of each need."""
    weights: dict[int, int] = {}
    for need, count in counts:
        if need.share:
            weights[need.share] = weights.get(need.share, 0) + count
    return tuple(sorted(weights.items())) or USUAL


def score(room: Room, need: Need, nodes: Ints, mix: Mix) -> Floats:
    """What would be lost more on each node; the fullest first among equals."""
    before = room.devices[nodes].astype(np.int64)
    after = before.copy()
    for row, i in enumerate(nodes):
        share = need.share if need.fraction else UNIT
        for device in room.offer(int(i), need):
            after[row, device] -= share
    full = room.total[nodes] / (UNIT * np.maximum(room.fleet.count[nodes], 1))
    lost: Floats = (_lost(after, mix) - _lost(before, mix)) / UNIT + 1e-3 * full
    return lost


def _lost(devices: Ints, mix: Mix) -> Floats:
    """Expected free share that a request drawn from `mix` could not use, in units."""
    total, whole = devices.sum(axis=1), (devices == UNIT).sum(axis=1)
    lost = np.zeros(len(devices))
    for share, weight in mix:
        if share < UNIT:
            usable = np.where(devices >= share, devices, 0).sum(axis=1)
        else:
            usable = np.where(whole * UNIT >= share, whole * UNIT, 0)
        lost += weight * (total - usable)
    return lost / sum(weight for _, weight in mix)


def device(room: Room, i: int, need: Need, mood: "Mood") -> tuple[int, ...]:
    """Which devices of node `i` a rank gets."""
    return pick(room.devices[i].tolist(), need)
