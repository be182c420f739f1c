"""What the ledger holds in memory: sessions, their ranks and nodes, with the names and units of the tables' columns.

A session that has ended is read from the database in the same shape.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any

from cluster import bounds
from cluster.db.tables import AllocationRow, NodeRow, SessionRow


@dataclass(slots=True)
class Rank:
    """What one rank of a live session holds on its node; a row of `allocations`."""

    session: str
    rank: int
    node: str
    cpu: float
    memory: int
    devices: dict[int, float]
    """Device index -> share of it."""
    state: str = "placed"
    exit_code: int | None = None


@dataclass(slots=True)
class LiveSession:
    """A row of `sessions`. Change it only after `Draft.edit`, its state and ranks only by `Transaction`."""

    id: str
    name: str
    user: str
    project: str
    type: str
    state: str
    state_since: datetime
    cpu: float
    memory: int
    gpu: float
    node_count: int
    resource_group: str
    priority: int
    submitted: datetime
    image: str | None = None
    command: str | None = None
    workdir: str | None = None
    result: str | None = None
    gpu_model: str | None = None
    accelerator: str | None = None
    rack: str | None = None
    """"required" or "preferred": all ranks in one rack."""
    preemptible: bool = False
    mounts: list[Any] = field(default_factory=list)
    read_only: list[Any] = field(default_factory=list)
    """Those of `mounts` that it may only read."""
    shown: list[Any] = field(default_factory=list)
    """Directories of the server's that it may read besides."""
    env: dict[str, Any] = field(default_factory=dict)
    depends_on: list[Any] = field(default_factory=list)
    start_at: datetime | None = None
    time_limit: float | None = None
    started: datetime | None = None
    ended: datetime | None = None
    exit_code: int | None = None
    attempt: int = 0
    grace: float = 10
    requeue: bool = False
    """It is being stopped to make room, and goes back to the queue when it is gone."""
    reasons: list[Any] = field(default_factory=list)
    """`Reason`s as JSON, of one that failed or is being preempted; why one waits is asked of the plan."""
    estimated_start: datetime | None = None
    utilization: float | None = None
    ranks: list[Rank] = field(default_factory=list)

    @classmethod
    def of(cls, columns: Mapping[Any, Any]) -> "LiveSession":
        """From the columns of its row, without ranks."""
        return cls(**bounds.within(columns["id"], columns, bounds.SESSION))


@dataclass(slots=True)
class LiveNode:
    """A row of `nodes`."""

    name: str
    resource_group: str
    status: str
    cpu: float
    memory: int
    reason: str | None = None
    lost_from: str | None = None
    """The status that it had before it was lost, to go back to."""
    gpu_model: str | None = None
    devices: list[Any] = field(default_factory=list)
    """`cluster.models.Device` as JSON, by index."""
    rack: str | None = None
    isolation: str = "process"
    address: str | None = None
    """Where other nodes reach it."""
    same_host: bool = False
    sample: dict[str, Any] = field(default_factory=dict)
    last_beat: datetime | None = None

    @classmethod
    def of(cls, columns: Mapping[Any, Any]) -> "LiveNode":
        """From the columns of its row."""
        return cls(**bounds.within(columns["name"], columns, bounds.NODE))


SESSION_COLUMNS = tuple(column.name for column in SessionRow.__table__.columns)
NODE_COLUMNS = tuple(column.name for column in NodeRow.__table__.columns)
RANK_COLUMNS = tuple(column.name for column in AllocationRow.__table__.columns)
session_values = attrgetter(*SESSION_COLUMNS)
"""A session's columns as a tuple, in the order of `SESSION_COLUMNS`."""
node_values = attrgetter(*NODE_COLUMNS)
rank_values = attrgetter(*RANK_COLUMNS)


def rank_of(columns: Mapping[Any, Any]) -> Rank:
    """From the columns of its row."""
    columns = bounds.within(columns["session"], columns, bounds.RANK)
    return Rank(**{**columns, "devices": {int(index): share for index, share in columns["devices"].items()}})
