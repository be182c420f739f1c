"""What Prometheus reads: derived from the ledger when it is asked for, so that nothing can drift.

Labels are what an admin has set up (resource groups, device models, projects with a quota), never names of sessions,
users or nodes: their number does not grow with use.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from cluster.db.tables import QuotaRow
from cluster.directory import Directory
from cluster.journal.chain import Link
from cluster.ledger import Ledger
from cluster.live import LiveNode, LiveSession
from cluster.models import NodeStatus

if TYPE_CHECKING:
    from cluster.core import Core

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
WAITS = (10, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86400, 3 * 86400, 7 * 86400)
BEATS = (1, 5, 10, 30, 60, 300, 3600)
MOST_PROJECTS = 1000
"""Quotas of so many projects at most, in alphabetical order."""
HEAD_DIGITS = 13
"""Hexadecimal digits of the journal's newest hash that a sample can hold exactly (52 bits)."""


class Metrics:
    """Of one core. Others add what they know: `core.metrics.add(collector)`."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._more = CollectorRegistry(auto_describe=False)
        ProcessCollector(namespace="helmsman", registry=self._more)
        self.passes = Histogram(
            "helmsman_pass_duration_seconds", "Scheduling passes.", buckets=SECONDS, registry=self._more
        )
        self.commits = Histogram(
            "helmsman_commit_duration_seconds", "Rounds that were committed.", buckets=SECONDS, registry=self._more
        )

    def add(self, collector: Collector) -> None:
        """Asked at each scrape, between other things that the server does: it must be quick, and its labels bounded."""
        self._more.register(collector)

    async def text(self, accept: str) -> tuple[bytes, str]:
        """The samples in the format that `accept` asks for, and its content type."""
        core = self._core
        async with core.still() as ledger:
            now = core.clock.now()
            seen = Seen.of(ledger, core.directory, now, core.draft.written, core.draft.newest_event)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Told(core.name, core.simulated, seen))
        registry.register(self._more)
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type


@dataclass(slots=True)
class Amounts:
    """Cores, bytes, devices."""

    cpu: float = 0.0
    memory: float = 0.0
    gpu: float = 0.0

    def add(self, cpu: float, memory: float, gpu: float, sign: int = 1) -> None:
        self.cpu += sign * cpu
        self.memory += sign * memory
        self.gpu += sign * gpu


Place = tuple[str, str]
"""A resource group and a device model ("" for none)."""


def _amounts() -> defaultdict[Place, Amounts]:
    return defaultdict(Amounts)


@dataclass(slots=True)
class Seen:
    """One look at the ledger, between two commits."""

    newest: Link
    newest_event: int
    nodes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By resource group and status."""
    sessions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Live ones by resource group and state."""
    capacity: defaultdict[Place, Amounts] = field(default_factory=_amounts)
    used: defaultdict[Place, Amounts] = field(default_factory=_amounts)
    free: defaultdict[Place, Amounts] = field(default_factory=_amounts)
    """On nodes that take work."""
    waits: list[float] = field(default_factory=list)
    longest: dict[str, float] = field(default_factory=dict)
    """Resource group -> seconds that the longest waiting session there waits."""
    beats: list[float] = field(default_factory=list)
    """Seconds since each agent's last beat."""
    limits: dict[tuple[str, str], float] = field(default_factory=dict)
    """By project and resource, of those that have a limit."""
    uses: dict[tuple[str, str], float] = field(default_factory=dict)

    @classmethod
    def of(cls, ledger: Ledger, directory: Directory, now: datetime, newest: Link, newest_event: int) -> "Seen":
        """All of it; takes time in proportion to nodes and live sessions."""
        seen = cls(newest, newest_event)
        for name in directory.groups:
            seen.longest[name] = 0.0
        for node in ledger.nodes.values():
            seen._node(ledger, node, now)
        for session in ledger.sessions.values():
            seen.sessions[session.resource_group, str(session.state)] += 1
        for session in ledger.waiting.values():
            seen._waits(session, now)
        seen._quotas(ledger, directory)
        return seen

    def _node(self, ledger: Ledger, node: LiveNode, now: datetime) -> None:
        place = (node.resource_group, node.gpu_model or "")
        whole = (node.cpu, node.memory, len(node.devices))
        self.nodes[node.resource_group, str(node.status)] += 1
        self.capacity[place].add(*whole)
        used = self.used[place]
        open_ = node.status == NodeStatus.ALIVE
        free = self.free[place]
        if open_:
            free.add(*whole)
        for rank in ledger.ranks_on(node.name):
            held = (rank.cpu, rank.memory, sum(rank.devices.values()))
            used.add(*held)
            if open_:
                free.add(*held, sign=-1)
        if node.last_beat is not None:
            self.beats.append(max(0.0, (now - node.last_beat).total_seconds()))

    def _waits(self, session: LiveSession, now: datetime) -> None:
        seconds = max(0.0, (now - session.submitted).total_seconds())
        self.waits.append(seconds)
        self.longest[session.resource_group] = max(seconds, self.longest.get(session.resource_group, 0.0))

    def _quotas(self, ledger: Ledger, directory: Directory) -> None:
        projects = sorted(name for scope, name in directory.quotas if scope == "project")
        for project in islice(projects, MOST_PROJECTS):
            self.limits |= {(project, what): most for what, most in _limits(directory.quotas["project", project])}
        use: dict[str, Amounts] = {project: Amounts() for project in projects[:MOST_PROJECTS]}
        count: Counter[str] = Counter()
        for session in ledger.holding.values():
            if session.project in use:
                count[session.project] += 1
                for rank in session.ranks:
                    use[session.project].add(rank.cpu, rank.memory, sum(rank.devices.values()))
        for project, held in use.items():
            told = {"cpu": held.cpu, "memory": held.memory, "gpu": held.gpu, "sessions": float(count[project])}
            self.uses |= {(project, what): amount for what, amount in told.items()}


