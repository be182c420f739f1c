"""Kueue's own generators against the real core, in wall time, every commit on the disk.

A cohort's queues are projects that lend each other what their quotas leave idle; a workload is a session that runs for
its `runtimeMs` from the moment its (pretended) agent was told to start. Measured is the time from the first creation to
the last end, and per class how long a workload waited until an agent had heard of it.
"""

import asyncio
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.db.tables import Base, GroupRow, ProjectRow, QuotaRow, UserRow
from cluster.models import NodeInfo, Resources, SessionType, StartSession
from evals.benchmarks.database import seed, verify
from evals.benchmarks.doors import Door, Submit, in_process
from evals.benchmarks.generator import Generator, Workload, read
from evals.benchmarks.nodes import GIB, Node, Seen, until_done
from evals.benchmarks.report import Broken, Cell, Figure, Options, Report, Series, Target, Wrong

TARGETS = {"baseline": 80.0, "large-scale": 30.0}
"""Seconds of wall time."""
KNOWN = {"baseline": 351.0, "large-scale": 1179.0, "tas": 401.0}
"""What Kueue takes, published in its range specifications."""
USER, GROUP = "kueue", "kueue"


@dataclass(frozen=True)
class Measured:
    """One replay; times in seconds."""

    generator: Generator
    seconds: float
    waits: dict[str, list[float]]
    """Class -> creation to order, of each workload."""
    preempted: int

    @property
    def usage(self) -> float:
        """Share of the quotas that was used over the whole run."""
        work = sum(w.cpu * w.seconds for w in self.generator.workloads)
        return work / (self.seconds * sum(q.quota for q in self.generator.queues))


def run(options: Options) -> Report:
    """Each generator as often as `seeds` says (once)."""
    files = options.files("kueue", "*-generator.yaml", default=tuple(TARGETS))
    generators = [read(path, options.size) for path in files.values()]
    found = [[asyncio.run(measure(g)) for _ in range(options.seeds or 1)] for g in generators]
    return Report(
        name="kueue",
        title="Kueue's generators in wall time, every commit on the disk",
        columns=["generator", "workloads", "bound s", "s", "Kueue s", "Kueue / ours", "quota used %", "preempted"],
        rows=[_row(m) for runs in found for m in runs],
        targets=[t for g, runs in zip(generators, found, strict=True) for t in _targets(g.name, runs)],
        notes=[_waits(m) for runs in found for m in runs[:1]]
        + ["Kueue's seconds are those that its own project publishes for these files, on its machines."],
        figures=[_wall(found), _admission([runs[0] for runs in found])],
    )


def _row(m: Measured) -> list[Cell]:
    g, known = m.generator, KNOWN.get(m.generator.name)
    ratio = known / m.seconds if known else None
    return [g.name, len(g.workloads), g.bound(), m.seconds, known, ratio, 100 * m.usage, m.preempted]


def _targets(name: str, runs: list[Measured]) -> Iterator[Target]:
    if name in TARGETS:
        value = statistics.median(m.seconds for m in runs)
        known = f"Kueue {KNOWN[name]:g} s, bound {runs[0].generator.bound():.0f} s"
        yield Target(what=name, value=value, target=TARGETS[name], better="less", unit="s", known=known)


def _waits(m: Measured) -> str:
    each = ", ".join(f"{kind} {1000 * statistics.fmean(w):,.0f} ms" for kind, w in sorted(m.waits.items()))
    return f"{m.generator.name}: mean time from creation to an agent's order: {each}."


def _wall(found: list[list[Measured]]) -> Figure:
    names = [runs[0].generator.name for runs in found]
    ours = [statistics.median(m.seconds for m in runs) for runs in found]
    series = [Series(name="Helmsman", x=names, y=ours)]
    known = [n for n in names if n in KNOWN]
    if known:
        series.append(Series(name="Kueue (published)", x=known, y=[KNOWN[n] for n in known]))
    return Figure(title="first creation to last end", y="s", series=series, log=True)


