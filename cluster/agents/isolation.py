"""How a piece of work is kept to what it holds. Chosen by the agent for what the host has, used by the supervisor.

Now: a process group with resource limits ("process"), and the same with control groups. A new way (bubblewrap, podman)
is one more class here and one more line in `KINDS`.
"""

import os
import resource
import signal
from collections.abc import Callable
from typing import Protocol

from cluster.agents import processes
from cluster.agents.cgroups import Cgroups1, Cgroups2, Groups
from cluster.agents.record import Spec

_SLACK = 1 << 30


class Isolation(Protocol):
    """One piece of work's fence. Making the object changes nothing yet."""

    def open(self) -> None:
        """Put it up; OSError where the host does not let us."""
        ...

    def enter(self) -> None:
        """Called in the new process between fork and exec."""
        ...

    def over_memory(self, held: Callable[[], int]) -> bool:
        """It has used more memory than it holds. `held` counts its processes' memory, if that is needed."""
        ...

    def close(self) -> None:
        """Take the fence down; no process is left inside."""
        ...


class ProcessIsolation:
    """A session and process group of its own, cores, niceness, limits. Memory: a limit on each process that stops a
    sudden jump, and the sum over all of them looked at every second."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec

    def open(self) -> None:
        """Nothing to do before the process is there."""

    def enter(self) -> None:
        self._start_clean()
        _limit(resource.RLIMIT_DATA, self._spec.memory + self._spec.memory // 2 + _SLACK)

    def over_memory(self, held: Callable[[], int]) -> bool:
        return held() > self._spec.memory

    def close(self) -> None:
        """Nothing outlives the processes."""

    def _start_clean(self) -> None:
        processes.die_with_parent()
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.umask(0o022)
        if self._spec.nice:
            os.nice(self._spec.nice)
        if self._spec.cores:
            os.sched_setaffinity(0, self._spec.cores)
        _limit(resource.RLIMIT_CORE, 0)


class GroupIsolation(ProcessIsolation):
    """The same inside control groups: the kernel holds memory, CPU and number of processes for all of them together."""

    def __init__(self, spec: Spec, groups: Groups) -> None:
        super().__init__(spec)
        self._groups = groups

    def open(self) -> None:
        self._groups.create(memory=self._spec.memory, cpu=self._spec.cpu)

    def enter(self) -> None:
        self._groups.join(os.getpid())
        self._start_clean()

    def over_memory(self, held: Callable[[], int]) -> bool:
        return self._groups.ran_out()

    def close(self) -> None:
        self._groups.remove()


KINDS: dict[str, Callable[[Spec], Isolation]] = {
    "cgroup2": lambda spec: GroupIsolation(spec, Cgroups2(spec.unique)),
    "cgroup1": lambda spec: GroupIsolation(spec, Cgroups1(spec.unique)),
    "process": ProcessIsolation,
}
"""Best first."""


def best() -> str:
    """The best kind that works here, found by trying."""
    tried: dict[str, Callable[[str], Groups]] = {"cgroup2": Cgroups2, "cgroup1": Cgroups1}
    return next((kind for kind, make in tried.items() if _works(make)), "process")


def _works(make: Callable[[str], Groups]) -> bool:
    groups = make(f"try-{os.getpid()}")
    try:
        groups.create(memory=1 << 30, cpu=1)
    except OSError:
        return False
    finally:
        groups.remove()
    return True


def _limit(what: int, most: int) -> None:
    """Lower the limit; never above what this process may."""
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))
