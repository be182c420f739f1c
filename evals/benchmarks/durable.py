"""Sessions a second through the whole core: submitted, scheduled, ordered, running, ended; every commit on the disk.

A thousand pretended agents on 8,000 GPUs in a fair_share group, users and projects with quotas; single GPUs, fractions,
CPU sessions and gangs over 2 to 4 nodes. Sessions end as soon as they run, so that nothing is measured but the core.
Afterwards the database is opened anew: every session that was acknowledged is there and has ended well, once.
"""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cluster.db.engine import Where
from cluster.db.tables import Base, GroupRow, MemberRow, ProjectRow, QuotaRow, UserRow
from cluster.models import NodeInfo, SessionType, StartSession
from evals.benchmarks.database import counted_commits, seed, verify
from evals.benchmarks.doors import Door, Submit, in_process, served
from evals.benchmarks.nodes import GIB, Node, Seen, gpu_nodes, until_done
from evals.benchmarks.report import Broken, Cell, Figure, Options, Report, Series, Target, Wrong

TARGET = 2000.0
KNOWN = "Backend.AI 31-85 without its database, Slurm ~500, kube-scheduler 680-810 at 5,000 nodes"
GROUP = "gpu"
PROJECTS, USERS_EACH = 5, 4


@dataclass(frozen=True)
class Size:
    nodes: int = 1000
    sessions: int = 20_000
    over_http: int = 4_000
    clients: int = 512
    """How many wait for an acknowledgement at the same time."""

    def times(self, share: float) -> "Size":
        """The same benchmark with a part of the sessions; nodes and clients only get fewer below a hundredth."""
        few = min(1.0, 100 * share)
        return Size(
            max(8, int(self.nodes * few)),
            max(20, int(self.sessions * share)),
            max(20, int(self.over_http * share)),
            max(8, int(self.clients * few)),
        )


@dataclass(frozen=True)
class Measured:
    """One way of reaching the core. Rates a second, times in seconds."""

    way: str
    sessions: int
    seconds: float
    acknowledged: list[float]
    """Submit to acknowledgement."""
    started: list[float]
    """Submit to the server knowing that all ranks run."""
    cpu: float | None
    """CPU time of core, agents and clients together, where they are one process."""
    commits: int | None

    @property
    def rate(self) -> float:
        return self.sessions / self.seconds


def run(options: Options) -> Report:
    """In process, once for each seed (one), then over HTTP."""
    size = Size().times(options.size)
    found = [asyncio.run(measure(size, seed, over_http=False)) for seed in range(options.seeds or 1)]
    rate = statistics.median(m.rate for m in found)
    found.append(asyncio.run(measure(size, 0, over_http=True)))
    return Report(
        name="durable",
        title=f"{size.nodes:,} agents, gangs, quotas and fair share, every commit on the disk",
        columns=[
            "way",
            "sessions",
            "s",
            "CPU s",
            "sessions/s",
            "ack p50 ms",
            "ack p99 ms",
            "running p50 ms",
            "running p99 ms",
            "commits",
        ],
        rows=[_row(m) for m in found],
        targets=[Target(what="sessions/s end to end, durable", value=rate, target=TARGET, known=KNOWN)],
        notes=[
            f"{size.clients} clients wait for acknowledgements at the same time; agents and clients of the first row "
            "share the core's process and thread, those of the second are a process of their own.",
            "Afterwards every acknowledged session was found in the database anew, ended well, once.",
        ],
        figures=[
            Figure(
                title="sessions/s",
                y="sessions/s",
                series=[Series(name="rate", x=[m.way for m in found], y=[m.rate for m in found])],
                line=TARGET,
            ),
            Figure(
                title="submit to running",
                x="share of sessions",
                y="s",
                kind="lines",
                series=[_spread(m) for m in found],
            ),
        ],
    )


def _row(m: Measured) -> list[Cell]:
    ms = [1000 * float(np.percentile(of, q)) for of in (m.acknowledged, m.started) for q in (50, 99)]
    return [m.way, m.sessions, m.seconds, m.cpu, m.rate, *ms, m.commits]


def _spread(m: Measured) -> Series:
    shares = [i / 100 for i in range(1, 100)]
    return Series(name=m.way, x=shares, y=[float(np.quantile(m.started, q)) for q in shares])


# ── the work ─────────────────────────────────────────────────────────────────────────────────────


