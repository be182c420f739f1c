"""Control groups of both versions: one group per piece of work, under the agent's own group."""

import contextlib
import time
from pathlib import Path
from typing import Protocol

_PERIOD = 100_000
_MOST_PROCESSES = 16_384
_TRIES, _MOMENT = 10, 0.02


class Groups(Protocol):
    """The groups of one piece of work. Every method raises OSError where the host does not let us."""

    def create(self, memory: int, cpu: float) -> None:
        """Make them, with bytes of memory and cores."""
        ...

    def join(self, pid: int) -> None: ...

    def ran_out(self) -> bool:
        """The kernel has killed something in it for memory."""
        ...

    def remove(self) -> None: ...


class Cgroups1:
    """Version 1: one hierarchy per controller. Tested on a real host."""

    def __init__(self, key: str, root: Path = Path("/sys/fs/cgroup"), own: str | None = None) -> None:
        lines = own if own is not None else Path("/proc/self/cgroup").read_text()
        self._groups = {
            controller: root / names / path.lstrip("/") / f"helmsman-{key}"
            for _, names, path in (line.split(":", 2) for line in lines.splitlines())
            for controller in names.split(",")
            if controller in ("memory", "cpu", "pids")
        }

    def create(self, memory: int, cpu: float) -> None:
        if "memory" not in self._groups:
            raise FileNotFoundError("no version 1 memory controller")
        for group in self._groups.values():
            group.mkdir(exist_ok=True)
        self._put("memory", "memory.limit_in_bytes", memory)
        with contextlib.suppress(OSError):
            self._put("memory", "memory.memsw.limit_in_bytes", memory)
        self._put("cpu", "cpu.cfs_period_us", _PERIOD)
        self._put("cpu", "cpu.cfs_quota_us", max(1000, int(cpu * _PERIOD)))
        self._put("pids", "pids.max", _MOST_PROCESSES)

    def join(self, pid: int) -> None:
        for group in self._groups.values():
            (group / "cgroup.procs").write_text(str(pid))

    def ran_out(self) -> bool:
        return _count(self._groups["memory"] / "memory.oom_control", "oom_kill") > 0

    def remove(self) -> None:
        for group in self._groups.values():
            _remove(group)

    def _put(self, controller: str, file: str, value: int) -> None:
        if controller in self._groups:
            (self._groups[controller] / file).write_text(str(value))


class Cgroups2:
    """Version 2: one hierarchy; needs a delegated group (systemd: `Delegate=yes`). Tested on made-up files only."""

    def __init__(self, key: str, root: Path = Path("/sys/fs/cgroup"), own: str | None = None) -> None:
        lines = own if own is not None else Path("/proc/self/cgroup").read_text()
        path = next((line.split(":", 2)[2] for line in lines.splitlines() if line.startswith("0::")), "/")
        here = root / path.lstrip("/")
        places = [p for p in (here, here.parent) if "memory" in _words(p / "cgroup.subtree_control")]
        self._group = (places[0] if places else here) / f"helmsman-{key}"
        self._possible = bool(places)

    def create(self, memory: int, cpu: float) -> None:
        if not self._possible:
            raise FileNotFoundError("no version 2 memory controller for our children")
        self._group.mkdir(exist_ok=True)
        self._put("memory.max", str(memory))
        self._put("memory.swap.max", "0", needed=False)
        self._put("memory.oom.group", "1", needed=False)
        self._put("cpu.max", f"{max(1000, int(cpu * _PERIOD))} {_PERIOD}", needed=False)
        self._put("pids.max", str(_MOST_PROCESSES), needed=False)

    def join(self, pid: int) -> None:
        (self._group / "cgroup.procs").write_text(str(pid))

    def ran_out(self) -> bool:
        return _count(self._group / "memory.events", "oom_kill") > 0

    def remove(self) -> None:
        _remove(self._group)

    def _put(self, file: str, value: str, needed: bool = True) -> None:
        try:
            (self._group / file).write_text(value)
        except OSError:
            if needed:
                raise


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _count(path: Path, key: str) -> int:
    words = _words(path)
    return int(words[words.index(key) + 1]) if key in words else 0


def _remove(group: Path) -> None:
    """The kernel needs a moment to let go of a process that has just died; a group that stays empty weighs nothing."""
    for _ in range(_TRIES):
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(_MOMENT)
        else:
            return
