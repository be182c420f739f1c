"""The fences there are, by name. The agent chooses (`choice.py`), the supervisor uses them; nothing heavy here.

A new way is one more class with `Isolation`'s methods, one more line in `KINDS`, and how to try it in `choice.py`.
"""

from collections.abc import Callable

from cluster.agents.bubblewrap import BubblewrapIsolation
from cluster.agents.cgroups import Cgroups1, Cgroups2, Groups
from cluster.agents.containers import ContainerIsolation
from cluster.agents.fence import GroupIsolation, Isolation, Launch, ProcessIsolation, Stopped
from cluster.agents.record import Spec

__all__ = ["CONTAINERS", "GROUPS", "KINDS", "Isolation", "Launch", "Stopped"]

GROUPS: dict[str, Callable[[str], Groups]] = {"cgroup2": Cgroups2, "cgroup1": Cgroups1}


def _grouped(version: str) -> Callable[[Spec], Isolation]:
    return lambda spec: GroupIsolation(spec, GROUPS[version](spec.unique))


def _wrapped(inside: Callable[[Spec], Isolation]) -> Callable[[Spec], Isolation]:
    return lambda spec: BubblewrapIsolation(spec, inside(spec))


KINDS: dict[str, Callable[[Spec], Isolation]] = {
    "podman": lambda spec: ContainerIsolation(spec, "podman"),
    "docker": lambda spec: ContainerIsolation(spec, "docker"),
    "bubblewrap+cgroup2": _wrapped(_grouped("cgroup2")),
    "bubblewrap+cgroup1": _wrapped(_grouped("cgroup1")),
    "bubblewrap": _wrapped(ProcessIsolation),
    "cgroup2": _grouped("cgroup2"),
    "cgroup1": _grouped("cgroup1"),
    "process": ProcessIsolation,
}
"""Best first."""

CONTAINERS = ("podman", "docker")
"""Those that use a session's image. What has no image runs on the machine's own system, in the best of the others."""
