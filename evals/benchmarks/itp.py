"""Microsoft's ITP traces: how long jobs take from submission to end, when nobody knows how long they will run.

Ours is the real scheduler (`Board` and `plan`, policy short_first) under a virtual clock, event by event; it learns run
times from what has ended (`cluster.scheduler.learned`). The peers in the same run are told every run time: strict FIFO,
EASY backfill, and the oracle, the shortest job first with EASY backfill.

A stopped session resumes where it was, `RESUMING` seconds later; the same replay with every second session and with
none that may be stopped shows what that is worth. All time without progress is waiting: before the first start, between
stop and restart, while resuming.
"""

import csv
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from pathlib import Path

from cluster.scheduler import Board, plan
from cluster.scheduler.learned import ShortFirst, line_up
from cluster.scheduler.state import Group, NodeView, Placement, Request, Running
from evals.benchmarks.report import Cell, Figure, Options, Report, Series, Target, Wrong
from evals.benchmarks.told import DEVICES, Job, easy, oracle, strict

NODES = {"cluster02": 12, "cluster04": 68, "cluster07": 35}
LOAD = 0.9
"""Of other clusters: the number of nodes comes as near to this as it can."""
RESUMING = 60.0
LOOK = 600.0
"""While somebody waits, so many seconds go by at most before standings are worked out anew."""
MOST = 1.1
"""Times the oracle's mean completion time."""
START = datetime(2021, 1, 1, tzinfo=UTC)
GROUP = "itp"
OURS, CALM = "short_first", "short_first, none may be stopped"
SHARES = {OURS: 1.0, "short_first, half may be stopped": 0.5, CALM: 0.0}
"""Ours as shown -> share of the sessions that may be stopped."""
PEERS = {"strict FIFO": strict, "EASY": easy, "SJF+EASY": oracle}


@dataclass(frozen=True)
class Trace:
    """One cluster's jobs in the order of their submission."""

    name: str
    jobs: tuple[Job, ...]
    nodes: int

    @classmethod
    def read(cls, name: str, path: Path, size: float = 1.0) -> "Trace":
        """The first `size` of the jobs; raises `Wrong` for a file of another form."""
        with path.open(encoding="utf-8", newline="") as file:
            try:
                rows = [
                    (float(r["submission_time"]), float(r["duration"]), int(r["num_gpu"])) for r in csv.DictReader(file)
                ]
            except (KeyError, ValueError) as e:
                raise Wrong(f"{path} is no ITP trace: {e}.") from e
        rows = [row for row in sorted(rows) if row[1] > 0 and row[2] > 0]
        if not rows:
            raise Wrong(f"{path} has no jobs.")
        jobs = tuple(Job(i, *row) for i, row in enumerate(rows[: max(1, round(size * len(rows)))]))
        return cls(name, jobs, NODES.get(name) or nodes_for(rows))

    @property
    def load(self) -> float:
        return load_of([(j.submitted, j.seconds, j.gpus) for j in self.jobs], self.nodes)


def load_of(rows: Sequence[tuple[float, float, int]], nodes: int) -> float:
    """GPU-seconds asked / GPU-seconds there between the first submission and the last."""
    span = max(1.0, rows[-1][0] - rows[0][0])
    return sum(seconds * gpus for _, seconds, gpus in rows) / (span * DEVICES * nodes)


