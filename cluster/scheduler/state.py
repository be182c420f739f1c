"""What the scheduler looks at and what it decides. Plain immutable data: no database, no clock, no I/O.

Units as in `cluster.models`; amounts in a `Request` are totals over `node_count` nodes, split evenly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cluster.models import Reason


@dataclass(frozen=True, slots=True)
class NodeView:
    name: str
    group: str
    schedulable: bool
    """Alive and not cordoned or draining."""
    cpu: float
    memory: int
    cpu_free: float
    memory_free: int
    devices: tuple[float, ...] = ()
    """Free share of each device, by index."""
    gpu_model: str | None = None
    rack: str | None = None
    power: float | None = None
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A session that wants to run (HELD or PENDING)."""

    id: str
    name: str
    user: str
    project: str
    group: str
    submitted: datetime
    cpu: float
    memory: int
    gpu: float = 0
    node_count: int = 1
    gpu_model: str | None = None
    priority: int = 10
    time_limit: float | None = None
    start_at: datetime | None = None
    waiting_for: tuple[str, ...] = ()
    """Names of the sessions it depends on that have not ended well yet."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One rank of a session on one node; `devices`: index -> share."""

    node: str
    cpu: float
    memory: int
    devices: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Running:
    """A session that holds resources (SCHEDULED .. TERMINATING)."""

    id: str
    name: str
    user: str
    project: str
    group: str
    placements: tuple[Placement, ...]
    started: datetime
    priority: int = 10
    ends_by: datetime | None = None
    """Start + time limit, when it has one."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A quota of one user or project; None is no limit."""

    cpu: float | None = None
    memory: int | None = None
    gpu: float | None = None
    sessions: int | None = None


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    policy: str = "fifo"
    selector: str = "concentrated"
    backfill: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    now: datetime
    nodes: Sequence[NodeView]
    pending: Sequence[Request]
    running: Sequence[Running]
    groups: Mapping[str, Group]
    user_limits: Mapping[str, Limit] = field(default_factory=dict)
    project_limits: Mapping[str, Limit] = field(default_factory=dict)
    past_use: Mapping[str, float] = field(default_factory=dict)
    """Decayed device-seconds per user, for fair_share."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`plan(snapshot)`'s answer. Every pending session is in exactly one of the three."""

    start: Mapping[str, tuple[Placement, ...]]
    """Session id -> its ranks in order."""
    wait: Mapping[str, tuple[Reason, ...]]
    """Stays (or becomes) PENDING: nothing free, someone is ahead, too early …"""
    hold: Mapping[str, tuple[Reason, ...]]
    """HELD by quota or dependency."""
    estimated: Mapping[str, datetime] = field(default_factory=dict)
    """Session id -> earliest start, where known time limits allow to tell."""
