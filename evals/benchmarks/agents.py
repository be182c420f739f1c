"""What a thousand agents cost the server: beats a second, time to an order, a storm of registrations, idling.

Over HTTP the server is a process of its own and its CPU time is counted apart from that of the pretended agents.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from cluster.db.tables import Base, GroupRow, MemberRow, ProjectRow, UserRow
from cluster.models import Beat, Device, NodeInfo, Sample, SessionType, StartSession
from evals.benchmarks.database import seed
from evals.benchmarks.doors import Door, Http, in_process, served
from evals.benchmarks.nodes import GIB, POLL, Node, Seen, Send, gpu_nodes, until_done
from evals.benchmarks.report import Cell, Figure, Options, Report, Series, Wrong

USER, GROUP = "user", "gpu"


@dataclass(frozen=True)
class Size:
    nodes: int = 1000
    beats: int = 10_000
    orders: int = 200
    idle: float = 30.0
    """Seconds to watch idle agents."""

    def times(self, share: float) -> "Size":
        nodes, beats, orders = (max(8, int(n * share)) for n in (self.nodes, self.beats, self.orders))
        return Size(nodes, beats, orders, max(0.5, self.idle * share))


@dataclass(frozen=True)
class Measured:
    """One way of reaching the core; rates a second, times in seconds."""

    way: str
    storm: float
    """From the first to the last of all registrations at once, by a server that knows the nodes already."""
    idle_beats: float
    sampled_beats: float
    orders: list[float]
    """Submit to the agent having its order, one session at a time."""
    idle_cpu: float
    """Share of one core that all idle agents cost, their own part included where they share the process."""


def run(options: Options) -> Report:
    """In process, then over HTTP."""
    size = Size().times(options.size)
    found = [asyncio.run(measure(size, over_http)) for over_http in (False, True)]
    return Report(
        name="agents",
        title=f"what {size.nodes:,} agents cost the server",
        columns=[
            "way",
            "idle beats/s",
            "beats with samples/s",
            "order p50 ms",
            "order p99 ms",
            "storm s",
            "registrations/s",
            "idle: % of a core",
        ],
        rows=[_row(size, m) for m in found],
        notes=[
            f"storm: {size.nodes:,} agents register at once after a restart of the server, which knows them already.",
            f"idle: for {size.idle:g} s every agent sends a sample each {POLL:g} s and waits in its long poll; "
            "in process the agents' own part is in it.",
            "an order: a session is submitted while all agents wait; until its agent has heard of it.",
        ],
        figures=[_beats(found), _orders(found)],
    )


def _row(size: Size, m: Measured) -> list[Cell]:
    p50, p99 = (1000 * float(np.percentile(m.orders, q)) for q in (50, 99))
    return [m.way, m.idle_beats, m.sampled_beats, p50, p99, m.storm, size.nodes / m.storm, 100 * m.idle_cpu]


def _beats(found: list[Measured]) -> Figure:
    kinds = ["idle", "with samples"]
    series = [Series(name=m.way, x=kinds, y=[m.idle_beats, m.sampled_beats]) for m in found]
    return Figure(title="beats a second", y="1/s", series=series, log=True)


def _orders(found: list[Measured]) -> Figure:
    shares = [i / 100 for i in range(1, 100)]
    series = [Series(name=m.way, x=shares, y=[1000 * float(np.quantile(m.orders, q)) for q in shares]) for m in found]
    return Figure(title="submit to order", x="share of sessions", y="ms", kind="lines", series=series)


# ── measuring ────────────────────────────────────────────────────────────────────────────────────


async def measure(size: Size, over_http: bool) -> Measured:
    """The server is started, learns the nodes, is started anew, and then everything is measured on it."""
    nodes = gpu_nodes(size.nodes, GROUP)
    with tempfile.TemporaryDirectory(prefix="agents-") as folder:
        await seed(Path(folder), _rows())
        async with in_process(Path(folder)) as door:
            await _register(door, nodes)
        async with _door(Path(folder), over_http) as door:
            storm = await _register(door, nodes)
            sends = [await door.agent(n.name) for n in nodes]
            idle = await _beats_a_second(sends, size.beats, Beat)
            sampled = await _beats_a_second(sends, size.beats, _sampled)
            orders = await _time_to_orders(door, nodes, size.orders)
            cpu = await _idle_cpu(door, nodes, size.idle)
    return Measured("over HTTP" if over_http else "in process", storm, idle, sampled, orders, cpu)


@asynccontextmanager
async def _door(folder: Path, over_http: bool) -> AsyncIterator[Door]:
    async with served(folder, [USER]) if over_http else in_process(folder) as door:
        yield door


def _rows() -> Iterator[Base]:
    yield GroupRow(name=GROUP, policy="fifo", selector="dispersed")
    yield ProjectRow(name="p")
    yield UserRow(name=USER, role="user")
    yield MemberRow(project="p", user=USER)


async def _register(door: Door, nodes: list[NodeInfo]) -> float:
    """Seconds until all have registered that start to at the same time."""
    began = time.monotonic()
    await asyncio.gather(*(door.register(n) for n in nodes))
    return time.monotonic() - began


async def _beats_a_second(sends: list[Send], count: int, beat: Callable[[], Beat]) -> float:
    """Every agent beats again as soon as it has its answer."""
    left = iter(range(count))

    async def beat_on(send: Send) -> None:
        for _ in left:
            await send(beat())

    began = time.monotonic()
    await asyncio.gather(*(beat_on(send) for send in sends))
    return count / (time.monotonic() - began)


def _sampled() -> Beat:
    """A beat with what a real agent measures every few seconds on a node with eight GPUs."""
    devices = [Device(index=i, model="H100-80G", utilization=0.5, temperature=55, power=400) for i in range(8)]
    return Beat(sample=Sample(cpu_utilization=0.4, memory_utilization=0.3, temperature=55, power=3500, devices=devices))


async def _time_to_orders(door: Door, nodes: list[NodeInfo], count: int) -> list[float]:
    """Seconds from submission to order of each of `count` sessions, one at a time."""
    work = [_session(i) for i in range(count)]
    seen = Seen({w.name or "": 1 for w in work})
    agents = [asyncio.create_task(Node(await door.agent(n.name), seen, lambda _: 0.0).live()) for n in nodes]
    await asyncio.sleep(0.5)  # until all of them wait
    submit = await door.client(USER)
    submitted: dict[str, float] = {}

    async def submit_all() -> None:
        for each in work:
            name = each.name or ""
            submitted[name] = time.monotonic()
            outcome = await submit(each)
            if outcome.refused:
                raise Wrong(f"{name} was refused: {outcome.refused[0].message}")
            await seen.end_of(name)

    await until_done(seen, agents, [asyncio.create_task(submit_all())])
    return [at - submitted[name] for name, at in seen.ordered.items()]


def _session(i: int) -> StartSession:
    return StartSession(
        name=f"s-{i:05}", type=SessionType.BATCH, command="true", cpu=1, memory=GIB, gpu=1, resource_group=GROUP
    )


async def _idle_cpu(door: Door, nodes: list[NodeInfo], seconds: float) -> float:
    """CPU seconds a second of the server's process while every agent does what a real one does without work."""
    agents = [asyncio.create_task(_idle(await door.agent(n.name))) for n in nodes]
    await asyncio.sleep(0.5)  # until all of them wait
    process = psutil.Process(door.pid if isinstance(door, Http) else None)
    before, began = _cpu(process), time.monotonic()
    await asyncio.sleep(seconds)
    share = (_cpu(process) - before) / (time.monotonic() - began)
    for agent in agents:
        agent.cancel()
    await asyncio.gather(*agents, return_exceptions=True)
    return share


async def _idle(send: Send) -> None:
    """A sample with each beat, and a long poll as long as the server wants to hear of it."""
    while True:
        await send(_sampled().model_copy(update={"wait": POLL}))


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
