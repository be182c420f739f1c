"""Agents that pretend to run things: they beat, obey and report as real ones do, a thousand of them in one process."""

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from cluster.models import Beat, BeatReply, Device, NodeInfo, Resources, Work, WorkId, WorkReport
from evals.benchmarks.report import Broken

POLL = 5.0
"""Seconds that a beat without news waits for orders, as a real agent's: the interval that the server asks for."""
GIB = 2**30

Send = Callable[[Beat], Awaitable[BeatReply]]
Tasks = Collection[asyncio.Task[None]]


def gpu_nodes(count: int, group: str, gpus: int = 8, cpu: float = 64) -> list[NodeInfo]:
    """`count` equal nodes n-0000 … with 8 GiB of memory a core."""
    model = "H100-80G" if gpus else None
    return [
        NodeInfo(
            name=f"n-{i:04}",
            capacity=Resources(cpu=cpu, memory=int(cpu) * 8 * GIB, gpu=gpus),
            devices=[Device(index=d, model=model or "", memory=80 * GIB) for d in range(gpus)],
            gpu_model=model,
            resource_group=group,
            rack=f"r-{i // 32:02}",
        )
        for i in range(count)
    ]


@dataclass
class Seen:
    """What the agents saw of each session, by its name; times are `time.monotonic()`."""

    expected: Mapping[str, int]
    """Name -> number of ranks."""
    ordered: dict[str, float] = field(default_factory=dict)
    """When an agent first heard of it."""
    running: dict[str, float] = field(default_factory=dict)
    """When the server had taken the news that a (the last) rank runs."""
    ended: dict[str, float] = field(default_factory=dict)
    """When the server had taken the news that its last rank has ended."""
    runs: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How often each rank ran to its end."""
    stopped: Counter[str] = field(default_factory=Counter)
    """How often a rank was stopped by the server."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    _left: Counter[str] = field(default_factory=Counter)
    _watched: dict[str, asyncio.Event] = field(default_factory=dict)

    async def end_of(self, name: str) -> None:
        """Until the session has ended."""
        if name not in self.ended:
            await self._watched.setdefault(name, asyncio.Event()).wait()

    def end(self, name: str, rank: int, now: float) -> None:
        self.runs[name, rank] += 1
        self._left[name] += 1
        if self._left[name] == self.expected[name]:
            self.ended[name] = now
            if name in self._watched:
                self._watched.pop(name).set()
            if len(self.ended) == len(self.expected):
                self.done.set()

    def not_once(self) -> list[str]:
        """Names of the sessions that did not run exactly once on every rank."""
        return [name for name, ranks in self.expected.items() if any(self.runs[name, r] != 1 for r in range(ranks))]


class Node:
    """One pretended agent. Work takes `runtime(work)` seconds from the order on, then it is told to have ended well."""

    def __init__(self, send: Send, seen: Seen, runtime: Callable[[Work], float]) -> None:
        self._send = send
        self._seen = seen
        self._runtime = runtime
        self._here: dict[tuple[str, int, int], Work] = {}
        self._fresh: list[Work] = []
        self._ends: list[tuple[float, tuple[str, int, int]]] = []
        self._stopped: list[WorkReport] = []

    async def live(self) -> None:
        """Beat until cancelled: at once with news, else as a long poll until something here is due."""
        while True:
            fresh, due = self._fresh, self._due(time.monotonic())
            reports = [_report(w.id, "running") for w in fresh] + [_report(w.id, "exited", 0) for w in due]
            reports += self._stopped
            self._fresh, self._stopped = [], []
            running = [w.id for w in self._here.values()]
            reply = await self._send(Beat(running=running, reports=reports, wait=0 if reports else self._patience()))
            self._note(fresh, due)
            self._obey(reply)

    def _due(self, now: float) -> list[Work]:
        """What has ended by now; nothing ends before it was reported to run."""
        unsaid = {_key(w.id) for w in self._fresh}
        due: list[Work] = []
        while self._ends and self._ends[0][0] <= now and self._ends[0][1] not in unsaid:
            work = self._here.pop(heapq.heappop(self._ends)[1], None)
            if work is not None:
                due.append(work)
        return due

    def _patience(self) -> float:
        return min(POLL, max(0.0, self._ends[0][0] - time.monotonic())) if self._ends else POLL

    def _note(self, fresh: Iterable[Work], due: Iterable[Work]) -> None:
        now = time.monotonic()
        for work in fresh:
            self._seen.running[work.name] = now
        for work in due:
            self._seen.end(work.name, work.id.rank, now)

    def _obey(self, reply: BeatReply) -> None:
        now = time.monotonic()
        for order in reply.stop:
            work = self._here.pop(_key(order.id), None)
            self._stopped.append(_report(order.id, "exited" if work else "lost", 143 if work else None))
            if work is not None:
                self._seen.stopped[work.name] += 1
        for work in reply.start:
            if _key(work.id) not in self._here:
                self._seen.ordered.setdefault(work.name, now)
                self._here[_key(work.id)] = work
                self._fresh.append(work)
                heapq.heappush(self._ends, (now + self._runtime(work), _key(work.id)))


async def until_done(seen: Seen, agents: Tasks, clients: Tasks, patience: float = 120) -> None:
    """Until every session has ended and all `clients` are through; then `agents` are cancelled. Raises what one of them
    raised, and `Broken` when nothing went on for `patience` seconds."""
    done = asyncio.create_task(seen.done.wait())
    pending: set[asyncio.Task[Any]] = {done, *agents, *clients}
    try:
        while pending & {done, *clients}:
            before = len(seen.ended)
            finished, pending = await asyncio.wait(pending, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                task.result()
            if not finished and len(seen.ended) == before:
                raise Broken(f"Nothing went on for {patience:g} s: {len(seen.ended)} of {len(seen.expected)} ended.")
    finally:
        for each in (done, *agents, *clients):
            each.cancel()
        await asyncio.gather(done, *agents, *clients, return_exceptions=True)


def _key(ident: WorkId) -> tuple[str, int, int]:
    return ident.session, ident.attempt, ident.rank


def _report(ident: WorkId, state: Literal["running", "exited", "lost"], code: int | None = None) -> WorkReport:
    return WorkReport(id=ident, state=state, exit_code=code, at=datetime.now(UTC))
