"""Finding and ending processes, also those that left their parent's group or session."""

import ctypes
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import psutil

from cluster.agents.record import Process

MARK = "HELMSMAN_WORK"
"""The variable that every process of a piece of work carries: the directory of its record."""

_START_TICKS = 19
"""Field 22 of /proc/PID/stat, counted after the name."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Orphans among this process's descendants become its children, so that none gets out of sight."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """The kernel kills this process when its parent ends. Between fork and exec only."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def identify(pid: int) -> Process:
    """The process by number and start. Raises ProcessLookupError when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError as e:
        raise ProcessLookupError(pid) from e
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Process(pid, f"{boot}:{stat.rpartition(')')[2].split()[_START_TICKS]}")


def alive(process: Process | None) -> bool:
    """It runs, is not a zombie, and is not another one that got its number."""
    if process is None:
        return False
    try:
        return identify(process.pid) == process and _lives(psutil.Process(process.pid))
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def descendants(pid: int) -> list[psutil.Process]:
    """All living processes below `pid`."""
    try:
        return [p for p in psutil.Process(pid).children(recursive=True) if _lives(p)]
    except psutil.NoSuchProcess:
        return []


def marked(home: str) -> list[psutil.Process]:
    """All processes of this user that carry the mark of the work in `home`, whoever their parent is now."""
    return [p for p in psutil.process_iter() if _mark(p) == home and _lives(p)]


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Signal each; one that has just ended is fine. A stopped one is woken so that it notices."""
    for process in processes:
        try:
            process.send_signal(number)
            if number == signal.SIGTERM:
                process.send_signal(signal.SIGCONT)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def name(process: psutil.Process) -> str:
    """Of its program; empty when it has just ended."""
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def memory(processes: Iterable[psutil.Process]) -> int:
    """Bytes of memory they hold together (pages that they share count for each)."""
    return sum(_resident(p) for p in processes)


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """CPU time that they and their ended children have used."""
    return sum(_used(p) for p in processes)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _used(process: psutil.Process) -> float:
    try:
        return float(sum(process.cpu_times()[:4]))
    except psutil.Error:
        return 0.0
