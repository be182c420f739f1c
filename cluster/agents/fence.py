"""What every fence around a piece of work can do, and the plain ones: process group and limits, and control groups."""

import os
import resource
import signal
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import psutil

from cluster.agents import processes
from cluster.agents.cgroups import Groups
from cluster.agents.record import Spec

_SLACK = 1 << 30


class Launch(NamedTuple):
    """A process to start. `env` is all of its environment."""

    argv: list[str]
    env: dict[str, str]
    cwd: str


class Stopped(Exception):
    """An order to stop came while the fence was put up."""


class Isolation(Protocol):
    """One piece of work's fence. Making the object changes nothing yet."""

    def open(self) -> None:
        """Put it up; OSError where the host does not let us, `Stopped` when told to stop meanwhile."""
        ...

    def launch(self) -> Launch | None:
        """What to start inside; None for a session that is only held open."""
        ...

    def enter(self) -> None:
        """Called in the new process between fork and exec."""
        ...

    def send(self, family: Iterable[psutil.Process], number: signal.Signals) -> None:
        """SIGTERM asks the work to end, SIGKILL ends it. `family`: all processes below the supervisor."""
        ...

    def over_memory(self, held: Callable[[], int]) -> bool:
        """It uses more memory than it holds. `held` counts its processes' memory, if that is needed."""
        ...

    def ran_out(self) -> bool:
        """After its end: the kernel ended it for its memory."""
        ...

    def close(self) -> None:
        """Take the fence down, and what is left inside with it. Also called by an agent that finds it long after."""
        ...


class ProcessIsolation:
    """A session and process group of its own, cores, niceness, limits. Memory: a limit on each process that stops a
    sudden jump, and the sum over all of them looked at every second."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec

    def open(self) -> None:
        """Nothing to do before the process is there."""

    def launch(self) -> Launch | None:
        spec = self._spec
        return None if spec.command is None else Launch([_shell(), "-c", spec.command], spec.env, spec.cwd)

    def enter(self) -> None:
        start_clean(self._spec)
        lower_limit(resource.RLIMIT_DATA, self._spec.memory + self._spec.memory // 2 + _SLACK)

    def send(self, family: Iterable[psutil.Process], number: signal.Signals) -> None:
        processes.send(family, number)

    def over_memory(self, held: Callable[[], int]) -> bool:
        return held() > self._spec.memory

    def ran_out(self) -> bool:
        """Its own watch ends it before the kernel would."""
        return False

    def close(self) -> None:
        """Nothing outlives the processes."""


class GroupIsolation(ProcessIsolation):
    """The same inside control groups: the kernel holds memory, CPU and number of processes for all of them together."""

    def __init__(self, spec: Spec, groups: Groups) -> None:
        super().__init__(spec)
        self._groups = groups

    def open(self) -> None:
        self._groups.create(memory=self._spec.memory, cpu=self._spec.cpu)

    def enter(self) -> None:
        self._groups.join(os.getpid())
        start_clean(self._spec)

    def over_memory(self, held: Callable[[], int]) -> bool:
        return self._groups.ran_out()

    def ran_out(self) -> bool:
        return self._groups.ran_out()

    def close(self) -> None:
        self._groups.remove()


def start_clean(spec: Spec) -> None:
    """In the new process: it ends with its supervisor, hears signals again, and has its cores and niceness."""
    processes.die_with_parent()
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o022)
    if spec.nice:
        os.nice(spec.nice)
    if spec.cores:
        os.sched_setaffinity(0, spec.cores)
    lower_limit(resource.RLIMIT_CORE, 0)


def lower_limit(what: int, most: int) -> None:
    """Lower the limit; never above what this process may."""
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _shell() -> str:
    return "/bin/bash" if os.access("/bin/bash", os.X_OK) else "/bin/sh"
