"""A large made-up cluster for the scheduler alone: its nodes, its requests, and what already runs on it."""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from cluster.scheduler.state import Group, Limit, NodeView, Placement, Request, Running, Snapshot

GIB = 2**30
START = datetime(2026, 3, 2, tzinfo=UTC)
GROUP = "gpu"
GPUS, CPU, MEMORY = 8, 96.0, 768 * GIB
"""Of each node."""
USERS, PROJECTS = 200, 20
SHARES = (0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
FRACTIONS = 0.35
"""How many ask for a share."""
WHOLE = (0, 1, 1, 1, 1, 2, 2, 4, 8)
"""GPUs of the others; 0 is CPU only."""
HOURS = (None, None, 1, 2, 4, 8, 24)
"""Time limits; two of seven have none."""


def node(i: int, running: Sequence[Running] = ()) -> NodeView:
    """Node `i` with what is free besides `running`; two models, racks of 32."""
    model = "H100-80G" if i % 4 else "A100-80G"
    held = [p for r in running for p in r.placements]
    taken = {d: share for p in held for d, share in p.devices.items()}
    return NodeView(
        name=f"n-{i:05}",
        group=GROUP,
        schedulable=True,
        cpu=CPU,
        memory=MEMORY,
        cpu_free=CPU - sum(p.cpu for p in held),
        memory_free=MEMORY - sum(p.memory for p in held),
        devices=tuple(1.0 - taken.get(d, 0.0) for d in range(GPUS)),
        gpu_model=model,
        rack=f"r-{i // 32:04}",
        power=300.0 + i % 7,
        temperature=30.0 + i % 23,
    )


class Draw:
    """Requests by chance, the same for the same seed: shares of a GPU, whole GPUs, CPU only, gangs."""

    def __init__(self, seed: int, whole: Sequence[int] = WHOLE, gangs: float = 0.1) -> None:
        """`whole`: how many GPUs those ask for that are neither a share nor a gang. `gangs`: their part."""
        self._random = random.Random(seed)
        self._whole, self._gangs = whole, gangs
        self._made = 0

    def request(self) -> Request:
        """The next one; submitted a second after the one before."""
        draw = self._random
        nodes, gpu = self._size()
        cores = draw.choice((2.0, 4.0, 8.0)) * max(1.0, min(gpu, 4.0))
        limit = draw.choice(HOURS)
        user = draw.randrange(USERS)
        self._made += 1
        return Request(
            id=f"s-{self._made:07}",
            name=f"s-{self._made:07}",
            user=f"u{user}",
            project=f"p{user % PROJECTS}",
            group=GROUP,
            submitted=START + timedelta(seconds=self._made),
            cpu=cores * nodes,
            memory=int(cores * draw.choice((2, 4))) * GIB * nodes,
            gpu=gpu * nodes,
            node_count=nodes,
            priority=draw.choice((10, 10, 10, 10, 20)),
            time_limit=limit and 3600.0 * limit,
        )

    def _size(self) -> tuple[int, float]:
        """(nodes, GPUs on each)."""
        draw, kind = self._random, self._random.random()
        if kind < FRACTIONS:
            return 1, draw.choice(SHARES)
        if kind < FRACTIONS + self._gangs:
            return draw.choice((2, 2, 4, 8)), 8
        return 1, draw.choice(self._whole)

    def runs(self, i: int, full: float) -> Iterator[Running]:
        """What runs on node `i`, so that about `full` of its GPUs are taken."""
        draw, device = self._random, 0
        while device < GPUS:
            gpus = draw.choice((1, 2, 4, 8))
            if device + gpus > GPUS:
                continue
            if draw.random() < full:
                yield self._running(i, range(device, device + gpus))
            device += gpus

    def _running(self, i: int, devices: range) -> Running:
        draw, user = self._random, self._random.randrange(USERS)
        self._made += 1
        limit = draw.choice(HOURS)
        place = Placement(f"n-{i:05}", 4.0 * len(devices), 16 * GIB * len(devices), dict.fromkeys(devices, 1.0))
        return Running(
            id=f"s-{self._made:07}",
            name=f"s-{self._made:07}",
            user=f"u{user}",
            project=f"p{user % PROJECTS}",
            group=GROUP,
            placements=(place,),
            started=START,
            ends_by=START + timedelta(hours=limit) if limit else None,
        )


def snapshot(group: Group, nodes: list[NodeView], pending: list[Request], running: list[Running]) -> Snapshot:
    """One resource group; quotas of users and projects that are there and seldom bite."""
    return Snapshot(
        now=START,
        nodes=nodes,
        pending=pending,
        running=running,
        groups={group.name: group},
        user_limits={f"u{u}": Limit(gpu=len(nodes) * GPUS / 20) for u in range(USERS)},
        project_limits={f"p{p}": Limit(gpu=len(nodes) * GPUS / 4) for p in range(PROJECTS)},
        past_use={f"u{u}": 1000.0 * u for u in range(USERS)},
    )
