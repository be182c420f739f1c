"""The cluster's door: every shape that crosses the API, for clients and agents alike.

Units: memory and storage in bytes, `cpu` in cores, `gpu` in devices (a fraction sits on one device), durations in
seconds, times are aware datetimes in UTC, shares and utilisation 0..1, temperature in °C, power in W.
"""

import zlib
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from cluster.sentence import S, Sentence

__all__ = ["S", "Sentence"]

T = TypeVar("T")


class Model(BaseModel):
    """Base of the door's shapes: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid")


# ── what exists ──────────────────────────────────────────────────────────────────────────────────


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


class NodeStatus(StrEnum):
    ALIVE = "alive"
    CORDONED = "cordoned"
    DRAINING = "draining"
    LOST = "lost"


class Resources(Model):
    """Amounts of the three countable things. `cpu` in cores, `memory` in bytes, `gpu` in devices."""

    cpu: float = 0
    memory: int = 0
    gpu: float = 0


class Reason(Model):
    """Why something waits or is refused. `code` is stable (for programs), `message` is for people."""

    code: Literal[
        "insufficient_resources",
        "impossible",
        "quota",
        "dependency",
        "start_at",
        "preempted",
        "queued_behind",
        "no_alive_node",
        "not_found",
        "ambiguous",
        "not_allowed",
        "conflict",
        "invalid",
        "state_changed",
        "storage_full",
        "unavailable",
    ]
    message: Sentence
    resource: str | None = None
    asked: float | None = None
    available: float | None = None
    node: str | None = None
    ahead: list[str] = []
    candidates: list[str] = []


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


class Folder(Model):
    name: str
    project: str
    owner: str
    size: int = 0
    quota: int | None = None
    trashed: bool = False
    trashed_at: datetime | None = None
    purge_at: datetime | None = None
    created: datetime
    modified: datetime


class QuotaUse(Model):
    """A quota and what is used of it now, derived from allocations. A limit of None means no limit."""

    scope: Literal["user", "project"]
    name: str
    cpu: float | None = None
    memory: int | None = None
    gpu: float | None = None
    storage: int | None = None
    sessions: int | None = None
    used: Resources
    used_storage: int = 0
    used_sessions: int = 0


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


class User(Model):
    name: str
    email: str | None = None
    role: Literal["user", "project_admin", "admin"] = "user"
    projects: list[str] = []
    active: bool = True


class Project(Model):
    name: str
    users: list[str] = []


class Image(Model):
    name: str


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
    time_limit: float | None = Field(default=None, gt=0)


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


class Event(Model):
    """One thing that happened; `seq` grows by one and has no gaps, so that a reader can go on where it stopped."""

    seq: int
    at: datetime
    kind: str
    severity: Literal["info", "warning", "error"] = "info"
    target: str | None = None
    message: Sentence


class Page(Model, Generic[T]):
    """The first `len(items)` of `total`."""

    items: list[T]
    total: int


class Names(Model):
    """Every name there is that the asking person may see; for linking and completion."""

    sessions: dict[str, str] = {}
    """id -> name, live ones first, then the most recently ended."""
    nodes: list[str] = []
    users: list[str] = []
    projects: list[str] = []
    folders: list[str] = []
    trashed_folders: list[str] = []
    images: list[str] = []
    resource_groups: list[str] = []
    gpu_models: list[str] = []
    models: list[str] = []
    endpoints: list[str] = []
    pipelines: list[str] = []


# ── what can be done (every W and D): POST /v1/operations ────────────────────────────────────────


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
    start_at: datetime | None = None
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
    grace: float | None = Field(default=None, ge=0)
    """Seconds between the order to stop and the kill; a running session gets SIGTERM at once."""


class SetSchedulingPolicy(Model):
    op: Literal["set_scheduling_policy"] = "set_scheduling_policy"
    resource_group: str
    policy: str | None = None
    selector: str | None = None
    backfill: bool | None = None
    preemption: bool | None = None


class CreateFolder(Model):
    op: Literal["create_folder"] = "create_folder"
    name: str = Field(min_length=1, max_length=100)
    project: str | None = None
    quota: int | None = Field(default=None, gt=0)


class DeleteFolder(Model):
    op: Literal["delete_folder"] = "delete_folder"
    folder: str


class RestoreFolder(Model):
    op: Literal["restore_folder"] = "restore_folder"
    folder: str


class Undo(Model):
    op: Literal["undo"] = "undo"
    action: str | None = None
    """An audit id; the asking person's last operation that can be undone when left out."""


Operation = Annotated[
    StartSession
    | TerminateSessions
    | CordonNode
    | UncordonNode
    | DrainNode
    | SetSchedulingPolicy
    | CreateFolder
    | DeleteFolder
    | RestoreFolder
    | Undo,
    Field(discriminator="op"),
]


class Effect(Model):
    """One consequence of an operation, shown before it is done and true after it."""

    kind: Literal[
        "starts",
        "waits",
        "held",
        "stops",
        "restarts",
        "delayed",
        "sooner",
        "changes",
        "creates",
        "removes",
        "restores",
        "lost",
    ]
    target: str
    """Name of what is touched (`resnet-sweep`, `a100-03`)."""
    message: Sentence
    owner: str | None = None
    """Whose it is, when it isn't the asking person's."""
    stable: bool = True
    """False for what moves with the clock only (an estimate, an age): it does not count in the digest."""


