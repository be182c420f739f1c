"""Sessions: what they are, what is said of them, and what starts and ends them."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from cluster.models.base import LONGEST, Model, Moment, Reason, Resources

__all__ = [
    "Allocation",
    "EstimateStart",
    "Explanation",
    "LogPage",
    "RestartSession",
    "Session",
    "SessionResult",
    "SessionSize",
    "SessionState",
    "SessionType",
    "SetSessionPriority",
    "StartEstimate",
    "StartSession",
    "TerminateSessions",
]


class SessionState(StrEnum):
    HELD = "held"
    PENDING = "pending"
    SCHEDULED = "scheduled"
    PREPARING = "preparing"
    RUNNING = "running"
    TERMINATING = "terminating"
    TERMINATED = "terminated"
    ERROR = "error"
    CANCELLED = "cancelled"


class SessionResult(StrEnum):
    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"
    LOST = "lost"


class SessionType(StrEnum):
    INTERACTIVE = "interactive"
    BATCH = "batch"
    INFERENCE = "inference"
    SYSTEM = "system"


class Allocation(Model):
    """What a session holds on one node; `devices` maps a device index to the share of it (0..1]."""

    node: str
    rank: int = 0
    cpu: float
    memory: int
    devices: dict[int, float] = {}


class Session(Model):
    id: str
    name: str
    user: str
    project: str
    type: SessionType = SessionType.INTERACTIVE
    image: str | None = None
    command: str | None = None
    state: SessionState
    result: SessionResult | None = None
    resources: Resources
    """Totals over all nodes."""
    node_count: int = 1
    gpu_model: str | None = None
    resource_group: str
    priority: int = 10
    mounts: list[str] = []
    env: dict[str, str] = {}
    depends_on: list[str] = []
    start_at: datetime | None = None
    time_limit: float | None = None
    submitted: datetime
    started: datetime | None = None
    ended: datetime | None = None
    exit_code: int | None = None
    allocations: list[Allocation] = []
    reasons: list[Reason] = []
    """Why it waits or failed; empty when nothing is in the way."""
    gpu_utilization: float | None = None
    idle: bool = False
    """Running and, over the last samples, using next to nothing of what it holds."""


class Explanation(Model):
    """Why a session waits: in order of weight; `ahead` are the sessions that go first."""

    session: Session
    reasons: list[Reason]
    ahead: list[str] = []
    estimated_start: datetime | None = None
    """None when it cannot be told (unknown run times) or never."""


class SessionSize(Model):
    """What a session asks of the nodes."""

    cpu: float | None = Field(default=None, gt=0, le=1_000_000)
    """Totals over all nodes. Left out: one core a node, and memory in step with the cores."""
    memory: int | None = Field(default=None, gt=0, le=2**60)
    gpu: float | None = Field(default=None, ge=0, le=100_000)
    gpu_model: str | None = None
    node_count: int = Field(default=1, ge=1, le=10_000)
    resource_group: str | None = None
    time_limit: float | None = Field(default=None, gt=0, le=LONGEST)


class EstimateStart(SessionSize):
    """POST /v1/estimates: a session that is not submitted."""


class StartEstimate(Model):
    """When a session would start if it were submitted now, from the scheduler's own plan."""

    at: datetime | None = None
    """None when it can't be told (unknown run times), or never: then `refused` says why."""
    now: bool = False
    nodes: list[str] = []
    """Where, if it would start now."""
    resource_group: str | None = None
    reasons: list[Reason] = []
    """Why not now."""
    ahead: list[str] = []
    refused: list[Reason] = []


class LogPage(Model):
    session: str
    text: str
    """The last lines asked for, decoded with replacement."""
    next_offset: int
    """Bytes; give it back to read on from here."""
    finished: bool


class StartSession(SessionSize):
    op: Literal["start_session"] = "start_session"
    image: str | None = None
    name: str | None = None
    """Made from the command or image when left out; a live session of the same user may not have it."""
    type: SessionType = SessionType.INTERACTIVE
    command: str | None = None
    project: str | None = None
    mounts: list[str] = []
    env: dict[str, str] = {}
    priority: int = Field(default=10, ge=0, le=100)
    depends_on: list[str] = []
    start_at: Moment | None = None
    rack: Literal["required", "preferred"] | None = None
    """All its nodes on one rack: or not at all, or if there is one with room."""
    accelerator: str | None = Field(default=None, max_length=50)
    """The kind of its devices (cuda, rocm, gaudi, atom, rngd …); any GPU when left out."""
    preemptible: bool | None = None
    """May be stopped and queued again for others that have a right to its place. Left out: batch sessions may."""
    workdir: str | None = None
    """A directory on the node to start in, only where node and asking person share a machine (the embedded cluster)."""


class TerminateSessions(Model):
    op: Literal["terminate_sessions"] = "terminate_sessions"
    sessions: list[str] = Field(min_length=1, max_length=1000)
    force: bool = False


class RestartSession(Model):
    """One that runs begins again, in its place in the queue; one that has ended is started as a new session."""

    op: Literal["restart_session"] = "restart_session"
    session: str


class SetSessionPriority(Model):
    """Of one that waits or runs."""

    op: Literal["set_session_priority"] = "set_session_priority"
    session: str
    priority: int = Field(ge=0, le=100)
