"""What is free on the nodes, and the tables in which the scheduler looks up where a class of requests fits best."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.scheduler.fleet import UNIT, Bools, Fleet, Floats, Ints, Need, units
from cluster.scheduler.state import NodeView, Placement

if TYPE_CHECKING:
    from cluster.scheduler.selectors import Mood, Selector

Shares = NDArray[np.int32]

TABLES = 256
"""So many classes keep their table; the one not used for longest goes first."""


class Spot(NamedTuple):
    """One rank's place: the node's number and the numbers of its devices there."""

    node: int
    devices: tuple[int, ...]


class Room:
    """What is free, by node number. `log` tells which nodes changed, so that tables look only at those again.

    `cpu` (units), `memory` (bytes), `devices` (nodes x width, free units; 0 where there is none); from these
    `whole` (how many are free), `most` (the largest free share) and `total`. `placed`: ranks put there in this pass.
    """

    def __init__(self, fleet: Fleet, cpu: Ints, memory: Ints, devices: Shares) -> None:
        self.fleet = fleet
        self.cpu, self.memory, self.devices = cpu, memory, devices
        self.whole: Ints = (devices == UNIT).sum(axis=1, dtype=np.int64)
        self.most: Ints = devices.max(axis=1).astype(np.int64)
        self.total: Ints = devices.sum(axis=1, dtype=np.int64)
        self.placed: Ints = np.zeros(len(fleet), np.int64)
        self.log: list[int] = []
        self._tables: dict[tuple[Need, str], Table] = {}

    @classmethod
    def of(cls, fleet: Fleet) -> "Room":
        """As the fleet's views say."""
        nodes = fleet.nodes
        devices = np.zeros((len(nodes), fleet.width), np.int32)
        for i, node in enumerate(nodes):
            devices[i, : len(node.devices)] = _free(node)
        cpu = np.array([units(node.cpu_free) for node in nodes], np.int64)
        return cls(fleet, cpu, np.array([node.memory_free for node in nodes], np.int64), devices)

    def copy(self) -> "Room":
        return Room(self.fleet, self.cpu.copy(), self.memory.copy(), self.devices.copy())

    # ── does it fit? ─────────────────────────────────────────────────────────────────────────────

    def fits(self, need: Need, nodes: Ints) -> Bools:
        """Which of `nodes` have room for one rank of `need`. The model of the GPU is not looked at here."""
        found: Bools = (self.cpu[nodes] >= need.cores) & (self.memory[nodes] >= need.memory)
        if need.fraction:
            found &= self.most[nodes] >= need.share
        elif need.share:
            found &= self.whole[nodes] >= need.whole
        return found

    def hopeless(self, need: Need, most: tuple[int, int, int, int]) -> bool:
        """No node has as much of one thing as `need` asks; `most` is from `maxima`."""
        cpu, memory, whole, share = most
        if need.cores > cpu or need.memory > memory:
            return True
        return need.share > share if need.fraction else need.whole > whole

    def maxima(self, group: str) -> tuple[int, int, int, int]:
        """The most cores, bytes, free devices and free share of one device on any open node of the group."""
        nodes = self.fleet.members(group)
        nodes = nodes[self.fleet.open[nodes]]
        if not len(nodes):
            return 0, 0, 0, 0
        columns = (self.cpu, self.memory, self.whole, self.most)
        cpu, memory, whole, most = (int(column[nodes].max()) for column in columns)
        return cpu, memory, whole, most

    def table(self, need: Need, selector: "Selector", mood: "Mood") -> "Table":
        """The class's scores, up to date."""
        key = need, selector.name
        found = self._tables.pop(key, None)
        if found is None:
            found = Table(self, need, selector)
            if len(self._tables) >= TABLES:
                del self._tables[next(iter(self._tables))]
        self._tables[key] = found
        found.refresh(mood)
        return found

    # ── devices ──────────────────────────────────────────────────────────────────────────────────

    def offer(self, i: int, need: Need) -> tuple[int, ...]:
        """The devices that one rank of `need` gets on node `i`, which must fit."""
        return pick(self.devices[i].tolist(), need)

    def placement(self, need: Need, spot: Spot) -> Placement:
        """The spot as the plan tells it."""
        share = need.gpu if need.fraction else 1.0
        return Placement(self.fleet.nodes[spot.node].name, need.cpu, need.memory, dict.fromkeys(spot.devices, share))

    # ── changes ──────────────────────────────────────────────────────────────────────────────────

    def take(self, need: Need, spots: Iterable[Spot]) -> None:
        """Put ranks of `need` there."""
        self._move(need, spots, -1)

    def give(self, need: Need, spots: Iterable[Spot]) -> None:
        """Take them away again."""
        self._move(need, spots, 1)

    def _move(self, need: Need, spots: Iterable[Spot], sign: int) -> None:
        share = sign * (need.share if need.fraction else UNIT)
        for i, devices in spots:
            self.placed[i] -= sign
            self.cpu[i] += sign * need.cores
            self.memory[i] += sign * need.memory
            if devices:
                row = self.devices[i]
                for device in devices:
                    row[device] += share
                self._count(i)
            self.log.append(i)

    def shift(self, i: int, cpu: int, memory: int, devices: "dict[int, int]") -> None:
        """Change what is free on node `i` by so much; a device has between nothing and all of itself free."""
        self.cpu[i] += cpu
        self.memory[i] += memory
        if devices:
            row = self.devices[i]
            for device, share in devices.items():
                row[device] = min(UNIT, max(0, int(row[device]) + share))
            self._count(i)
        self.log.append(i)

    def set(self, i: int, view: NodeView) -> None:
        """What is free on node `i` is what `view` says."""
        self.cpu[i], self.memory[i] = units(view.cpu_free), view.memory_free
        self.devices[i, : len(view.devices)] = _free(view)
        self._count(i)
        self.log.append(i)

    def view(self, i: int, view: NodeView) -> NodeView:
        """`view` with what is free on node `i`."""
        devices = tuple(share / UNIT for share in self.devices[i, : len(view.devices)].tolist())
        return replace(view, cpu_free=int(self.cpu[i]) / UNIT, memory_free=int(self.memory[i]), devices=devices)

    def _count(self, i: int) -> None:
        row: list[int] = self.devices[i].tolist()
        self.whole[i], self.most[i], self.total[i] = row.count(UNIT), max(row), sum(row)

    def add(self, nodes: Ints, cpu: Ints, memory: Ints, devices: Shares) -> None:
        """Give back many placements at once; a node may be there more than once."""
        np.add.at(self.cpu, nodes, cpu)
        np.add.at(self.memory, nodes, memory)
        np.add.at(self.devices, nodes, devices)
        touched = np.unique(nodes)
        rows = np.clip(self.devices[touched], 0, UNIT)
        self.devices[touched] = rows
        self.whole[touched] = (rows == UNIT).sum(axis=1)
        self.most[touched], self.total[touched] = rows.max(axis=1), rows.sum(axis=1)
        self.log.extend(touched.tolist())

    def forget(self) -> None:
        """Begin the log anew, when no table needs the old one any more."""
        if len(self.log) > 4 * len(self.fleet) + 1024:
            self.log.clear()
            self._tables.clear()


