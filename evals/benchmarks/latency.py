"""How long a pass takes: 100,000 sessions wait, 10,000 nodes are about 90 % full, and something ends or comes.

A pass is what the core does for an event: the board is told (an end, a submission), `plan` decides, the board is told
what starts. The first pass, in which whatever can start does, is reported apart.
"""

import gc
import random
import time
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from cluster.scheduler import Board, plan
from cluster.scheduler.room import Room
from cluster.scheduler.state import Group, Request, Running
from evals.benchmarks.report import Cell, Figure, Options, Report, Series, Target
from evals.benchmarks.synthetic import GPUS, GROUP, START, Draw, node, snapshot

TARGET = 50.0
"""ms."""
POLICIES = ("fifo", "drf", "fair_share")


@dataclass(frozen=True)
class Size:
    nodes: int = 10_000
    pending: int = 100_000
    events: int = 500

    def times(self, share: float) -> "Size":
        return Size(*(max(16, int(n * share)) for n in (self.nodes, self.pending, self.events)))


@dataclass(frozen=True)
class Measured:
    """Times in ms."""

    group: Group
    first: float
    passes: list[float]
    cpu: list[float]
    """The same in CPU time: what is more in `passes` was other work on the machine."""
    planned: list[float]
    """Of each pass, the part that `plan` took."""
    started: int
    full: float
    """Share of the GPUs that was taken when the events began."""

    @property
    def name(self) -> str:
        return f"{self.group.policy}{', backfill' if self.group.backfill else ''}"

    def at(self, percent: float) -> float:
        return float(np.percentile(self.passes, percent))


def run(options: Options) -> Report:
    """Each policy, without and with backfill."""
    size = Size().times(options.size)
    groups = [Group(GROUP, policy=policy, backfill=b) for b in (False, True) for policy in POLICIES]
    found = [measure(size, group, seed) for group in groups for seed in range(options.seeds or 1)]
    return Report(
        name="latency",
        title=f"a pass: {size.pending:,} waiting, {size.nodes:,} nodes, {size.events} events",
        columns=[
            "policy",
            "first ms",
            "p50 ms",
            "p99 ms",
            "longest ms",
            "p99 CPU ms",
            "plan p99 ms",
            "started",
            "GPUs taken %",
        ],
        rows=[_row(m) for m in found],
        targets=[
            Target(what=f"p99 of a pass, {m.name}", value=m.at(99), target=TARGET, better="less", unit="ms")
            for m in found
        ],
        notes=["Garbage collection is left on and counts. No database: that is what `durable` measures."],
        figures=[_figure(found)],
    )


def _row(m: Measured) -> list[Cell]:
    cpu, planned = (float(np.percentile(of, 99)) for of in (m.cpu, m.planned))
    return [m.name, m.first, m.at(50), m.at(99), max(m.passes), cpu, planned, m.started, 100 * m.full]


def _figure(found: list[Measured]) -> Figure:
    names = [m.name for m in found]
    series = [Series(name=f"p{p}", x=names, y=[m.at(p) for m in found]) for p in (50, 99)]
    return Figure(title="one pass", y="ms", series=series, line=TARGET, log=True)


def measure(size: Size, group: Group, seed: int = 0) -> Measured:
    """The first pass, then one for each event: an end, a submission, or both, by turns."""
    draw, chance = Draw(seed), random.Random(seed)
    running = [[*draw.runs(i, 0.9)] for i in range(size.nodes)]
    nodes = [node(i, there) for i, there in enumerate(running)]
    pending = [draw.request() for _ in range(size.pending)]
    board = Board.of(snapshot(group, nodes, pending, [r for there in running for r in there]))
    board.room  # noqa: B018 - makes its arrays, which is no part of a pass
    first, _, _, started = _pass(board, 0, [], [])
    passes, cpu, planned, full = [], [], [], _full(board.room)
    gc.collect()
    for event in range(1, size.events + 1):
        ends = [chance.choice([*board.running])] if event % 3 else []
        comes = [draw.request()] if event % 3 != 1 else []
        whole, own, decided, more = _pass(board, event, ends, comes)
        passes.append(whole)
        cpu.append(own)
        planned.append(decided)
        started += more
    return Measured(group, first, passes, cpu, planned, started, full)


def _pass(board: Board, second: int, ends: list[str], comes: list[Request]) -> tuple[float, float, float, int]:
    """(ms in all, CPU ms in all, ms of `plan`, how many started)."""
    now = START + timedelta(days=3, seconds=second)
    began, cpu = time.perf_counter(), time.thread_time()
    for ident in ends:
        board.end(ident)
    for request in comes:
        board.submit(request)
    told = time.perf_counter()
    start = plan(board, now).start
    decided = time.perf_counter()
    for ident, placements in start.items():
        board.start(Running.of(board.pending[ident], placements, now))
    own = time.thread_time() - cpu
    return 1000 * (time.perf_counter() - began), 1000 * own, 1000 * (decided - told), len(start)


def _full(room: Room) -> float:
    """Share of the GPUs that is taken."""
    return float(1 - room.devices.sum() / (1e6 * GPUS * len(room.devices)))
