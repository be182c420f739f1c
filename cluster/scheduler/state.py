"""What the scheduler looks at. Plain immutable data: no database, no clock, no I/O.

Units as in `cluster.models`; amounts in a `Request` are totals over `node_count` nodes, split evenly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal


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
    kind: str | None = None
    """Of its accelerators: cuda, rocm, gaudi, atom, rngd …; None counts as cuda."""


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
    rack: Literal["required", "preferred"] | None = None
    """All ranks on nodes of one rack: or not at all, or if there is one with room."""
    kind: str | None = None
    """The kind of accelerator; None is any GPU."""
    preemptible: bool = False
    """May be stopped and queued again for one that goes before it, where its group allows that."""
    standing: float = 0.0
    """Under short_first: lower goes first (`learned.ShortFirst`)."""


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
    """Start + time limit, when it has one; for one that is being stopped, the end of its grace."""
    gpu_model: str | None = None
    """The one it asked for."""
    preemptible: bool = False
    stopping: bool = False
    """It is being stopped already."""
    standing: float = 0.0
    """Under short_first: where it would stand if it waited."""

    @classmethod
    def of(cls, request: Request, placements: tuple[Placement, ...], started: datetime) -> "Running":
        """`request`, which starts there then."""
        limit = request.time_limit
        return cls(
            id=request.id,
            name=request.name,
            user=request.user,
            project=request.project,
            group=request.group,
            placements=placements,
            started=started,
            priority=request.priority,
            ends_by=started + timedelta(seconds=limit) if limit else None,
            gpu_model=request.gpu_model,
            preemptible=request.preemptible,
            standing=request.standing,
        )


@dataclass(frozen=True, slots=True)
class Limit:
    """A quota of one user or project; None is no limit."""

    cpu: float | None = None
    memory: int | None = None
    gpu: float | None = None
    sessions: int | None = None
    borrow_cpu: float | None = None
    """Of a project in a cohort: how much of what the others leave idle it may take; None: all of it."""
    borrow_memory: int | None = None
    borrow_gpu: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    policy: str = "fifo"
    selector: str = "concentrated"
    backfill: bool = False
    preemption: bool = False


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
    cohorts: Mapping[str, str] = field(default_factory=dict)
    """Project -> its cohort, whose projects lend each other what they leave idle of their quotas."""
