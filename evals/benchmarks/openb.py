"""Alibaba's GPU trace (cluster-trace-gpu-v2023, of the FGD paper) filled to 130 %: how much of the GPUs gets allocated.

The rules of the published figures: the 1,213 nodes with GPUs; the pods of a list sorted by name, shuffled with the
seed, then random ones of the same list until they ask for 130 % of all GPUs. They arrive one by one, none departs, and
one that fits nowhere is dropped. Counted are the allocated GPUs and the pods placed (dropping small ones helps the
former).
"""

import csv
import os
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np

from cluster.scheduler import Board, plan
from cluster.scheduler.fleet import UNIT, Fleet, Floats, Ints, Need
from cluster.scheduler.place import Wish, place
from cluster.scheduler.room import Room, Spot
from cluster.scheduler.selectors import Mood, Selector
from cluster.scheduler.state import Group, NodeView, Request, Running, Snapshot
from evals.benchmarks.report import Cell, Figure, Options, Report, Series, Target, Wrong

FULL = 1.3
"""So much of all GPUs is asked for."""
SEEDS, SEEDS_OF_FGD = 10, 3
"""The peer is slower than what it is compared with, and its own figures are published."""
MIB = 2**20
NOW = datetime(2026, 1, 1, tzinfo=UTC)
GROUP = "openb"

