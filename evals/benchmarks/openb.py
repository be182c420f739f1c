"""Alibaba's GPU trace (cluster-trace-gpu-v2023, of the FGD paper) filled to 130 %: how much of the GPUs gets allocated.

The rules of the published figures: the 1,213 nodes with GPUs; the pods of a list sorted by name, shuffled with the seed, then
random ones of the same list until they ask for 130 % of all GPUs. They arrive one by one, none departs, and one that
fits nowhere is dropped. Counted are the allocated GPUs and the pods placed (dropping small ones would help the former).
"""

import csv
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cluster.scheduler import Board, plan
from cluster.scheduler.fleet import UNIT, Need
from cluster.scheduler.room import Room
from cluster.scheduler.state import Group, NodeView, Request, Running, Snapshot

FULL = 1.3
"""So much of all GPUs is asked for."""
SEEDS = 10
MIB = 2**20
NOW = datetime(2026, 1, 1, tzinfo=UTC)
GROUP = "openb"

PUBLISHED = {
    "default": 95.39, "cpu050": 95.21, "cpu100": 95.35, "cpu250": 93.41, "gpushare40": 94.15, "gpushare100": 86.90,
    "gpuspec10": 94.95, "gpuspec33": 94.55, "multigpu20": 95.65, "multigpu50": 97.18,
}  # fmt: skip
"""GPU allocation in % that the authors of FGD (USENIX ATC 2023) report for it."""

DEFAULT_ALLOCATION, DEFAULT_PODS = 95.4, 8300
"""What is to be reached on the list `default`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    gpus: float
    """Allocated, in % of all."""
    pods: int


Replay = Callable[["Workload", int], Outcome]


@dataclass(frozen=True)
class Workload:
    """A fleet and one list of pods, sorted by name."""

    nodes: list[NodeView]
    pods: list[Need]

    @property
    def gpus(self) -> int:
        return sum(len(node.devices) for node in self.nodes)

    def arrivals(self, seed: int) -> list[Need]:
        """The pods in the order in which they come."""
        order = random.Random(seed)
        pods = self.pods[:]
        order.shuffle(pods)
        asked = sum(pod.gpu for pod in pods)
        while asked < FULL * self.gpus:
            pods.append(order.choice(self.pods))
            asked += pods[-1].gpu
        return pods

    def smaller(self, size: float) -> "Workload":
        """The same with only so much of the nodes, of each kind alike."""
        return Workload(self.nodes[:: round(1 / size)], self.pods)


def read_nodes(path: Path) -> list[NodeView]:
    """The nodes of a file with the columns sn, cpu_milli, memory_mib, gpu, model."""
    return [_node(row) for row in _rows(path)]


def _node(row: dict[str, str]) -> NodeView:
    cpu, memory = int(row["cpu_milli"]) / 1000, int(row["memory_mib"]) * MIB
    devices = (1.0,) * int(row["gpu"])
    return NodeView(row["sn"], GROUP, True, cpu, memory, cpu, memory, devices, row["model"] or None)


def read_pods(path: Path) -> list[Need]:
    """The pods of a file with the columns name, cpu_milli, memory_mib, num_gpu, gpu_milli (of each) and perhaps gpu_spec
    (models that will do, separated by `|`)."""
    return [_pod(row) for row in sorted(_rows(path), key=lambda row: row["name"])]


def _pod(row: dict[str, str]) -> Need:
    gpu = int(row["num_gpu"]) * int(row["gpu_milli"]) / 1000
    return Need(GROUP, int(row["cpu_milli"]) / 1000, int(row["memory_mib"]) * MIB, gpu, row.get("gpu_spec") or None)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


# ── Helmsman: the whole scheduler, one pass for each pod ─────────────────────────────────────────


def helmsman(workload: Workload, seed: int) -> Outcome:
    """Each pod is submitted, a pass is planned, and what the plan says is done."""
    board = Board.of(Snapshot(NOW, workload.nodes, (), (), {GROUP: Group(GROUP, selector="least_fragmentation")}))
    for number, pod in enumerate(workload.arrivals(seed)):
        request = _request(f"{number:06}", pod)
        board.submit(request)
        places = plan(board, NOW).start.get(request.id)
        if places is None:
            board.withdraw(request.id)
        else:
            board.start(Running(request.id, request.name, "a", "a", GROUP, places, NOW, gpu_model=pod.gpu_model))
    return _outcome(board.room, len(board.running))


def _request(ident: str, pod: Need) -> Request:
    return Request(ident, ident, "a", "a", GROUP, NOW, pod.cpu, pod.memory, pod.gpu, gpu_model=pod.gpu_model)


def _outcome(room: Room, pods: int) -> Outcome:
    return Outcome(100 * (1 - float(room.total.sum()) / (UNIT * float(room.fleet.count.sum()))), pods)
