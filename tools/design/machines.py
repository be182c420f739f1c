"""What stands around the accelerators: nodes, power, network, failures, money. Every number with its source."""

from dataclasses import dataclass
from math import ceil, sqrt

from tools.design.gpus import Gpu

PER_NODE = 8
"""Accelerators in a node (HGX and OAM boards; eight PCIe cards in a server)."""
NODE_OVERHEAD = 1.8
"""Power of a node over that of its accelerators: DGX A100 6.5 kW for 3.2, H100 10.2 for 5.6, B200 14.3 for 8."""
PUE = 1.3
"""Power of the building over that of the machines; the Uptime Institute's surveys of 2020 to 2024 average 1.55 to
1.59, new buildings reach 1.1 to 1.3."""
NETWORK = 50.0
"""GB/s from one accelerator to other nodes: one 400 Gb/s port each (DGX H100 guide, Llama 3 paper)."""
HOURS_BETWEEN_FAILURES = 50_000.0
"""For one GPU: 419 unexpected interruptions in 54 days on 16,384 H100s (Llama 3 paper, arXiv 2407.21783, 3.3.4)."""
REPAIR_HOURS = 72.0
"""Assumed: how long a node that failed is away."""
CHECKPOINT_BYTES = 14.0
"""For each parameter: BF16 weights 2, FP32 weights, first and second moment 12 (ZeRO, arXiv 1910.02054, 3.1)."""
CHECKPOINT_SECONDS = 60.0
"""Assumed: how long work stands still for a checkpoint; the storage is sized for it."""


@dataclass(frozen=True)
class Upkeep:
    """What failures ask for. Interruptions a day, nodes; bytes, bytes per second and seconds for checkpoints."""

    interruptions: float
    spares: int
    checkpoint: float
    write_bandwidth: float
    interval: float


def upkeep(params: float, gpus: int) -> Upkeep:
    """Spare nodes by the failure rate; checkpoints by Young's rule sqrt(2 · writing · time between failures)
    (Young 1974, doi 10.1145/361147.361115)."""
    between = HOURS_BETWEEN_FAILURES * 3600 / gpus
    away = gpus * REPAIR_HOURS / HOURS_BETWEEN_FAILURES
    size = params * CHECKPOINT_BYTES
    return Upkeep(
        interruptions=86_400 / between,
        spares=max(1, ceil(away)),
        checkpoint=size,
        write_bandwidth=size / CHECKPOINT_SECONDS,
        interval=sqrt(2 * CHECKPOINT_SECONDS * between),
    )


def node_power(gpu: Gpu) -> float:
    """W of one node under load, without the building's share."""
    return PER_NODE * gpu.watts * NODE_OVERHEAD


def power(gpu: Gpu, nodes: int) -> float:
    """W that the building must bring in for so many nodes at work; spare ones are off."""
    return nodes * node_power(gpu) * PUE


def nodes_within(gpu: Gpu, watts: float) -> int:
    """How many nodes so much power carries."""
    return int(watts // (node_power(gpu) * PUE))


def cost(gpu: Gpu, gpu_hours: float) -> tuple[float, float] | None:
    """USD for renting so long, cheapest and dearest; None where no price is known."""
    return (gpu.price[0] * gpu_hours, gpu.price[1] * gpu_hours) if gpu.price else None