PUBLISHED = {
    "default": 95.39, "cpu050": 95.21, "cpu100": 95.35, "cpu250": 93.41, "gpushare40": 94.15, "gpushare100": 86.90,
    "gpuspec10": 94.95, "gpuspec33": 94.55, "multigpu20": 95.65, "multigpu50": 97.18,
}  # fmt: skip
"""GPU allocation in % that the authors of FGD (USENIX ATC 2023) report for it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    gpus: float
    """Allocated, in % of all."""
    pods: int


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
        asked, enough = sum(pod.gpu for pod in pods), FULL * self.gpus
        while asked < enough:
            pods.append(order.choice(self.pods))
            asked += pods[-1].gpu
        return pods

    def smaller(self, size: float) -> "Workload":
        """The same pods on a part of the nodes, of each kind alike."""
        return Workload(self.nodes[:: round(1 / size)], self.pods)


def read_nodes(path: Path) -> list[NodeView]:
    """The nodes of a file with the columns sn, cpu_milli, memory_mib, gpu, model."""
    return [_node(row) for row in _rows(path)]


def _node(row: dict[str, str]) -> NodeView:
    cpu, memory = int(row["cpu_milli"]) / 1000, int(row["memory_mib"]) * MIB
    devices = (1.0,) * int(row["gpu"])
    return NodeView(row["sn"], GROUP, True, cpu, memory, cpu, memory, devices, row["model"] or None)


def read_pods(path: Path) -> list[Need]:
    """The pods of a file with the columns name, cpu_milli, memory_mib, num_gpu, gpu_milli (of each) and perhaps
    gpu_spec (models that will do, separated by `|`)."""
    return [_pod(row) for row in sorted(_rows(path), key=lambda row: row["name"])]


def _pod(row: dict[str, str]) -> Need:
    gpu = int(row["num_gpu"]) * int(row["gpu_milli"]) / 1000
    return Need(GROUP, int(row["cpu_milli"]) / 1000, int(row["memory_mib"]) * MIB, gpu, row.get("gpu_spec") or None)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


# ── the report ───────────────────────────────────────────────────────────────────────────────────

Results = dict[str, list[Outcome]]
"""By way of choosing, one outcome a seed."""


def run(options: Options) -> Report:
    """Every list in DIR/openb, or those asked for, with each seed."""
    nodes = read_nodes(options.folder("openb") / "openb_node_list_gpu_node.csv")
    lists = options.files("openb", "openb_pod_list_*.csv")
    work = {name: Workload(nodes, _asking(name, path)).smaller(options.size) for name, path in lists.items()}
    found = _replay(work, options.seeds or SEEDS)
    return Report(
        name="openb",
        title="Alibaba's GPU trace filled to 130 % of demand: GPUs allocated in %",
        columns=["list", "Helmsman", "±", "FGD published", "FGD here", "best fit", "random", "pods", "pods FGD here"],
        rows=[_row(name, results) for name, results in found.items()],
        targets=_targets(found, whole=options.size == 1),
        ratios={f"allocated on {name}, Helmsman / best fit": _ratio(r) for name, r in found.items()},
        notes=[
            f"{options.seeds or SEEDS} seeds; FGD here: {SEEDS_OF_FGD} at most, with the published rounding and ties.",
            "FGD knows the whole list's mix beforehand; Helmsman knows what runs and waits.",
        ],
        figures=[_figure(found)],
    )


def _asking(name: str, path: Path) -> list[Need]:
    pods = read_pods(path)
    if not any(pod.gpu for pod in pods):
        raise Wrong(f"No pod of the list {name} asks for a GPU.")
    return pods


def _replay(work: Mapping[str, Workload], seeds: int) -> dict[str, Results]:
    ways = {"helmsman": seeds, "fgd": min(seeds, SEEDS_OF_FGD), "best_fit": seeds, "at_random": seeds}
    tasks = [(name, way, seed) for name in work for way, count in ways.items() for seed in range(count)]
    found: dict[str, Results] = {name: {way: [] for way in ways} for name in work}
    with ProcessPoolExecutor(min(len(os.sched_getaffinity(0)), len(tasks))) as pool:
        names, chosen, numbers = zip(*tasks, strict=True)
        outcomes = pool.map(_one, (work[name] for name in names), chosen, numbers)
        for (name, way, _), outcome in zip(tasks, outcomes, strict=True):
            found[name][way].append(outcome)
    return found


def _one(workload: Workload, way: str, seed: int) -> Outcome:
    ways = {"helmsman": helmsman, "fgd": fgd, "best_fit": best_fit, "at_random": at_random}
    return ways[way](workload, seed)


def _gpus(outcomes: list[Outcome]) -> float:
    return round(fmean(o.gpus for o in outcomes), 3)


def _pods(outcomes: list[Outcome]) -> float:
    return round(fmean(o.pods for o in outcomes), 1)


def _ratio(results: Results) -> float:
    return round(_gpus(results["helmsman"]) / _gpus(results["best_fit"]), 4)


def _row(name: str, results: Results) -> list[Cell]:
    ours = results["helmsman"]
    peers = [_gpus(results[way]) for way in ("fgd", "best_fit", "at_random")]
    spread = round(pstdev(o.gpus for o in ours), 3)
    return [name, _gpus(ours), spread, PUBLISHED.get(name), *peers, round(_pods(ours)), round(_pods(results["fgd"]))]


def _targets(found: Mapping[str, Results], *, whole: bool) -> list[Target]:
    """The published figures hold for the whole fleet only."""
    return [*(_published(found) if whole else ()), *_in_this_run(found)]


def _published(found: Mapping[str, Results]) -> Iterator[Target]:
    if "default" in found:
        ours = found["default"]["helmsman"]
        known = "Random 87.47, BestFit 93.08, FGD 95.39"
        yield Target(what="default: GPUs allocated", value=_gpus(ours), target=95.4, unit="%", known=known)
        yield Target(what="default: pods placed", value=_pods(ours), target=8300)
    gains = {name: _gpus(r["helmsman"]) - PUBLISHED[name] for name, r in found.items() if name in PUBLISHED}
    if gains:
        least = min(gains, key=gains.__getitem__)
        what = "least lead over published FGD on any list"
        yield Target(what=what, value=round(gains[least], 2), target=0, unit="points", known=f"on {least}")


def _in_this_run(found: Mapping[str, Results]) -> Iterator[Target]:
    for what, measure in (("GPUs allocated", _gpus), ("pods placed", _pods)):
        leads = {name: measure(_same_seeds(r)) / measure(r["fgd"]) for name, r in found.items()}
        least = min(leads, key=leads.__getitem__)
        what = f"{what}, least ratio to FGD in the same run"
        yield Target(what=what, value=round(leads[least], 4), target=1, known=f"on {least}")


def _same_seeds(results: Results) -> list[Outcome]:
    return results["helmsman"][: len(results["fgd"])]


def _figure(found: Mapping[str, Results]) -> Figure:
    ways = {"Helmsman": "helmsman", "FGD here": "fgd", "best fit": "best_fit", "random": "at_random"}
    series = [Series(name=said, x=[*found], y=[_gpus(r[way]) for r in found.values()]) for said, way in ways.items()]
    known = [name for name in found if name in PUBLISHED]
    if known:
        series.insert(1, Series(name="FGD published", x=known, y=[PUBLISHED[name] for name in known]))
    return Figure(title="GPUs allocated when filled to 130 %", y="% of all GPUs", series=series)


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


# ── peers: the same rooms and tables, another choice ─────────────────────────────────────────────


def at_random(workload: Workload, seed: int) -> Outcome:
    """Any node that fits."""
    room, dice = Room.of(Fleet(workload.nodes)), random.Random(seed)
    placed = 0
    for pod in workload.arrivals(seed):
        nodes = room.fleet.eligible(pod)
        nodes = nodes[room.fits(pod, nodes)]
        if len(nodes):
            i = int(dice.choice(nodes))
            room.take(pod, [Spot(i, room.offer(i, pod))])
            placed += 1
    return _outcome(room, placed)


def best_fit(workload: Workload, seed: int) -> Outcome:
    """The node with the least left of everything."""
    most = np.array([[n.cpu * UNIT, n.memory, len(n.devices) * UNIT] for n in workload.nodes]).max(axis=0)

    def left(room: Room, need: Need, nodes: Ints, mood: Mood) -> Floats:
        rest: Floats = np.column_stack((room.cpu[nodes], room.memory[nodes], room.total[nodes])) @ (1 / most)
        return rest

    return _one_by_one(workload, seed, Selector("best_fit", left))


def fgd(workload: Workload, seed: int) -> Outcome:
    """FGD with the published rounding and ties. It knows the mix of the whole list from the beginning."""
    return _one_by_one(workload, seed, Fgd(workload).selector)


def _one_by_one(workload: Workload, seed: int, selector: Selector) -> Outcome:
    room, mood, placed = Room.of(Fleet(workload.nodes)), Mood(), 0
    for pod in workload.arrivals(seed):
        spots = place(room, Wish(pod), selector, mood)
        if spots is not None:
            room.take(pod, spots)
            placed += 1
    return _outcome(room, placed)


class Fgd:
    """Fragmentation gradient descent as its authors score it: where the least becomes useless for the list's pods."""

    def __init__(self, workload: Workload) -> None:
        counts = Counter(pod for pod in workload.pods if pod.share)
        fleet = Fleet(workload.nodes)
        self.cpu, self.memory = (np.array([getattr(need, it) for need in counts]) for it in ("cores", "memory"))
        self.sizes, size = np.unique([need.share for need in counts], return_inverse=True)
        self.chance = np.eye(len(self.sizes))[size] * (np.array([*counts.values()]) / counts.total())[:, None]
        """Classes x sizes."""
        self.suits = np.column_stack([fleet.suited(need) for need in counts])
        """Nodes x classes."""
        self.selector = Selector("fgd", self.score, self.device)

    def score(self, room: Room, need: Need, nodes: Ints, mood: Mood) -> Floats:
        found: Floats = self._options(room, need, nodes).min(axis=1)
        return found

    def device(self, room: Room, i: int, need: Need, mood: Mood) -> tuple[int, ...]:
        if not need.fraction:
            return room.offer(i, need)
        return (int(self._options(room, need, np.array([i]))[0].argmin()),)

    def _options(self, room: Room, need: Need, nodes: Ints) -> Floats:
        """Nodes x devices for a share, one column for any other need: from -100, the best, to 0; infinite: no room."""
        cpu, memory, free = room.cpu[nodes], room.memory[nodes], room.devices[nodes].astype(np.int64)
        before = self._useless(nodes, cpu, memory, free[:, None])
        after = _afterwards(free, need)
        more = self._useless(nodes, cpu - need.cores, memory - need.memory, np.maximum(after, 0)) - before
        found: Floats = np.where((after >= 0).all(axis=2), -np.floor(100 / (1 + np.exp(more))), np.inf)
        return found

    def _useless(self, nodes: Ints, cpu: Ints, memory: Ints, free: Ints) -> Floats:
        """Expected GPUs that the next pod of the list can't use, by node and choice of what is free there."""
        fits = self.suits[nodes] & (cpu[:, None] >= self.cpu) & (memory[:, None] >= self.memory)
        whole = (free == UNIT).sum(axis=2)[..., None] * UNIT
        shares = np.stack([np.where(free >= size, free, 0).sum(axis=2) for size in self.sizes], axis=2)
        usable = np.where(self.sizes < UNIT, shares, np.where(whole >= self.sizes, whole, 0))
        found: Floats = (free.sum(axis=2) - np.einsum("ncs,ns->nc", usable, fits @ self.chance)) / UNIT
        return found


def _afterwards(free: Ints, need: Need) -> Ints:
    """Nodes x choices x devices: what is free after each choice, negative where it is none."""
    if need.fraction:
        return free[:, None] - need.share * np.eye(free.shape[1], dtype=np.int64)
    first = (free == UNIT) & (np.cumsum(free == UNIT, axis=1) <= need.whole)
    return np.where(first, 0, free)[:, None]
