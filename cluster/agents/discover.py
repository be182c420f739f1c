"""What this machine has: cores, memory and GPUs, as far as this process may use them."""

import ipaddress
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from cluster.models import Device, NodeInfo, Resources

_CGROUP = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60
_ANYWHERE = "192.0.2.1"
"""An address that is nobody's (RFC 5737), to ask which way leads out."""


def node_info(name: str, found: Sequence[Device], isolation: str) -> NodeInfo:
    """This machine as a node with these accelerators; what a person says of it is added by the caller."""
    return NodeInfo(
        name=name,
        capacity=Resources(cpu=cores(), memory=memory(), gpu=len(found)),
        devices=list(found),
        gpu_model=found[0].model if found else None,
        isolation=isolation,
    )


def address(url: str) -> str | None:
    """The address of this machine on the way to the server at `url`, or, when the server is on this machine, to the
    world outside; nothing is sent. None if unknown."""
    parts = urlsplit(url)
    towards = _own_address(parts.hostname or "", parts.port or 80)
    if towards is None or not ipaddress.ip_address(towards).is_loopback:
        return towards
    return _own_address(_ANYWHERE, 80) or towards


def _own_address(host: str, port: int) -> str | None:
    try:
        ways = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        with socket.socket(ways[0][0], socket.SOCK_DGRAM) as probe:
            probe.connect(ways[0][4])
            return str(probe.getsockname()[0])
    except OSError:
        return None


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