def rows() -> Iterator[Base]:
    """The people: five projects of four users each, quotas on both, one fair_share group."""
    yield GroupRow(name=GROUP, policy="fair_share")
    for p in range(PROJECTS):
        yield ProjectRow(name=f"p{p}")
    for name in users():
        yield UserRow(name=name, role="user")
        yield MemberRow(project=f"p{name[1]}", user=name)
        yield QuotaRow(scope="user", name=name, gpu=400, sessions=2000)
    for p in range(PROJECTS):
        yield QuotaRow(scope="project", name=f"p{p}", gpu=1500)


def users() -> list[str]:
    return [f"u{p}{i}" for p in range(PROJECTS) for i in range(USERS_EACH)]


def requests(count: int, seed: int) -> list[StartSession]:
    """40 % single GPUs, 20 % fractions, 25 % CPU only, 15 % gangs over 2 to 4 nodes."""
    draw = random.Random(seed)
    return [_request(draw, f"s-{i:06}") for i in range(count)]


def _request(draw: random.Random, name: str) -> StartSession:
    kind = draw.random()
    nodes, gpu, cpu = 1, 0.0, 4.0
    if kind < 0.4:
        gpu = 1
    elif kind < 0.6:
        gpu = draw.choice((0.25, 0.5))
    elif kind >= 0.85:
        nodes = draw.randint(2, 4)
        gpu, cpu = float(nodes * draw.choice((1, 2, 4, 8))), 8.0 * nodes
    return StartSession(
        name=name,
        type=SessionType.BATCH,
        command="true",
        cpu=cpu,
        memory=int(cpu) * GIB,
        gpu=gpu,
        node_count=nodes,
        resource_group=GROUP,
    )


# ── driving it ───────────────────────────────────────────────────────────────────────────────────


async def measure(size: Size, seed: int, over_http: bool, where: Where | None = None) -> Measured:
    """All sessions from the first submission to the last end, then the check of what the database holds.

    `where`: another database than a file; only in process.
    """
    work = requests(size.over_http if over_http else size.sessions, seed)
    with tempfile.TemporaryDirectory(prefix="durable-") as folder:
        async with _door(Path(folder), over_http, where) as door:
            found = await _drive(door, gpu_nodes(size.nodes, GROUP), work, size.clients)
        await verify(Path(folder), found.acknowledged, where)
    if wrong := found.seen.not_once():
        raise Broken(f"{len(wrong)} sessions did not run exactly once, {wrong[0]} among them.")
    return Measured(
        way="over HTTP" if over_http else "in process",
        sessions=len(work),
        seconds=max(found.seen.ended.values()) - found.began,
        acknowledged=[at - found.submitted[name] for name, at in found.acknowledged.items()],
        started=[at - found.submitted[name] for name, at in found.seen.running.items()],
        cpu=None if over_http else found.cpu,
        commits=None if over_http else found.commits,
    )


@asynccontextmanager
async def _door(folder: Path, over_http: bool, where: Where | None) -> AsyncIterator[Door]:
    await seed(folder, rows(), where)
    async with served(folder, users()) if over_http else in_process(folder, where) as door:
        yield door


Times = dict[str, float]


@dataclass
class Driven:
    """What was seen from outside; times are `time.monotonic()`."""

    seen: Seen
    submitted: Times = field(default_factory=dict)
    acknowledged: Times = field(default_factory=dict)
    began: float = 0.0
    cpu: float = 0.0
    commits: int = 0


async def _drive(door: Door, nodes: list[NodeInfo], work: list[StartSession], clients: int) -> Driven:
    """Let the nodes join, then have the clients submit everything, until all has ended."""
    found = Driven(Seen({w.name or "": w.node_count for w in work}))
    for info in nodes:
        await door.register(info)
    submits = [await door.client(users()[i % len(users())]) for i in range(clients)]
    agents = [asyncio.create_task(Node(await door.agent(n.name), found.seen, lambda _: 0.0).live()) for n in nodes]
    await asyncio.sleep(0.5)  # until all of them wait for orders
    left = iter(work)
    with counted_commits() as counter:
        found.began, cpu = time.monotonic(), time.process_time()
        going = [asyncio.create_task(_client(submit, left, found)) for submit in submits]
        await until_done(found.seen, agents, going)
        found.cpu, found.commits = time.process_time() - cpu, counter["commits"]
    return found


async def _client(submit: Submit, left: Iterator[StartSession], found: Driven) -> None:
    """Submit one after another until none is left; each waits for the acknowledgement of the one before."""
    for operation in left:
        name = operation.name or ""
        found.submitted[name] = time.monotonic()
        outcome = await submit(operation)
        if outcome.refused:
            raise Wrong(f"{name} was refused: {outcome.refused[0].message}")
        found.acknowledged[name] = time.monotonic()
