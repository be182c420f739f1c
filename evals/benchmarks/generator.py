"""Kueue's performance generators: the YAML in which its own benchmark says who submits what, and when."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import yaml

from evals.benchmarks.report import Wrong

_FACTORS = {"": 1.0, "m": 1e-3, "k": 1e3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclass(frozen=True)
class Queue:
    """A cluster queue; amounts in cores."""

    name: str
    cohort: str
    quota: float
    borrow: float | None
    """How much of what its cohort leaves idle it may take; None: all."""
    preempts: bool
    """Its workloads may displace others: those of lower priority, or those that borrow."""


@dataclass(frozen=True)
class Workload:
    name: str
    kind: str
    """Its class."""
    queue: str
    at: float
    """Seconds after the start when it is created."""
    seconds: float
    """How long it runs."""
    priority: int
    pods: int
    cpu: float
    """Cores in all."""
    rack: Literal["required", "preferred"] | None


@dataclass(frozen=True)
class Generator:
    name: str
    queues: tuple[Queue, ...]
    workloads: tuple[Workload, ...]
    """By queue and set; within a set in the order of their creation."""
    racks: int
    nodes_a_rack: int
    node_cpu: float

    def bound(self) -> float:
        """Seconds below which no scheduler can be: the cohort with most work for its quota, or the last creation."""
        cohort = {q.name: q.cohort for q in self.queues}
        work: dict[str, float] = {}
        quota: dict[str, float] = {}
        for q in self.queues:
            quota[q.cohort] = quota.get(q.cohort, 0) + q.quota
        for w in self.workloads:
            work[cohort[w.queue]] = work.get(cohort[w.queue], 0) + w.cpu * w.seconds
        return max(*(work[c] / quota[c] for c in work), *(w.at + w.seconds for w in self.workloads))

    def levels(self) -> dict[int, int]:
        """Kueue's priorities -> ours, 0..100 in the same order."""
        known = sorted({w.priority for w in self.workloads})
        return {priority: round(100 * i / max(1, len(known) - 1)) for i, priority in enumerate(known)}

    def sets(self) -> list[list[Workload]]:
        """The workloads that one creator makes one after another."""
        return [list(group) for _, group in groupby(self.workloads, key=lambda w: w.name.rsplit("-", 1)[0])]


def read(path: Path, size: float = 1.0) -> Generator:
    """The generator in `path`; with `size` a share of each set's workloads. Raises `Wrong` when it is none."""
    try:
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))
        queues = list(_queues(spec["cohorts"]))
        workloads = tuple(w for q, sets in queues for w in _workloads(q.name, sets, size))
        racks, each, cpu = _topology(spec.get("topology"), [q for q, _ in queues])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as e:
        raise Wrong(f"{path} is not one of Kueue's generators ({type(e).__name__}: {e}).") from e
    name = path.stem.removesuffix("-generator")
    return Generator(name, tuple(q for q, _ in queues), workloads, racks, each, cpu)


def _queues(cohorts: Iterable[dict[str, Any]]) -> Iterator[tuple[Queue, list[dict[str, Any]]]]:
    """Each queue with its sets of workloads."""
    for cohort in cohorts:
        for c in range(cohort["count"]):
            for group in cohort["queuesSets"]:
                for q in range(group["count"]):
                    name = f"{cohort['className']}-{c}-{group['className']}-{q}"
                    yield _queue(name, f"{cohort['className']}-{c}", group), group["workloadsSets"]


def _queue(name: str, cohort: str, group: dict[str, Any]) -> Queue:
    limit = group.get("borrowingLimit")
    never = {None, "", "Never"}
    preempts = group.get("reclaimWithinCohort") not in never or group.get("withinClusterQueue") not in never
    return Queue(name, cohort, amount(group["nominalQuota"]), None if limit is None else amount(limit), preempts)


def _workloads(queue: str, sets: list[dict[str, Any]], size: float) -> Iterator[Workload]:
    for s, group in enumerate(sets):
        made = 0
        for i in range(max(1, round(group["count"] * size))):
            for spec in group["workloads"]:
                yield _workload(f"{queue}-{spec['className']}-{s}-{made}", queue, group["creationIntervalMs"] * i, spec)
                made += 1


def _workload(name: str, queue: str, at: float, spec: dict[str, Any]) -> Workload:
    pods = int(spec.get("podCount", 1))
    wanted = spec.get("tasConstraint")
    return Workload(
        name=name,
        kind=spec["className"],
        queue=queue,
        at=at / 1000,
        seconds=spec["runtimeMs"] / 1000,
        priority=int(spec.get("priority", 0)),
        pods=pods,
        cpu=pods * amount(spec["request"]),
        rack=None if wanted is None else "required" if wanted == "required" else "preferred",
    )


def _topology(spec: dict[str, Any] | None, queues: list[Queue]) -> tuple[int, int, float]:
    """(racks, nodes a rack, cores a node); where the file has no nodes, so many that quotas alone are short."""
    if spec is None:
        return 1, max(2, int(1.5 * sum(q.quota for q in queues) / 96) + 1), 96.0
    counts = [int(level["count"]) for level in spec["levels"]]
    racks = 1
    for count in counts[:-1]:
        racks *= count
    return racks, counts[-1], amount(spec["levels"][-1]["capacity"]["cpu"])


def amount(text: str | float) -> float:
    """A Kubernetes quantity: 20, "500m", "256Gi". Raises `ValueError`."""
    found = re.fullmatch(r"([0-9.]+)(m|k|Ki|Mi|Gi)?", str(text))
    if found is None:
        raise ValueError(f"{text!r} is not an amount")
    return float(found[1]) * _FACTORS[found[2] or ""]
