"""Finding a place: one node that fits best, or for a gang as many different nodes as it asks, or none."""

from dataclasses import dataclass, field

import numpy as np

from cluster.scheduler.fleet import UNIT, Ints, Need
from cluster.scheduler.room import Room, Spot, Table, pick
from cluster.scheduler.selectors import Mood, Selector


@dataclass(frozen=True, slots=True)
class Wish:
    """A class of requests: what each rank needs, how many ranks, and whether on one rack."""

    need: Need
    count: int = 1
    rack: str | None = None
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.need, self.count, self.rack)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(slots=True)
class Reserved:
    """What will be left on some nodes when the session they are reserved for has started: whoever is still there then
    must do with that. Node number -> [cpu, memory, devices] in units."""

    rows: dict[int, tuple[int, int, list[int]]] = field(default_factory=dict)

    @classmethod
    def of(cls, room: Room, spots: tuple[Spot, ...]) -> "Reserved":
        """`room` as it will be then, with the session in it at `spots`."""
        return cls({i: (int(room.cpu[i]), int(room.memory[i]), room.devices[i].tolist()) for i, _ in spots})

    def devices(self, room: Room, i: int) -> list[int]:
        """What is free on the devices of node `i` now and then."""
        return [min(now, then) for now, then in zip(room.devices[i].tolist(), self.rows[i][2], strict=True)]

    def allows(self, room: Room, i: int, need: Need) -> bool:
        """A rank of `need` on node `i` would not be in the way."""
        if i not in self.rows:
            return True
        cpu, memory, _ = self.rows[i]
        if need.cores > cpu or need.memory > memory:
            return False
        free = self.devices(room, i)
        return max(free) >= need.share if need.fraction else free.count(UNIT) >= need.whole

    def take(self, need: Need, spots: tuple[Spot, ...]) -> None:
        """These stay beyond the reservation."""
        for i, devices in spots:
            if i in self.rows:
                cpu, memory, free = self.rows[i]
                for device in devices:
                    free[device] -= need.share if need.fraction else UNIT
                self.rows[i] = cpu - need.cores, memory - need.memory, free


def place(
    room: Room, wish: Wish, selector: Selector, mood: Mood, reserved: Reserved | None = None
) -> tuple[Spot, ...] | None:
    """Where the ranks of `wish` go now, on different nodes, best first; None without room. Nothing is taken."""
    need = wish.need
    table = room.table(need, selector, mood)
    nodes = _one(room, table, need, reserved) if wish.count == 1 else _gang(room, table, wish, reserved)
    if nodes is None:
        return None
    return tuple(Spot(i, _devices(room, i, need, selector, mood, reserved)) for i in nodes)


def _one(room: Room, table: Table, need: Need, reserved: Reserved | None) -> list[int] | None:
    i = table.best()
    if i < 0:
        return None
    if reserved is None or reserved.allows(room, i, need):
        return [i]
    nodes = _allowed(room, table.fitting(), need, reserved)
    return table.order(nodes, 1) or None


def _allowed(room: Room, nodes: Ints, need: Need, reserved: Reserved) -> Ints:
    barred = [i for i in reserved.rows if not reserved.allows(room, i, need)]
    return nodes[~np.isin(nodes, barred)]


def _gang(room: Room, table: Table, wish: Wish, reserved: Reserved | None) -> list[int] | None:
    nodes = table.fitting()
    if reserved is not None:
        nodes = _allowed(room, nodes, wish.need, reserved)
    if len(nodes) < wish.count:
        return None
    if wish.rack is not None:
        return _near(room, table, nodes, wish)
    return table.order(nodes, wish.count)


def _near(room: Room, table: Table, nodes: Ints, wish: Wish) -> list[int] | None:
    """On one rack, the one with the fewest nodes to spare; if none will do and it need not, on as few as possible."""
    racks = room.fleet.rack[nodes]
    names, counts = np.unique(racks[racks >= 0], return_counts=True)
    enough = counts >= wish.count
    if enough.any():
        tightest = names[enough][counts[enough].argmin()]
        return table.order(nodes[racks == tightest], wish.count)
    if wish.rack == "required":
        return None
    chosen: list[int] = []
    for rack in [*names[np.argsort(-counts, kind="stable")], -1]:
        chosen += table.order(nodes[racks == rack], wish.count - len(chosen))
        if len(chosen) == wish.count:
            break
    return chosen


def fitting_together(room: Room, nodes: Ints, wish: Wish) -> bool:
    """Ranks of `wish` find room on `nodes`, which fit one each."""
    if len(nodes) < wish.count:
        return False
    if wish.rack != "required" or wish.count == 1:
        return True
    racks = room.fleet.rack[nodes]
    return bool((np.unique(racks[racks >= 0], return_counts=True)[1] >= wish.count).any())


def _devices(
    room: Room, i: int, need: Need, selector: Selector, mood: Mood, reserved: Reserved | None
) -> tuple[int, ...]:
    if reserved is not None and i in reserved.rows:
        return pick(reserved.devices(room, i), need)
    return room.offer(i, need) if selector.device is None else selector.device(room, i, need, mood)