def _limits(row: QuotaRow) -> Iterator[tuple[str, float]]:
    for what in ("cpu", "memory", "gpu", "sessions"):
        if (most := getattr(row, what)) is not None:
            yield what, float(most)


class _Told(Collector):
    """`Seen` as Prometheus has it."""

    def __init__(self, name: str, simulated: bool, seen: Seen) -> None:
        self._name, self._simulated, self._seen = name, simulated, seen

    def collect(self) -> Iterator[Metric]:
        seen = self._seen
        yield InfoMetricFamily(
            "helmsman_cluster", "The cluster.", {"name": self._name, "simulated": str(self._simulated).lower()}
        )
        yield _gauge("nodes", "Nodes.", ("resource_group", "status"), seen.nodes.items())
        yield _gauge("sessions", "Sessions that have not ended.", ("resource_group", "state"), seen.sessions.items())
        yield from _places("capacity", "What there is", seen.capacity)
        yield from _places("used", "What sessions hold: the sum of their allocations", seen.used)
        yield from _places("free", "What is free on nodes that take work", seen.free)
        labels = ("project", "resource")
        yield _gauge("quota_limit", "Limits of projects; none where there is no limit.", labels, seen.limits.items())
        yield _gauge("quota_used", "What projects with a quota hold.", labels, seen.uses.items())
        yield _spread("queue_wait_seconds", "For how long the sessions that wait now have waited.", WAITS, seen.waits)
        longest = [((group,), seconds) for group, seconds in seen.longest.items()]
        yield _gauge("queue_longest_wait_seconds", "Of the session that waits longest.", ("resource_group",), longest)
        yield _spread("agent_beat_age_seconds", "Since each agent's last beat.", BEATS, seen.beats)
        oldest = max(seen.beats, default=0.0)
        yield GaugeMetricFamily("helmsman_agent_beat_age_longest_seconds", "Of the most silent agent.", value=oldest)
        yield CounterMetricFamily("helmsman_journal_rows", "Number of the journal's newest row.", seen.newest.number)
        head = int((seen.newest.chain or "0")[:HEAD_DIGITS], 16)
        yield GaugeMetricFamily(
            "helmsman_journal_head", "The first 13 hexadecimal digits of the journal's newest hash, as a number.", head
        )
        yield CounterMetricFamily("helmsman_events", "Number of the newest event.", seen.newest_event)


def _gauge(
    name: str, said: str, labels: tuple[str, ...], samples: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"helmsman_{name}", said, labels=labels)
    for values, amount in sorted(samples):
        family.add_metric(values, amount)
    return family


def _places(name: str, said: str, amounts: defaultdict[Place, Amounts]) -> Iterator[GaugeMetricFamily]:
    for unit, words, what in (("cpu_cores", "cores", "cpu"), ("memory_bytes", "bytes", "memory"),
                              ("gpus", "devices", "gpu")):  # fmt: skip
        samples = ((place, round(getattr(amount, what), 6)) for place, amount in amounts.items())
        yield _gauge(f"{name}_{unit}", f"{said}, in {words}.", ("resource_group", "gpu_model"), samples)


def _spread(name: str, said: str, bounds: tuple[float, ...], values: list[float]) -> GaugeHistogramMetricFamily:
    """How many of `values` are at most each of `bounds`."""
    below = [(str(float(bound)), float(sum(value <= bound for value in values))) for bound in bounds]
    buckets = [*below, ("+Inf", float(len(values)))]
    return GaugeHistogramMetricFamily(f"helmsman_{name}", said, buckets=buckets, gsum_value=sum(values))
