"""What runs, as columns: when it ends, what each rank gives back then, and what could be made to give way."""

from collections.abc import Iterable, Sequence
from math import inf

import numpy as np

from cluster.scheduler.fleet import UNIT, Bools, Fleet, Floats, Ints, Need, units
from cluster.scheduler.place import Wish, fitting_together
from cluster.scheduler.room import Room, Shares, Spot
from cluster.scheduler.state import Placement, Running


class Holdings:
    """A row for each rank that holds something. Rows of ended sessions are used again."""

    def __init__(self, fleet: Fleet, running: Iterable[Running] = ()) -> None:
        self._fleet = fleet
        self._rows: dict[str, list[int]] = {}
        self._free: list[int] = []
        self._make(64)
        for session in running:
            self.add(session)

    def _make(self, size: int) -> None:
        """Columns of `size` rows, nobody's."""
        self.node: Ints = np.full(size, -1, np.int64)
        self.cpu: Ints = np.zeros(size, np.int64)
        self.memory: Ints = np.zeros(size, np.int64)
        self.devices: Shares = np.zeros((size, self._fleet.width), np.int32)
        self.end: Floats = np.full(size, inf)
        self.began: Floats = np.zeros(size)
        self.priority: Ints = np.zeros(size, np.int64)
        self.standing: Floats = np.zeros(size)
        self.soft: Bools = np.zeros(size, np.bool_)
        self.stopping: Bools = np.zeros(size, np.bool_)
        self.session: list[str] = [""] * size
        self._free = list(range(size - 1, -1, -1))

    def _grow(self) -> None:
        """Twice as many rows."""
        size = len(self.node)
        columns = ("node", "cpu", "memory", "devices", "end", "began", "priority", "standing", "soft", "stopping")
        before = {name: getattr(self, name) for name in columns} | {"session": self.session}
        self._make(2 * size)
        for name, column in before.items():
            getattr(self, name)[:size] = column
        self._free = list(range(2 * size - 1, size - 1, -1))

    def add(self, running: Running) -> None:
        rows = self._rows.setdefault(running.id, [])
        for placement in running.placements:
            i = self._fleet.index.get(placement.node)
            if i is None:
                continue
            if not self._free:
                self._grow()
            row = self._free.pop()
            rows.append(row)
            self._fill(row, i, placement, running)

    def _fill(self, row: int, i: int, placement: Placement, running: Running) -> None:
        self.node[row], self.session[row] = i, running.id
        self.cpu[row], self.memory[row] = units(placement.cpu), placement.memory
        self.devices[row] = 0
        for device, share in placement.devices.items():
            self.devices[row, device] = units(share)
        self.end[row] = running.ends_by.timestamp() if running.ends_by else inf
        self.began[row], self.priority[row] = running.started.timestamp(), running.priority
        self.soft[row], self.stopping[row] = running.preemptible, running.stopping
        self.standing[row] = running.standing

    def remove(self, ident: str) -> None:
        for row in self._rows.pop(ident, []):
            self.node[row], self.session[row] = -1, ""
            self._free.append(row)

    def of(self, sessions: Iterable[str]) -> Bools:
        """Which rows are theirs."""
        found = np.zeros(len(self.node), np.bool_)
        for ident in sessions:
            found[self._rows.get(ident, [])] = True
        return found

    def of_group(self, group: str) -> Ints:
        """Rows on the group's nodes."""
        member = np.zeros(len(self._fleet) + 1, np.bool_)
        member[self._fleet.members(group)] = True
        return np.flatnonzero(member[self.node])


class Giving:
    """Ranks that give back what they hold, in a given order: how many of them until a class of requests finds room?"""

    def __init__(self, holdings: Holdings, rows: Ints) -> None:
        """`rows` in the order in which they give back."""
        self.rows = rows
        self._node, self._cpu, self._memory = holdings.node, holdings.cpu, holdings.memory
        self._devices = holdings.devices

    def append(self, ranks: Sequence[tuple[Need, Spot]]) -> None:
        """These give back last."""
        if not ranks:
            return
        devices = np.zeros((len(ranks), self._devices.shape[1]), np.int32)
        for row, (need, (_, held)) in enumerate(ranks):
            devices[row, list(held)] = need.share if need.fraction else UNIT
        self.rows = np.concatenate([self.rows, np.arange(len(ranks)) + len(self._node)])
        self._node = np.concatenate([self._node, np.array([spot.node for _, spot in ranks], np.int64)])
        self._cpu = np.concatenate([self._cpu, np.array([need.cores for need, _ in ranks], np.int64)])
        self._memory = np.concatenate([self._memory, np.array([need.memory for need, _ in ranks], np.int64)])
        self._devices = np.concatenate([self._devices, devices])

    def sort(self, order: Ints) -> None:
        """Put them in another order: positions, the first to give back first."""
        self.rows = self.rows[order]

    def __len__(self) -> int:
        return len(self.rows)

    def until(self, room: Room, wish: Wish, start: int = 0) -> int | None:
        """The smallest number with which `wish` has room, or None; `room` has those before `start` back already."""
        if start >= len(self):
            return None
        fits = np.zeros(len(room.fleet), np.bool_)
        nodes = room.fleet.eligible(wish.need)
        fits[nodes] = room.fits(wish.need, nodes)
        step, low = 1, start
        while True:
            high = min(low + step, len(self))
            if self._enough(room, wish, fits, start, high):
                return self._least(room, wish, fits, start, low, high)
            if high == len(self):
                return None
            low, step = high, step * 4

    def _least(self, room: Room, wish: Wish, fits: Bools, start: int, low: int, high: int) -> int:
        """Between `low`, which is too few, and `high`, which is enough."""
        while high - low > 1:
            middle = (low + high) // 2
            if self._enough(room, wish, fits, start, middle):
                high = middle
            else:
                low = middle
        return high

    def _enough(self, room: Room, wish: Wish, fits: Bools, start: int, end: int) -> bool:
        rows = self.rows[start:end]
        nodes, where = np.unique(self._node[rows], return_inverse=True)
        cpu, memory, devices = room.cpu[nodes], room.memory[nodes], room.devices[nodes]
        np.add.at(cpu, where, self._cpu[rows])
        np.add.at(memory, where, self._memory[rows])
        np.add.at(devices, where, self._devices[rows])
        now = fits.copy()
        now[nodes] = room.fleet.is_eligible(wish.need)[nodes] & _fit(wish.need, cpu, memory, devices)
        return fitting_together(room, np.flatnonzero(now), wish)

    def give(self, room: Room, start: int, end: int) -> None:
        """Put back into `room` what these give."""
        part = self.rows[start:end]
        room.add(self._node[part], self._cpu[part], self._memory[part], self._devices[part])


def _fit(need: Need, cpu: Ints, memory: Ints, devices: Shares) -> Bools:
    found: Bools = (cpu >= need.cores) & (memory >= need.memory)
    if need.fraction:
        found &= devices.max(axis=1) >= need.share
    elif need.share:
        found &= (devices >= UNIT).sum(axis=1) >= need.whole
    return found
