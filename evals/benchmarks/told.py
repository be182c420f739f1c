"""The peers of the `itp` benchmark: plain schedulers that are told every run time. 8 GPUs a node.

Up to 8 GPUs sit on one node, the fullest that has room; more take whole nodes and at most one remainder. EASY backfill:
the first job that finds no room reserves its place at the earliest known time; others may pass if they end before it or
leave room for it.
"""

from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, nsmallest

DEVICES = 8
"""GPUs of a node."""

Parts = list[tuple[int, int]]
"""(node, GPUs there)."""


@dataclass(frozen=True, slots=True)
class Job:
    """Its number in the trace, when it was submitted and how long it runs (s), and its GPUs."""

    number: int
    submitted: float
    seconds: float
    gpus: int


def strict(jobs: Sequence[Job], nodes: int) -> list[float]:
    """When each job ends under strict FIFO: nobody passes."""
    return _Known(jobs, nodes, lambda job: job.submitted, backfill=False).run()


def easy(jobs: Sequence[Job], nodes: int) -> list[float]:
    """FIFO with EASY backfill."""
    return _Known(jobs, nodes, lambda job: job.submitted, backfill=True).run()


def oracle(jobs: Sequence[Job], nodes: int) -> list[float]:
    """The shortest first, with EASY backfill."""
    return _Known(jobs, nodes, lambda job: job.seconds, backfill=True).run()


class _Known:
    def __init__(self, jobs: Sequence[Job], nodes: int, key: Callable[[Job], float], *, backfill: bool) -> None:
        self.coming = list(reversed(jobs))
        self.free = [DEVICES] * nodes
        self.queue: list[tuple[float, int, Job]] = []
        self.running: list[tuple[float, int, Parts]] = []
        self.ends = [0.0] * len(jobs)
        self.key, self.backfill = key, backfill

    def run(self) -> list[float]:
        while self.coming or self.running:
            now = min([e[0] for e in self.running[:1]] + [j.submitted for j in self.coming[-1:]])
            while self.running and self.running[0][0] <= now:
                _give(self.free, heappop(self.running)[2])
            while self.coming and self.coming[-1].submitted <= now:
                job = self.coming.pop()
                insort(self.queue, (self.key(job), job.number, job))
            self._pass(now)
        return self.ends

    def _pass(self, now: float) -> None:
        at = 0
        while at < len(self.queue) and self._start(now, self.queue[at][2], self.free):
            at += 1
        head, behind = self.queue[at : at + 1], self.queue[at + 1 :]
        if head and self.backfill:
            behind = self._backfill(now, head[0][2], behind)
        self.queue = head + behind

    def _start(self, now: float, job: Job, room: list[int]) -> Parts | None:
        """Start it if it has room in `room`."""
        parts = fit(room, job.gpus)
        if parts is not None:
            _take(self.free, parts)
            self.ends[job.number] = now + job.seconds
            heappush(self.running, (now + job.seconds, job.number, parts))
        return parts

    def _backfill(self, now: float, head: Job, behind: list[tuple[float, int, Job]]) -> list[tuple[float, int, Job]]:
        """Start those that the head does not feel; returns the others."""
        at, later = self._reserve(head)
        full: set[tuple[int, bool]] = set()
        stay: list[tuple[float, int, Job]] = []
        for entry in behind:
            job = entry[2]
            late = now + job.seconds > at
            if (job.gpus, late) in full:
                stay.append(entry)
                continue
            both = [min(a, b) for a, b in zip(self.free, later, strict=True)] if late else self.free
            parts = self._start(now, job, both)
            if parts is None:
                full.add((job.gpus, late))
                stay.append(entry)
            elif late:
                _take(later, parts)
        return stay

    def _reserve(self, head: Job) -> tuple[float, list[int]]:
        """When the head has room, and what is free then beside it."""
        later = self.free.copy()
        for end, _, parts in nsmallest(len(self.running), self.running):
            _give(later, parts)
            if (mine := fit(later, head.gpus)) is not None:
                _take(later, mine)
                return end, later
        raise AssertionError("a job larger than the cluster")


def fit(free: Sequence[int], gpus: int) -> Parts | None:
    """Where so many GPUs have room; None when nowhere."""
    whole, rest = divmod(gpus, DEVICES) if gpus > DEVICES else (0, gpus)
    empty = [i for i, n in enumerate(free) if n == DEVICES][:whole] if whole else []
    if len(empty) < whole:
        return None
    parts = [(i, DEVICES) for i in empty]
    if rest:
        able = [i for i, n in enumerate(free) if n >= rest and i not in empty]
        if not able:
            return None
        parts.append((min(able, key=free.__getitem__), rest))
    return parts


def _take(free: list[int], parts: Iterable[tuple[int, int]]) -> None:
    for i, gpus in parts:
        free[i] -= gpus


def _give(free: list[int], parts: Iterable[tuple[int, int]]) -> None:
    for i, gpus in parts:
        free[i] += gpus