def _admission(found: list[Measured]) -> Figure:
    series = [
        Series(name=m.generator.name, x=sorted(m.waits), y=[statistics.fmean(m.waits[k]) for k in sorted(m.waits)])
        for m in found
    ]
    return Figure(title="mean time to admission", y="s", series=series)


# ── the cluster ──────────────────────────────────────────────────────────────────────────────────


def rows(generator: Generator) -> Iterator[Base]:
    """One resource group, a project with its quota for each queue; an admin submits."""
    preempts = any(q.preempts for q in generator.queues)
    yield GroupRow(name=GROUP, policy="fifo", backfill=True, preemption=preempts)
    yield UserRow(name=USER, role="admin")
    for q in generator.queues:
        yield ProjectRow(name=q.name, cohort=q.cohort)
        yield QuotaRow(scope="project", name=q.name, cpu=q.quota, borrow_cpu=q.borrow)


def nodes(generator: Generator) -> list[NodeInfo]:
    """Nodes without GPUs, rack by rack."""
    memory = int(generator.node_cpu) * 4 * GIB
    capacity = Resources(cpu=generator.node_cpu, memory=memory)
    return [
        NodeInfo(name=f"r{r:03}-n{n:03}", capacity=capacity, rack=f"r{r:03}", resource_group=GROUP)
        for r in range(generator.racks)
        for n in range(generator.nodes_a_rack)
    ]


def operation(workload: Workload, priority: int) -> StartSession:
    return StartSession(
        name=workload.name,
        type=SessionType.BATCH,
        command="true",
        cpu=workload.cpu,
        memory=GIB,
        node_count=workload.pods,
        project=workload.queue,
        priority=priority,
        resource_group=GROUP,
    )


# ── the replay ───────────────────────────────────────────────────────────────────────────────────


async def measure(generator: Generator) -> Measured:
    """Replays it once; raises `Broken` unless every workload ended well, exactly once."""
    with tempfile.TemporaryDirectory(prefix="kueue-") as folder:
        await seed(Path(folder), rows(generator))
        async with in_process(Path(folder)) as door:
            created, seen = await _replay(door, generator)
        await verify(Path(folder), created)
    if wrong := seen.not_once():
        raise Broken(f"{len(wrong)} workloads did not run exactly once to their end, {wrong[0]} among them.")
    waits: defaultdict[str, list[float]] = defaultdict(list)
    for w in generator.workloads:
        waits[w.kind].append(seen.ordered[w.name] - created[w.name])
    seconds = max(seen.ended.values()) - min(created.values())
    return Measured(generator, seconds, dict(waits), len(seen.stopped))


async def _replay(door: Door, generator: Generator) -> tuple[dict[str, float], Seen]:
    """When each workload was created, and what the agents saw."""
    seen = Seen({w.name: w.pods for w in generator.workloads})
    seconds = {w.name: w.seconds for w in generator.workloads}
    created: dict[str, float] = {}
    there = nodes(generator)
    for info in there:
        await door.register(info)
    agents = [Node(await door.agent(n.name), seen, lambda work: seconds[work.name]) for n in there]
    beating = [asyncio.create_task(agent.live()) for agent in agents]
    creator = Creator(await door.client(USER), generator.levels(), time.monotonic(), created)
    creating = [asyncio.create_task(creator.create(each)) for each in generator.sets()]
    await until_done(seen, beating, creating)
    return created, seen


@dataclass(frozen=True)
class Creator:
    """Submits workloads at their times."""

    submit: Submit
    levels: dict[int, int]
    began: float
    created: dict[str, float]

    async def create(self, workloads: list[Workload]) -> None:
        """One set: each workload at its time, or at once when the one before was acknowledged later than that."""
        for workload in workloads:
            await asyncio.sleep(max(0.0, self.began + workload.at - time.monotonic()))
            self.created[workload.name] = time.monotonic()
            outcome = await self.submit(operation(workload, self.levels[workload.priority]))
            if outcome.refused:
                raise Wrong(f"{workload.name} was refused: {outcome.refused[0].message}")
