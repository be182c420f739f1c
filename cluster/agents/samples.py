"""Live figures of the node and of what each session uses of what it holds."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cluster.agents import discover, processes
from cluster.models import Device, Sample


@dataclass(frozen=True)
class Holding:
    """A running session's part of this node, and the process on top of it."""

    session: str
    pid: int
    cpu: float
    devices: tuple[int, ...] = ()


@dataclass
class Sampler:
    """Shares are those since the last call; the first call has none."""

    _cpu: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Session -> (when, CPU seconds until then)."""

    def take(self, holdings: Sequence[Holding]) -> Sample:
        """Blocks for some milliseconds."""
        found = discover.devices()
        sessions = {h.session: share for h in holdings if (share := self._share(h, found)) is not None}
        self._cpu = {s: v for s, v in self._cpu.items() if s in {h.session for h in holdings}}
        return Sample(
            cpu_utilization=psutil.cpu_percent(None) / 100,
            memory_utilization=psutil.virtual_memory().percent / 100,
            temperature=_temperature(found),
            power=sum(d.power or 0 for d in found) or None,
            devices=found,
            sessions=sessions,
        )

    def _share(self, holding: Holding, found: Sequence[Device]) -> float | None:
        used = [d.utilization for d in found if d.index in holding.devices and d.utilization is not None]
        return sum(used) / len(used) if used else self._cpu_share(holding)

    def _cpu_share(self, holding: Holding) -> float | None:
        try:
            top = psutil.Process(holding.pid)
        except psutil.NoSuchProcess:
            return None
        now, seconds = time.monotonic(), processes.cpu_seconds([top, *processes.descendants(holding.pid)])
        before = self._cpu.get(holding.session)
        self._cpu[holding.session] = (now, seconds)
        if before is None or now <= before[0]:
            return None
        return min(1.0, max(0.0, seconds - before[1]) / ((now - before[0]) * holding.cpu))


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