def _free(view: NodeView) -> list[int]:
    """What is free of each device, in units."""
    return [min(UNIT, max(0, units(share))) for share in view.devices]


def pick(free: Sequence[int], need: Need) -> tuple[int, ...]:
    """Of one node's devices those that a rank gets: a share sits on the fullest that takes it, whole ones are free."""
    wanted = need.share
    if not wanted:
        return ()
    if need.fraction:
        fullest, least = -1, 2 * UNIT
        for d, share in enumerate(free):
            if wanted <= share < least:
                fullest, least = d, share
        return (fullest,)
    return tuple([d for d, share in enumerate(free) if share == UNIT][: need.whole])


class Table:
    """One class's score on every node, the lowest best, infinite where it does not fit."""

    __slots__ = ("_eligible", "_mark", "_mask", "_mood", "_need", "_room", "_seen", "_selector", "score")

    def __init__(self, room: Room, need: Need, selector: "Selector") -> None:
        self._room, self._need, self._selector = room, need, selector
        self._eligible, self._mask = room.fleet.eligible(need), room.fleet.is_eligible(need)
        self.score: Floats = np.full(len(room.fleet), np.inf)
        self._seen = -1
        self._mood: Mood | None = None
        self._mark: object = None

    def refresh(self, mood: "Mood") -> None:
        """Look again at the nodes that changed; at all of them when the mood has."""
        log, mark = self._room.log, mood.mix
        self._mood = mood
        if self._seen < 0 or (self._selector.moody and mark != self._mark):
            self.score.fill(np.inf)
            self._look(self._eligible)
        elif self._seen < len(log):
            nodes = np.array([*set(log[self._seen :])])
            self.score[nodes] = np.inf
            self._look(nodes[self._mask[nodes]])
        self._seen, self._mark = len(log), mark

    def _look(self, nodes: Ints) -> None:
        nodes = nodes[self._room.fits(self._need, nodes)]
        if len(nodes) and self._mood is not None:
            self.score[nodes] = self._selector.score(self._room, self._need, nodes, self._mood)

    def best(self) -> int:
        """The node with the lowest score, the first by name among equals; -1 when it fits nowhere."""
        if self._selector.rotates and self._mood is not None:
            return self._next(self._mood.last + 1)
        i = int(self.score.argmin()) if len(self.score) else -1
        return i if i >= 0 and self.score[i] != np.inf else -1

    def _next(self, start: int) -> int:
        """The first node from `start` on, and from the beginning again. Whatever fits has the same score."""
        for first in (start, 0):
            rest = self.score[first:]
            if len(rest) and rest[i := int(rest.argmin())] != np.inf:
                return first + i
        return -1

    def fitting(self) -> Ints:
        """Numbers of the nodes it fits on."""
        return np.flatnonzero(self.score != np.inf)

    def order(self, nodes: Ints, count: int) -> list[int]:
        """The `count` best of `nodes`, best first."""
        score = self.score[nodes]
        if self._selector.rotates and self._mood is not None:
            score = ((nodes - self._mood.last - 1) % len(self.score)).astype(float)
        if count < len(nodes):
            worst = np.partition(score, count - 1)[count - 1]
            nodes, score = nodes[score <= worst], score[score <= worst]
        return [int(i) for i in nodes[np.argsort(score, kind="stable")][:count]]
