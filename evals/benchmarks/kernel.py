"""Placement decisions a second: 10,000 nodes, fractions of GPUs, one thread, each selector.

`in one pass`: `plan` over a queue that all starts, as after a maintenance. `one by one`: submit, plan, start for each
request, as they arrive. The peer in the same run is a plain numpy rescan of all nodes for each request, with the rule
of `concentrated`.
"""

import time
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from cluster.scheduler import SELECTORS, Board, plan
from cluster.scheduler.state import Group, Request, Running
from evals.benchmarks.report import Broken, Figure, Options, Report, Series, Target
from evals.benchmarks.synthetic import CPU, GPUS, GROUP, MEMORY, START, Draw, node, snapshot

TARGET = 20_000.0
KNOWN = "full rescan 3k, class table 46-109k, Backend.AI's provisioner 4-7"


@dataclass(frozen=True)
class Size:
    nodes: int = 10_000
    requests: int = 20_000
    one_by_one: int = 4_000
    rescanned: int = 1_500

    def times(self, share: float) -> "Size":
        counts = (self.nodes, self.requests, self.one_by_one, self.rescanned)
        return Size(*(max(8, int(n * share)) for n in counts))


@dataclass(frozen=True)
class Measured:
    """Decisions a second."""

    selector: str
    in_one_pass: float
    one_by_one: float


def run(options: Options) -> Report:
    """Every selector, and the rescan."""
    size = Size().times(options.size)
    requests = _requests(size.requests)
    found = [measure(size, name, requests) for name in SELECTORS]
    peer = rescan(size.nodes, requests[: size.rescanned])
    return Report(
        name="kernel",
        title=f"placement decisions a second, {size.nodes:,} nodes, {size.requests:,} requests, one thread",
        columns=["selector", "in one pass /s", "one by one /s", "in one pass / rescan", "one by one / rescan"],
        rows=[
            *([m.selector, m.in_one_pass, m.one_by_one, m.in_one_pass / peer, m.one_by_one / peer] for m in found),
            ["plain numpy rescan", None, peer, None, 1.0],
        ],
        targets=[
            Target(what=f"decisions/s, {m.selector}", value=m.in_one_pass, target=TARGET, known=KNOWN) for m in found
        ],
        ratios={f"{m.selector} in one pass / plain rescan": m.in_one_pass / peer for m in found},
        notes=[
            "Seconds are those of the thread's CPU time, so that other work on the machine does not count.",
            "35 % ask for a share of a GPU, the others for 1, 2 or 4 whole ones; quotas and priorities are on.",
        ],
        figures=[_figure(found, peer)],
    )


def _figure(found: list[Measured], peer: float) -> Figure:
    names = [m.selector for m in found]
    series = [
        Series(name="in one pass", x=names, y=[m.in_one_pass for m in found]),
        Series(name="one by one", x=names, y=[m.one_by_one for m in found]),
        Series(name="plain rescan", x=names, y=[peer] * len(names)),
    ]
    return Figure(title="placement decisions", y="1/s", series=series, line=TARGET, log=True)


def _requests(count: int) -> list[Request]:
    """No gangs: one decision is one rank on one node. Few enough, and none for a whole node, so that all find room."""
    draw = Draw(0, whole=(1, 1, 1, 1, 2, 2, 4), gangs=0)
    return [draw.request() for _ in range(count)]


def measure(size: Size, selector: str, requests: list[Request]) -> Measured:
    """Decisions a second with `selector`; raises `Broken` when a request that has room is left."""
    return Measured(selector, _in_one_pass(size, selector, requests), _one_by_one(size, selector, requests))


def _board(size: Size, selector: str, pending: list[Request]) -> Board:
    board = Board.of(snapshot(Group(GROUP, selector=selector), [node(i) for i in range(size.nodes)], pending, []))
    board.room  # noqa: B018 - makes its arrays, which is no part of a decision
    return board


def _in_one_pass(size: Size, selector: str, requests: list[Request]) -> float:
    board = _board(size, selector, requests)
    began = time.thread_time()
    started = len(plan(board, START + timedelta(days=1)).start)
    seconds = time.thread_time() - began
    if started != len(requests):
        raise Broken(f"{selector} started {started} of {len(requests)} requests that all have room.")
    return started / seconds


def _one_by_one(size: Size, selector: str, requests: list[Request]) -> float:
    board, now = _board(size, selector, []), START + timedelta(days=1)
    some = requests[: size.one_by_one]
    began = time.thread_time()
    for request in some:
        board.submit(request)
        board.start(Running.of(request, plan(board, now).start[request.id], now))
    return len(some) / (time.thread_time() - began)


def rescan(nodes: int, requests: list[Request]) -> float:
    """Decisions a second of the peer: look at every node for each request, take the fullest that fits."""
    cpu, memory = np.full(nodes, CPU), np.full(nodes, float(MEMORY))
    devices = np.ones((nodes, GPUS))
    began = time.thread_time()
    for request in requests:
        share = request.gpu
        able = (devices >= share - 1e-9).any(axis=1) if share < 1 else (devices > 1 - 1e-9).sum(axis=1) >= share
        fits = able & (cpu >= request.cpu) & (memory >= request.memory)
        i = int(np.where(fits, devices.sum(axis=1), np.inf).argmin())
        cpu[i] -= request.cpu
        memory[i] -= request.memory
        free = np.flatnonzero(devices[i] >= min(share, 1) - 1e-9)
        chosen = free[devices[i][free].argsort()][:1] if share < 1 else free[: int(share)]
        devices[i, chosen] -= min(share, 1)
    return len(requests) / (time.thread_time() - began)
