"""What each user holds in a resource group, on the scale that its policy compares."""

from cluster.scheduler.fleet import UNIT, Fleet, units
from cluster.scheduler.queue import Amounts
from cluster.scheduler.state import Running

CORES_PER_DEVICE = 16
"""For fair_share, this many cores count as one device."""

AHEAD = 3600.0
"""For fair_share, a session that runs or starts counts with what it will use in this many seconds."""

MILLI = 1000


class Shares:
    """One group's. Whole numbers, so that what is charged and taken back leaves no trace."""

    def __init__(self) -> None:
        self._capacity: Amounts = (1, 1, 1)
        self._held: dict[str, list[int]] = {}
        self._running: dict[str, list[int]] = {}
        """Of each user (units of devices that run, the same times when they began in ms): what was used follows."""

    def measure(self, fleet: Fleet, group: str) -> None:
        """The group's capacity: all of its nodes."""
        nodes = fleet.members(group)
        cpu, memory, count = (int(column[nodes].sum()) for column in (fleet.cpu, fleet.memory, fleet.count))
        self._capacity = cpu or 1, memory or 1, units(count) or 1

    def charge(self, user: str, used: Amounts, sign: int = 1) -> None:
        """`user` holds so much more."""
        held = self._held.setdefault(user, [0, 0, 0])
        held[0] += sign * used[0]
        held[1] += sign * used[1]
        held[2] += sign * used[2]

    def runs(self, running: Running, used: Amounts, sign: int = 1) -> None:
        """A session runs since its start."""
        self.charge(running.user, used, sign)
        devices, began = as_devices(used), round(running.started.timestamp() * MILLI)
        sums = self._running.setdefault(running.user, [0, 0])
        sums[0] += sign * devices
        sums[1] += sign * devices * began

    def dominant(self, user: str) -> float:
        """The largest share of one resource (drf)."""
        held = self._held.get(user)
        return max(have / all_ for have, all_ in zip(held, self._capacity, strict=True)) if held else 0.0

    def used(self, user: str, now: float) -> float:
        """Device-seconds of what runs, until now (s since the epoch), and of what is held for some time to come."""
        held, sums = self._held.get(user), self._running.get(user)
        soon = AHEAD * as_devices((held[0], held[1], held[2])) / UNIT if held else 0.0
        return soon + (max(0.0, now * sums[0] - sums[1] / MILLI) / UNIT if sums else 0.0)


def as_devices(used: Amounts) -> int:
    """Devices in units; cores count for a part of one."""
    return max(used[2], used[0] // CORES_PER_DEVICE)