def nodes_for(rows: Sequence[tuple[float, float, int]]) -> int:
    """As many as give a load nearest to `LOAD`, and hold the largest job."""
    below = int(load_of(rows, 1) / LOAD)
    best = min((n for n in (below, below + 1) if n), key=lambda n: abs(load_of(rows, n) - LOAD))
    return max(best, -(-max(gpus for *_, gpus in rows) // DEVICES))


@dataclass(frozen=True)
class Found:
    """What one policy made of a trace; means in seconds."""

    completion: float
    wait: float
    gangs: float | None
    """Wait of those over 8 GPUs; None when there are none."""
    longest: float
    stops: int = 0

    @classmethod
    def of(cls, jobs: Sequence[Job], ends: Sequence[float], stops: int = 0) -> "Found":
        """`ends`: when each job ended."""
        waits = [end - job.submitted - job.seconds for job, end in zip(jobs, ends, strict=True)]
        gangs = [wait for job, wait in zip(jobs, waits, strict=True) if job.gpus > DEVICES]
        completion = statistics.fmean(end - job.submitted for job, end in zip(jobs, ends, strict=True))
        mean = statistics.fmean(gangs) if gangs else None
        return cls(completion, statistics.fmean(waits), mean, max(waits), stops)


# ── the replay ───────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Run:
    """A job during the replay."""

    job: Job
    request: Request
    left: float
    """Seconds it still has to run."""
    works_from: float = 0.0
    """When it began, or has resumed."""
    attempt: int = 0


class Replay:
    """One trace through the real scheduler. `stoppable` is the share of the sessions that may be stopped."""

    def __init__(self, trace: Trace, stoppable: float = 1.0) -> None:
        self.trace = trace
        self.board = Board()
        self.board.set_groups({GROUP: Group(GROUP, policy="short_first", backfill=True, preemption=stoppable > 0)})
        for i in range(trace.nodes):
            self.board.set_node(_node(i))
        self.learner = ShortFirst()
        self.runs = {_name(job): _Run(job, _request(job, stoppable), job.seconds) for job in trace.jobs}
        self.ends = [0.0] * len(trace.jobs)
        """When each job ended (s)."""
        self.stops = 0
        self._coming = list(reversed(trace.jobs))
        self._due: list[tuple[float, str, int]] = []
        """(end, session, attempt); one that was stopped meanwhile is in another attempt."""
        self._looked = 0.0

    def run(self) -> None:
        """Replay it all."""
        while (now := self._next()) is not None:
            self._end(now)
            new = self._submit(now)
            if now >= self._looked + LOOK:
                self._looked = now
                line_up(self.board, self.learner.standings(now))
            elif new:
                line_up(self.board, self.learner.standings(now, new))
            self._pass(now)

    def _next(self) -> float | None:
        """The next moment at which something is to be done."""
        moments = [job.submitted for job in self._coming[-1:]]
        if (end := self._first_end()) is not None:
            moments.append(end)
        if moments and self.board.pending:
            moments.append(self._looked + LOOK)
        return min(moments, default=None)

    def _first_end(self) -> float | None:
        """When the next job ends, if nothing happens before."""
        while self._due and self.runs[self._due[0][1]].attempt != self._due[0][2]:
            heappop(self._due)
        return self._due[0][0] if self._due else None

    def _end(self, now: float) -> None:
        """What has run its time ends."""
        while (end := self._first_end()) is not None and end <= now:
            _, name, _ = heappop(self._due)
            self.board.end(name)
            self.learner.ended(name, end)
            self.ends[self.runs[name].job.number] = end

    def _submit(self, now: float) -> set[str]:
        """Those whose time has come line up; returns their ids."""
        new: set[str] = set()
        while self._coming and self._coming[-1].submitted <= now:
            job = self._coming.pop()
            request = self.runs[_name(job)].request
            self.learner.submitted(request.id, job.gpus, request.node_count, job.submitted)
            self.board.submit(request)
            new.add(request.id)
        return new

    def _pass(self, now: float) -> None:
        """Start and stop until the plan is to leave all as it is."""
        while self.board.pending:
            made = plan(self.board, _moment(now))
            starts = dict(made.start)
            for name, placements in starts.items():
                self._start(now, name, placements)
            for name in made.preempt:
                self._stop(now, name)
            if not made.preempt:
                return

    def _start(self, now: float, name: str, placements: tuple[Placement, ...]) -> None:
        run = self.runs[name]
        run.works_from = now + (RESUMING if run.attempt else 0.0)
        heappush(self._due, (run.works_from + run.left, name, run.attempt))
        self.learner.started(name, now)
        self.board.start(Running.of(self.board.pending[name], placements, _moment(now)))

    def _stop(self, now: float, name: str) -> None:
        run, running = self.runs[name], self.board.running[name]
        run.left -= max(0.0, now - run.works_from)
        run.attempt += 1
        self.stops += 1
        self.learner.stopped(name, now)
        self.board.end(name)
        self.board.submit(replace(run.request, standing=running.standing))


def _moment(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def _name(job: Job) -> str:
    return f"j{job.number:06}"


def _node(i: int) -> NodeView:
    return NodeView(f"n{i:04}", GROUP, True, cpu=1, memory=1, cpu_free=1, memory_free=1, devices=(1.0,) * DEVICES)


def _request(job: Job, stoppable: float) -> Request:
    """A gang that is no multiple of a node is rounded up to equal parts: a session's ranks are alike."""
    nodes = -(-job.gpus // DEVICES)
    return Request(
        id=_name(job),
        name=_name(job),
        user="all",
        project="all",
        group=GROUP,
        submitted=_moment(job.submitted),
        cpu=0,
        memory=0,
        gpu=nodes * -(-job.gpus // nodes),
        node_count=nodes,
        preemptible=int((job.number + 1) * stoppable) > int(job.number * stoppable),
    )


# ── the report ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Measured:
    """All policies on one trace."""

    trace: Trace
    found: dict[str, Found]

    def ratio(self, policy: str = OURS) -> float:
        """Mean completion time / the oracle's."""
        return self.found[policy].completion / self.found["SJF+EASY"].completion


def run(options: Options) -> Report:
    """Every cluster there is, or those of `lists`."""
    files = options.files("itp", "*.csv")
    measured = [measure(Trace.read(name, path, options.size)) for name, path in files.items()]
    return Report(
        name="itp",
        title="ITP traces: mean completion time without knowing run times",
        columns=[
            "cluster, policy",
            "nodes",
            "load",
            "completion s",
            "wait s",
            "gangs' wait s",
            "longest wait s",
            "stops",
            "completion / oracle",
        ],
        rows=[row for m in measured for row in _rows(m)],
        targets=[target for m in measured for target in _targets(m)],
        ratios={f"{m.trace.name}, completion / EASY": _by(m, "EASY") for m in measured},
        notes=[
            "The peers know run times. Ours sees the number of GPUs and what has ended, and no names.",
            f"A stopped session resumes where it was, {RESUMING:g} s later: that is for sessions that keep checkpoints "
            "and say so. Where none may be stopped, nothing is assumed of them.",
            "Waiting is all time from submission to end in which a job does not get on.",
        ],
        figures=[_figure(measured)],
    )


def measure(trace: Trace) -> Measured:
    """Ours and the peers."""
    found = {name: Found.of(trace.jobs, peer(trace.jobs, trace.nodes)) for name, peer in PEERS.items()}
    for name, share in SHARES.items():
        replay = Replay(trace, share)
        replay.run()
        found[name] = Found.of(trace.jobs, replay.ends, replay.stops)
    return Measured(trace, found)


def _by(m: Measured, peer: str) -> float:
    return m.found[OURS].completion / m.found[peer].completion


def _rows(m: Measured) -> Iterator[list[Cell]]:
    for name, f in m.found.items():
        what = f"{m.trace.name}, {name}"
        means = [f.completion, f.wait, f.gangs, f.longest]
        yield [what, m.trace.nodes, m.trace.load, *means, f.stops, m.ratio(name)]


def _targets(m: Measured) -> Iterator[Target]:
    known = (
        f"strict FIFO {m.ratio('strict FIFO'):.2f}, EASY {m.ratio('EASY'):.2f}, ours without stops {m.ratio(CALM):.2f}"
    )
    what = f"{m.trace.name}, completion / SJF+EASY that knows run times; stopped sessions resume"
    yield Target(what=what, value=m.ratio(), target=MOST, better="less", known=known)
    ours, theirs = m.found[OURS].gangs, m.found["EASY"].gangs
    if ours is not None and theirs:
        yield Target(what=f"{m.trace.name}, gangs' wait / EASY's", value=ours / theirs, target=1.0, better="less")


def _figure(measured: Sequence[Measured]) -> Figure:
    names = [m.trace.name for m in measured]
    series = [Series(name=policy, x=names, y=[m.ratio(policy) for m in measured]) for policy in measured[0].found]
    return Figure(title="mean completion time / oracle", y="ratio", series=series, line=MOST, log=True)
