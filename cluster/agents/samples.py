"""Live figures of the node and of what each session uses of what it holds."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cluster.agents import processes
from cluster.models import Device, Sample


@dataclass(frozen=True)
class Holding:
    """A running session's part of this node, and the process on top of it."""

    session: str
    pid: int
    cpu: float
    devices: tuple[int, ...] = ()
    mark: str | None = None
    """By which its processes are found, where they are not below `pid`."""


@dataclass
class Sampler:
    """Shares are those since the last call; the first call has none."""

    find: Callable[[], list[Device]]
    """The accelerators now."""
    _cpu: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Session -> (when, CPU seconds until then)."""

    def take(self, holdings: Sequence[Holding]) -> Sample:
        """Blocks for some milliseconds."""
        found = self.find()
        families = {h.session: _family(h) for h in holdings}
        shares = {h.session: self._share(h, families[h.session], found) for h in holdings}
        self._cpu = {s: v for s, v in self._cpu.items() if s in {h.session for h in holdings}}
        return Sample(
            cpu_utilization=psutil.cpu_percent(None) / 100,
            memory_utilization=psutil.virtual_memory().percent / 100,
            temperature=_temperature(found),
            power=sum(d.power or 0 for d in found) or None,
            devices=found,
            sessions={session: share for session, share in shares.items() if share is not None},
            memory={session: processes.memory(family) for session, family in families.items() if family},
        )

    def _share(self, holding: Holding, family: list[psutil.Process], found: Sequence[Device]) -> float | None:
        used = [d.utilization for d in found if d.index in holding.devices and d.utilization is not None]
        return sum(used) / len(used) if used else self._cpu_share(holding, family)

    def _cpu_share(self, holding: Holding, family: list[psutil.Process]) -> float | None:
        if not family:
            return None
        now, seconds = time.monotonic(), processes.cpu_seconds(family)
        before = self._cpu.get(holding.session)
        self._cpu[holding.session] = (now, seconds)
        if before is None or now <= before[0]:
            return None
        return min(1.0, max(0.0, seconds - before[1]) / ((now - before[0]) * holding.cpu))


def _family(holding: Holding) -> list[psutil.Process]:
    """All its processes; empty when it has just ended."""
    if holding.mark is not None:
        return processes.marked(holding.mark)
    try:
        return [psutil.Process(holding.pid), *processes.descendants(holding.pid)]
    except psutil.NoSuchProcess:
        return []


def _temperature(found: Sequence[Device]) -> float | None:
    """The hottest GPU, else the hottest zone of the board; °C."""
    hot = [d.temperature for d in found if d.temperature is not None]
    zones = hot or [t for p in Path("/sys/class/thermal").glob("thermal_zone*/temp") if (t := _degrees(p)) is not None]
    return max(zones, default=None)


def _degrees(path: Path) -> float | None:
    try:
        return int(path.read_text()) / 1000
    except (OSError, ValueError):
        return None
