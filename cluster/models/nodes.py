"""Nodes, resource groups, and the cluster as a whole."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from cluster.models.base import DAY, Model, Resources
from cluster.sentence import Sentence

__all__ = [
    "ClusterStatus",
    "CordonNode",
    "Device",
    "DrainNode",
    "MoveNode",
    "Node",
    "NodeStatus",
    "ResourceGroup",
    "SetSchedulingPolicy",
    "UncordonNode",
]


class NodeStatus(StrEnum):
    ALIVE = "alive"
    CORDONED = "cordoned"
    DRAINING = "draining"
    LOST = "lost"


class Device(Model):
    index: int
    model: str
    kind: str = "cuda"
    memory: int = 0
    used: float = 0
    """The share of the device that sessions hold."""
    utilization: float | None = None
    temperature: float | None = None
    power: float | None = None
    ident: str = Field(default="", exclude=True)
    """What its driver calls it (a number among its kind), for variables such as CUDA_VISIBLE_DEVICES. Stays with the
    agent, as does `files`: the device files that a session needs that holds it."""
    files: list[str] = Field(default=[], exclude=True)


class Node(Model):
    name: str
    resource_group: str
    status: NodeStatus
    reason: str | None = None
    """Why it was cordoned or drained, in the words of who did it."""
    capacity: Resources
    free: Resources
    gpu_model: str | None = None
    devices: list[Device] = []
    rack: str | None = None
    isolation: str = "process"
    sessions: list[str] = []
    """Names of the sessions that hold something here."""
    cpu_utilization: float | None = None
    memory_utilization: float | None = None
    temperature: float | None = None
    power: float | None = None
    last_beat: datetime | None = None


class ResourceGroup(Model):
    name: str
    policy: str = "fifo"
    """fifo, lifo, drf or fair_share."""
    selector: str = "concentrated"
    """concentrated, dispersed, round_robin, least_fragmentation, least_power, coolest, or a plugin's."""
    backfill: bool = False
    preemption: bool = False
    nodes: int = 0
    capacity: Resources = Resources()
    free: Resources = Resources()


class ClusterStatus(Model):
    name: str
    now: datetime
    simulated: bool
    nodes: dict[str, int]
    """Nodes per status."""
    sessions: dict[str, int]
    """Sessions per state, the ended ones only of the last 24 h."""
    capacity: Resources
    free: Resources
    gpu_utilization: float | None = None
    storage_used: int = 0
    storage_free: int = 0
    longest_wait: float = 0
    """Seconds that the longest waiting session waits."""
    warnings: list[Sentence] = []


class CordonNode(Model):
    op: Literal["cordon_node"] = "cordon_node"
    node: str
    reason: str | None = Field(default=None, max_length=500)


class UncordonNode(Model):
    op: Literal["uncordon_node"] = "uncordon_node"
    node: str


class DrainNode(Model):
    op: Literal["drain_node"] = "drain_node"
    node: str
    reason: str | None = Field(default=None, max_length=500)
    grace: float | None = Field(default=None, ge=0, le=7 * DAY)
    """Seconds between the order to stop and the kill; a running session gets SIGTERM at once."""


class MoveNode(Model):
    """To another resource group; what runs there goes on."""

    op: Literal["move_node"] = "move_node"
    node: str
    resource_group: str


class SetSchedulingPolicy(Model):
    op: Literal["set_scheduling_policy"] = "set_scheduling_policy"
    resource_group: str
    policy: str | None = None
    selector: str | None = None
    backfill: bool | None = None
    preemption: bool | None = None
