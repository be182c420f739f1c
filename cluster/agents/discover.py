"""What this machine has: cores, memory and GPUs, as far as this process may use them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pynvml

from cluster.agents.isolation import best
from cluster.models import Device, NodeInfo, Resources

_CGROUP = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60


def node_info(
    name: str, *, resource_group: str | None = None, rack: str | None = None, same_host: bool = False
) -> NodeInfo:
    """This machine as a node. Takes some milliseconds; with GPUs up to a second."""
    found = devices()
    return NodeInfo(
        name=name,
        capacity=Resources(cpu=cores(), memory=memory(), gpu=len(found)),
        devices=found,
        gpu_model=found[0].model if found else None,
        rack=rack,
        resource_group=resource_group,
        isolation=best(),
        same_host=same_host,
    )


def usable_cores() -> list[int]:
    """The numbers of the cores that this process may run on."""
    return sorted(os.sched_getaffinity(0))


def cores(cgroup: Path = _CGROUP) -> float:
    """Cores: those it may run on, or what its control group leaves of them."""
    return min(float(len(usable_cores())), _cpu_quota(cgroup))


def memory(cgroup: Path = _CGROUP) -> int:
    """Bytes: the machine's, or what its control group leaves of them."""
    limits = [_number(cgroup / "memory.max"), _number(cgroup / "memory" / "memory.limit_in_bytes")]
    return min(int(psutil.virtual_memory().total), *(limit or _NO_LIMIT for limit in limits))


def devices() -> list[Device]:
    """All accelerators, with their live figures, numbered as their drivers number them."""
    return [device for find in DISCOVERERS for device in find()]


def nvidia() -> list[Device]:
    """NVIDIA GPUs by NVML; none without a driver."""
    with _nvml() as there:
        if not there:
            return []
        return [_nvidia_device(i) for i in range(pynvml.nvmlDeviceGetCount())]


DISCOVERERS: tuple[Callable[[], list[Device]], ...] = (nvidia,)
"""One function for each kind of accelerator; it returns an empty list where there is none of its kind."""


@contextmanager
def _nvml() -> Iterator[bool]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield False
        return
    try:
        yield True
    finally:
        pynvml.nvmlShutdown()


def _nvidia_device(index: int) -> Device:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    return Device(
        index=index,
        model=_text(pynvml.nvmlDeviceGetName(handle)).removeprefix("NVIDIA "),
        kind="cuda",
        memory=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        utilization=_figure(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),
        temperature=_figure(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        power=_figure(lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000),
    )


def _figure(read: Callable[[], float]) -> float | None:
    """A figure that some cards do not have."""
    try:
        return float(read())
    except pynvml.NVMLError:
        return None


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _cpu_quota(cgroup: Path) -> float:
    quota, period = _number(cgroup / "cpu" / "cpu.cfs_quota_us"), _number(cgroup / "cpu" / "cpu.cfs_period_us")
    if quota and period and quota > 0:
        return quota / period
    try:
        most, over = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return float("inf")
    return float("inf") if most == "max" else int(most) / int(over)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
