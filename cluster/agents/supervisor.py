"""The process that runs one piece of work: `python -m cluster.agents.supervisor RECORD`.

In a session of its own, so that it outlives agent and server. It starts the command once, watches it, ends it when told
or when its time or memory is up, and writes how it ended. It talks to nobody: files and signals are all it knows.
"""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.agents import isolation, processes
from cluster.agents.keeping import Keeper
from cluster.agents.record import Record, Spec, Status, Why, now

GRACE = 10.0
"""Seconds from SIGTERM to SIGKILL where no order says otherwise."""
_LEFTOVER_GRACE = 2.0
_UNKILLABLE = 30.0
"""Seconds after which a process that even SIGKILL does not end (a dead disk) is left to the kernel."""
_LOOK = 1.0
_WAKE = {signal.SIGCHLD, signal.SIGUSR1, signal.SIGTERM}


def main(argv: list[str]) -> int:
    record = Record(Path(argv[1]))
    with record.owned() as mine:
        if mine and not record.launched:
            supervise(record)
    return 0


def supervise(record: Record) -> None:
    """The whole life of one piece of work."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAKE | {signal.SIGINT, signal.SIGHUP})
    processes.become_subreaper()
    record.put(processes.identify(os.getpid()))
    spec = record.spec
    if spec is None:
        return
    if record.stop is not None:
        _keep(record, Status("exited", now(), exit_code=128 + signal.SIGTERM, why="stopped"))
        return
    _keep(record, _run(record, spec))


def _run(record: Record, spec: Spec) -> Status:
    """Start it, watch it, clear up; how it ended."""
    fence = isolation.KINDS[spec.isolation](spec)
    try:
        keeper = Keeper(record, spec.most_output)
        record.put(Status("preparing", now()))
        fence.open()
        record.launch()
        child = _start(record, spec, fence, keeper)
    except isolation.Stopped:
        fence.close()
        return Status("exited", now(), exit_code=128 + signal.SIGTERM, why="stopped")
    except (OSError, subprocess.SubprocessError) as e:
        fence.close()
        return Status("exited", now(), exit_code=127, why="no_start", words=_plainly(e))
    keeper.begin()
    pid = child.pid if child else os.getpid()
    begun = now()
    with contextlib.suppress(OSError):
        record.put(Status("running", begun, pid, begun))
    watch = Watch(record, spec, fence, child.pid if child else None)
    watch.until_ended()
    watch.clear()
    keeper.finish()
    fence.close()
    if child:
        child.returncode = watch.exit_code
    return Status("exited", now(), pid, begun, watch.exit_code, watch.why)


def _start(record: Record, spec: Spec, fence: isolation.Isolation, keeper: Keeper) -> "subprocess.Popen[bytes] | None":
    """The command, in a group and session of its own; None for a session that is only held open."""
    _link(record, spec)
    launch = fence.launch()
    if launch is None:
        return None
    return subprocess.Popen(
        launch.argv,
        cwd=launch.cwd,
        env=launch.env,
        stdin=subprocess.DEVNULL,
        stdout=keeper.writing,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=fence.enter,
    )


def _link(record: Record, spec: Spec) -> None:
    """Its folders, in its private directory. Raises FileNotFoundError for one that is not on this machine."""
    for directory in spec.folders.values():
        if not os.path.isdir(directory):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), directory)
    for name, target in spec.links.items():
        link = record.private / name
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def _keep(record: Record, status: Status) -> None:
    """Write the end down; on a full disk, wait until there is room, since this is the only place that knows."""
    while True:
        try:
            record.put(status)
        except OSError:
            time.sleep(_LOOK)
        else:
            return


@dataclass
class Watch:
    """The time between start and end."""

    record: Record
    spec: Spec
    fence: isolation.Isolation
    child: int | None
    exit_code: int = 0
    why: Why = ""
    _ended: bool = False
    _kill_at: float | None = None

    def __post_init__(self) -> None:
        self._begun = time.monotonic()

    def until_ended(self) -> None:
        """Until the command has ended, by itself or by force."""
        while not self._ended:
            caught = signal.sigtimedwait(_WAKE, self._pause())
            self._reap()
            self._obey(caught is not None and caught.si_signo == signal.SIGTERM)
            if self.child is None and self.why:
                self._ended = True

    def clear(self) -> None:
        """End what the command left behind: ask, then kill, until nothing is left."""
        self.fence.send(self._all(), signal.SIGTERM)
        kill_at = time.monotonic() + (_LEFTOVER_GRACE if self._kill_at is None else 0)
        while self._all() and time.monotonic() < kill_at + _UNKILLABLE:
            if time.monotonic() >= kill_at:
                self.fence.send(self._all(), signal.SIGKILL)
            signal.sigtimedwait({signal.SIGCHLD}, 0.05)
            self._reap()
        self._reap()

    def _pause(self) -> float:
        """Seconds until something is due: the limit, the kill, or the next look at the memory."""
        at = [time.monotonic() + _LOOK]
        if self.spec.time_limit is not None and not self.why:
            at.append(self._begun + self.spec.time_limit)
        if self._kill_at is not None:
            at.append(self._kill_at)
        return max(0.05, min(at) - time.monotonic())

    def _reap(self) -> None:
        """Collect every process that ended; ours among them gives the exit code."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.child:
                code = os.waitstatus_to_exitcode(status)
                self.exit_code, self._ended = (code if code >= 0 else 128 - code), True
                self._note_memory()

    def _obey(self, told: bool) -> None:
        """Stop it if somebody said so or a limit is reached; kill it when its grace is over."""
        if self._ended:
            return
        order = self.record.stop
        if order is not None or told:
            self._stop("stopped", order.grace if order else GRACE)
        elif self.spec.time_limit is not None and time.monotonic() >= self._begun + self.spec.time_limit:
            self._stop("time_limit", GRACE)
        elif self.fence.over_memory(lambda: processes.memory(self._all())):
            self._stop("memory", 0)
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self.fence.send(self._all(), signal.SIGKILL)

    def _stop(self, why: Why, grace: float) -> None:
        """Ask all of it to end. A later order can only shorten the grace."""
        kill_at = time.monotonic() + grace
        if not self.why:
            self.why, self._kill_at = why, kill_at
            self.fence.send(self._all(), signal.SIGTERM)
        self._kill_at = min(self._kill_at or kill_at, kill_at)

    def _note_memory(self) -> None:
        if not self.why and self.exit_code == 128 + signal.SIGKILL and self.fence.ran_out():
            self.why = "memory"

    def _all(self) -> list[psutil.Process]:
        return processes.descendants(os.getpid())


def _plainly(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename}" if error.filename else str(error.strerror or error)
    return "its limits could not be set"


if __name__ == "__main__":
    sys.exit(main(sys.argv))