class Outcome(Model):
    """What an operation did, or would do (`dry_run`). A refusal is one too: `refused` is not empty, nothing changed."""

    operation: Operation
    dry_run: bool
    refused: list[Reason] = []
    effects: list[Effect] = []
    warnings: list[Sentence] = []
    quota_left: Resources | None = None
    """What the asking person could still start afterwards; None without a quota."""
    undo: Sentence | None = None
    """How it can be put back; None when it cannot, then `warnings` say what is lost."""
    digest: str = ""
    """Of the operation and its stable effects. Give it back as `expect` when the person has agreed."""
    audit_id: str | None = None
    session: Session | None = None
    """The session made, for start_session."""


class OperationRequest(Model):
    """Body of POST /v1/operations. With `expect`: only if its effects still have that digest (else `state_changed`)."""

    operation: Operation
    dry_run: bool = False
    expect: str | None = None
    key: str | None = Field(default=None, max_length=200)
    """Idempotency key: the same key of the same user gives the first outcome again and does nothing."""


class AuditEntry(Model):
    """Who did what, on which, with what result; and how to put it back."""

    id: str
    at: datetime
    user: str
    action: str
    """The operation's name, which is the tool's."""
    operation: Operation
    targets: list[str] = []
    result: Literal["done", "refused"] = "done"
    inverse: dict[str, Any] | None = None
    """The operation that puts it back, as JSON, or a server-side step (`op` starting with `_`)."""
    undone_by: str | None = None


# ── between server and agents ────────────────────────────────────────────────────────────────────


class NodeInfo(Model):
    """What an agent says of its node when it registers: POST /v1/agents/register."""

    name: str
    capacity: Resources
    devices: list[Device] = []
    gpu_model: str | None = None
    rack: str | None = None
    resource_group: str | None = None
    isolation: str = "process"
    same_host: bool = False
    """True for the embedded cluster: `StartSession.workdir` may be used."""
    address: str | None = None
    """Where other nodes reach this one: a host name or an IP address."""
    secret: str | None = Field(default=None, max_length=200)
    """The node's own, made by its agent: whoever says this name with another one is another machine."""
    cluster: str | None = None
    """The id of the cluster that it joined before; None the first time."""


class Registered(Model):
    """The answer to a registration."""

    cluster: str | None = None
    """The cluster's id, for `NodeInfo.cluster`."""


class WorkId(Model):
    """One try at running one rank of a session. A session tried again has a higher attempt; an old one is fenced."""

    session: str
    attempt: int
    rank: int = 0


def rendezvous_port(session: str, attempt: int) -> int:
    """The port (20000..29999) at which the ranks of this attempt meet. Two sessions seldom share one, and an attempt
    does not meet what an older one left behind."""
    return 20_000 + zlib.crc32(f"{session}.{attempt}".encode()) % 10_000


class Work(Model):
    """What an agent has to run."""

    id: WorkId
    name: str
    user: str
    command: str | None
    """A shell command line; None for an interactive session, which waits until it is stopped."""
    workdir: str | None = None
    env: dict[str, str] = {}
    cpu: float
    memory: int
    devices: dict[int, float] = {}
    mounts: dict[str, str] = {}
    """Folder name -> directory on this host."""
    time_limit: float | None = None
    image: str | None = None
    """Used where the node's isolation is a container engine."""
    hosts: list[str] = []
    """The addresses of the session's nodes by rank, when it has several."""
    port: int = Field(default=0, ge=0, le=65535)
    """On the first of them, for the ranks to meet: `rendezvous_port`."""


class StopOrder(Model):
    id: WorkId
    grace: float = 10
    """Seconds from SIGTERM to SIGKILL."""


class WorkReport(Model):
    """What became of one piece of work. Reports may come twice; the server ignores what it knows."""

    id: WorkId
    state: Literal["preparing", "running", "exited", "lost"]
    exit_code: int | None = None
    stopped: bool = False
    """It ended because it was told to, whatever its exit code."""
    at: datetime
    detail: Sentence | None = None


class LogChunk(Model):
    id: WorkId
    offset: int
    """Bytes from the start of this attempt's output; a chunk that overlaps what is known is cut, not doubled."""
    data: str
    """Base64."""


class Sample(Model):
    """Live measurements of the node."""

    cpu_utilization: float | None = None
    memory_utilization: float | None = None
    temperature: float | None = None
    power: float | None = None
    devices: list[Device] = []
    sessions: dict[str, float] = {}
    """Session id -> share of what it holds that it uses (GPU where it has one, else CPU)."""
    memory: dict[str, int] = {}
    """Session id -> bytes of memory that its processes use on this node."""


class Beat(Model):
    """POST /v1/agents/{node}/beat: what is running, what became of the rest, new output. Answered at once when there is
    something to do, else after `wait` seconds at most."""

    running: list[WorkId] = []
    reports: list[WorkReport] = []
    logs: list[LogChunk] = []
    sample: Sample | None = None
    wait: float = Field(default=0, ge=0, le=30)
    secret: str | None = Field(default=None, max_length=200)
    """The node's own, as in `NodeInfo`."""


class BeatReply(Model):
    start: list[Work] = []
    stop: list[StopOrder] = []
    interval: float = 5
    """Seconds within which the next beat is due."""
