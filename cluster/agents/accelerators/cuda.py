"""NVIDIA GPUs, by the driver's library (NVML)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pynvml

from cluster.models import Device


def find() -> list[Device]:
    """None without a driver."""
    with _nvml() as there:
        if not there:
            return []
        return [_device(i) for i in range(pynvml.nvmlDeviceGetCount())]


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


def _device(index: int) -> Device:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    minor = _figure(lambda: pynvml.nvmlDeviceGetMinorNumber(handle))
    return Device(
        index=index,
        model=_text(pynvml.nvmlDeviceGetName(handle)).removeprefix("NVIDIA "),
        kind="cuda",
        memory=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        utilization=_figure(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),
        temperature=_figure(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        power=_figure(lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000),
        ident=str(index),
        files=_files(minor),
    )


def _files(minor: float | None) -> list[str]:
    shared = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"]
    return [] if minor is None else [f"/dev/nvidia{int(minor)}", *shared]


def _figure(read: Callable[[], float]) -> float | None:
    """A figure that some cards do not have."""
    try:
        return float(read())
    except pynvml.NVMLError:
        return None


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
