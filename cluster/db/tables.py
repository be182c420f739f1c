"""The tables. Amounts in bytes, cores, devices, seconds; times are UTC."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeEngine

Int = BigInteger().with_variant(Integer(), "sqlite")
"""Of 64 bits; only as INTEGER does SQLite number the rows by itself."""


class Utc(TypeDecorator[datetime]):
    """Aware in, aware out. PostgreSQL keeps the moment; SQLite would forget the zone, and is given UTC without one."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(DateTime(timezone=dialect.name == "postgresql"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name == "postgresql":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name == "postgresql":
            return value
        return value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    type_annotation_map = {datetime: Utc, dict[str, Any]: JSON, list[Any]: JSON, int: Int, float: Float}


class Meta(Base):
    """Facts about the cluster itself: its name, whether it is simulated."""

    __tablename__ = "meta"
    key: Mapped[str] = mapped_column(String, primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class UserRow(Base):
    __tablename__ = "users"
    name: Mapped[str] = mapped_column(String, primary_key=True)
    email: Mapped[str | None] = mapped_column(String)
    role: Mapped[str] = mapped_column(String, default="user")
    active: Mapped[bool] = mapped_column(Boolean, default=True)
    full_name: Mapped[str | None] = mapped_column(String)
    subject: Mapped[str | None] = mapped_column(String)
    """Who this is at the OIDC provider: issuer and subject."""
    __table_args__ = (UniqueConstraint("subject", name="one_user_a_subject"),)


class TokenRow(Base):
    """A bearer token; `owner` is a user's name, or empty for the agents' token."""

    __tablename__ = "tokens"
    id: Mapped[str] = mapped_column(String, primary_key=True)
    """Its public half; of a token from before 0003 the SHA-256 of all of it."""
    secret: Mapped[str | None] = mapped_column(String)
    """Argon2 hash of the other half; NULL for one from before 0003."""
    owner: Mapped[str] = mapped_column(String, default="")
    name: Mapped[str] = mapped_column(String, default="", server_default="")
    created: Mapped[datetime | None]
    expires: Mapped[datetime | None]


class ProjectRow(Base):
    __tablename__ = "projects"
    name: Mapped[str] = mapped_column(String, primary_key=True)
    cohort: Mapped[str | None] = mapped_column(String)
    """Projects of one cohort lend each other what their quotas leave idle."""
    description: Mapped[str | None] = mapped_column(Text)


class MemberRow(Base):
    __tablename__ = "members"
    project: Mapped[str] = mapped_column(ForeignKey("projects.name"), primary_key=True)
    user: Mapped[str] = mapped_column(ForeignKey("users.name"), primary_key=True)
    role: Mapped[str] = mapped_column(String, default="user", server_default="user")
    """In this project: user or project_admin."""


class QuotaRow(Base):
    """A limit of a user or project; NULL is no limit."""

    __tablename__ = "quotas"
    scope: Mapped[str] = mapped_column(String, primary_key=True)
    name: Mapped[str] = mapped_column(String, primary_key=True)
    cpu: Mapped[float | None]
    memory: Mapped[int | None]
    gpu: Mapped[float | None]
    storage: Mapped[int | None]
    sessions: Mapped[int | None]
    borrow_cpu: Mapped[float | None]
    """How much more than the limit may be borrowed of the cohort's idle rest; NULL is no limit."""
    borrow_memory: Mapped[int | None]
    borrow_gpu: Mapped[float | None]


class GroupRow(Base):
    __tablename__ = "resource_groups"
    name: Mapped[str] = mapped_column(String, primary_key=True)
    policy: Mapped[str] = mapped_column(String, default="fifo")
    selector: Mapped[str] = mapped_column(String, default="concentrated")
    backfill: Mapped[bool] = mapped_column(Boolean, default=False)
    preemption: Mapped[bool] = mapped_column(Boolean, default=False)


class ImageRow(Base):
    __tablename__ = "images"
    name: Mapped[str] = mapped_column(String, primary_key=True)
    origin: Mapped[str | None] = mapped_column(String)
    """The registry that it is fetched from."""


class NodeRow(Base):
    __tablename__ = "nodes"
    name: Mapped[str] = mapped_column(String, primary_key=True)
    resource_group: Mapped[str] = mapped_column(ForeignKey("resource_groups.name"))
    status: Mapped[str] = mapped_column(String, default="alive")
    reason: Mapped[str | None] = mapped_column(String)
    lost_from: Mapped[str | None] = mapped_column(String)
    """The status that it had before it was lost, to go back to."""
    cpu: Mapped[float]
    memory: Mapped[int]
    gpu_model: Mapped[str | None] = mapped_column(String)
    devices: Mapped[list[Any]]
    """`cluster.models.Device` as JSON, by index."""
    rack: Mapped[str | None] = mapped_column(String)
    isolation: Mapped[str] = mapped_column(String, default="process")
    address: Mapped[str | None] = mapped_column(String)
    """Where other nodes reach it."""
    same_host: Mapped[bool] = mapped_column(Boolean, default=False)
    sample: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    last_beat: Mapped[datetime | None]


class SessionRow(Base):
    __tablename__ = "sessions"
    id: Mapped[str] = mapped_column(String, primary_key=True)
    name: Mapped[str] = mapped_column(String)
    user: Mapped[str] = mapped_column(String)
    project: Mapped[str] = mapped_column(String)
    type: Mapped[str] = mapped_column(String)
    image: Mapped[str | None] = mapped_column(String)
    command: Mapped[str | None] = mapped_column(Text)
    workdir: Mapped[str | None] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String)
    state_since: Mapped[datetime]
    result: Mapped[str | None] = mapped_column(String)
    cpu: Mapped[float]
    memory: Mapped[int]
    gpu: Mapped[float]
    gpu_model: Mapped[str | None] = mapped_column(String)
    accelerator: Mapped[str | None] = mapped_column(String)
    rack: Mapped[str | None] = mapped_column(String)
    node_count: Mapped[int]
    resource_group: Mapped[str] = mapped_column(String)
    priority: Mapped[int]
    mounts: Mapped[list[Any]]
    read_only: Mapped[list[Any]] = mapped_column(JSON, default=list, server_default="[]")
    """Those of `mounts` that it may only read."""
    shown: Mapped[list[Any]] = mapped_column(JSON, default=list, server_default="[]")
    """Directories of the server's that it may read besides: a replica its model's. Never from a request."""
    env: Mapped[dict[str, Any]]
    depends_on: Mapped[list[Any]]
    start_at: Mapped[datetime | None]
    time_limit: Mapped[float | None]
    submitted: Mapped[datetime]
    started: Mapped[datetime | None]
    ended: Mapped[datetime | None]
    exit_code: Mapped[int | None]
    attempt: Mapped[int] = mapped_column(Int, default=0)
    grace: Mapped[float] = mapped_column(Float, default=10)
    preemptible: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    requeue: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """It is being stopped to make room, and waits again when it is gone."""
    reasons: Mapped[list[Any]]
    estimated_start: Mapped[datetime | None]
    utilization: Mapped[float | None]
    __table_args__ = (Index("sessions_by_end", "ended"), Index("sessions_by_name", "name"))


class AllocationRow(Base):
    """What a live session holds. Usage is always the sum of these; nothing counts it elsewhere."""

    __tablename__ = "allocations"
    session: Mapped[str] = mapped_column(ForeignKey("sessions.id"), primary_key=True)
    rank: Mapped[int] = mapped_column(Int, primary_key=True)
    node: Mapped[str] = mapped_column(ForeignKey("nodes.name"))
    cpu: Mapped[float]
    memory: Mapped[int]
    devices: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String, default="placed")
    """Of this rank on its agent: placed, ordered, preparing, running, exited."""
    exit_code: Mapped[int | None]


class UsageRow(Base):
    """What a user's sessions have used, for fair_share: `value` device-seconds at `at`, halved every seven days."""

    __tablename__ = "usage"
    user: Mapped[str] = mapped_column(String, primary_key=True)
    value: Mapped[float]
    at: Mapped[datetime]


class FolderRow(Base):
    __tablename__ = "folders"
    id: Mapped[int] = mapped_column(Int, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String, index=True)
    project: Mapped[str] = mapped_column(String)
    owner: Mapped[str] = mapped_column(String)
    size: Mapped[int] = mapped_column(Int, default=0)
    quota: Mapped[int | None]
    trash_id: Mapped[str | None] = mapped_column(String)
    trashed_at: Mapped[datetime | None]
    created: Mapped[datetime]
    modified: Mapped[datetime]
    state: Mapped[str] = mapped_column(String, default="ready", server_default="ready")
    """ready; cloning: its contents are being copied, and it cannot be used yet; failed: they could not be."""
    state_since: Mapped[datetime | None]
    source: Mapped[int | None]
    """The folder that it is a clone of."""
    reasons: Mapped[list[Any]] = mapped_column(JSON, default=list, server_default="[]")
    """Why it failed."""
    contents: Mapped[list[Any]] = mapped_column(JSON, default=list, server_default="[]")
    """In a simulated cluster, the files in it: `{"path", "size"}`."""


class GrantRow(Base):
    """A folder shared with a user or project; `permission` is read or write."""

    __tablename__ = "grants"
    folder: Mapped[int] = mapped_column(ForeignKey("folders.id", ondelete="CASCADE"), primary_key=True)
    scope: Mapped[str] = mapped_column(String, primary_key=True)
    name: Mapped[str] = mapped_column(String, primary_key=True)
    permission: Mapped[str] = mapped_column(String)


class UploadRow(Base):
    """A resumable upload (tus). What arrived is the length of its file, never counted here."""

    __tablename__ = "uploads"
    id: Mapped[str] = mapped_column(String, primary_key=True)
    folder: Mapped[int] = mapped_column(ForeignKey("folders.id", ondelete="CASCADE"))
    path: Mapped[str] = mapped_column(Text)
    """Where in the folder it goes when it is complete."""
    length: Mapped[int]
    user: Mapped[str] = mapped_column(String)
    created: Mapped[datetime]
    expires: Mapped[datetime]
    finished: Mapped[datetime | None]
    """When the file was put in its place. Known for a while, for a client that did not hear of it."""


class EventRow(Base):
    __tablename__ = "events"
    seq: Mapped[int] = mapped_column(Int, primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String)
    severity: Mapped[str] = mapped_column(String, default="info")
    target: Mapped[str | None] = mapped_column(String)
    message: Mapped[dict[str, Any]]
    owner: Mapped[str | None] = mapped_column(String)
    project: Mapped[str | None] = mapped_column(String)
    """Whose it is, and where it belongs: who may see it. Both are NULL for the cluster's own, and from before 0003."""


class AuditRow(Base):
    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(Int, primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    user: Mapped[str] = mapped_column(String)
    action: Mapped[str] = mapped_column(String)
    operation: Mapped[dict[str, Any]]
    targets: Mapped[list[Any]]
    inverse: Mapped[dict[str, Any] | None]
    undone_by: Mapped[int | None]
    result: Mapped[str] = mapped_column(String, default="done", server_default="done")
    """done or refused."""
    reasons: Mapped[list[Any]] = mapped_column(JSON, default=list, server_default="[]")
    """Why it was refused."""
    chain: Mapped[str | None] = mapped_column(String)
    """SHA-256 of the row before's `chain` and of this row without `undone_by`; NULL from before 0003."""


class KeyRow(Base):
    """An idempotency key and the outcome that it had."""

    __tablename__ = "idempotency_keys"
    user: Mapped[str] = mapped_column(String, primary_key=True)
    key: Mapped[str] = mapped_column(String, primary_key=True)
    outcome: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
    __table_args__ = (Index("keys_by_time", "at"),)


# ── models and endpoints ─────────────────────────────────────────────────────────────────────────


class ModelRow(Base):
    """A model of the store; its files lie in the store's directory under its name."""

    __tablename__ = "models"
    name: Mapped[str] = mapped_column(String, primary_key=True)
    owner: Mapped[str] = mapped_column(String)
    project: Mapped[str | None] = mapped_column(String)
    """Whose members see it; NULL: everybody."""
    source: Mapped[str] = mapped_column(Text)
    """The recipe, folder or hub id that it was installed from."""
    recipe: Mapped[dict[str, Any]]
    """How it is served: `cluster.models.Recipe` as JSON."""
    card: Mapped[dict[str, Any]]
    """`cluster.models.Card` as JSON."""
    size: Mapped[int] = mapped_column(Int, default=0)
    state: Mapped[str] = mapped_column(String)
    """installing, ready, failed."""
    state_since: Mapped[datetime]
    reasons: Mapped[list[Any]] = mapped_column(JSON, default=list)
    created: Mapped[datetime]


class EndpointRow(Base):
    """A served model. Life cycle is kept; health follows from its replicas, and whether it is reached from both."""

    __tablename__ = "endpoints"
    id: Mapped[int] = mapped_column(Int, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String, index=True)
    """Of those that are not deleted, one has it."""
    project: Mapped[str] = mapped_column(String)
    owner: Mapped[str] = mapped_column(String)
    resource_group: Mapped[str | None] = mapped_column(String)
    replicas: Mapped[int]
    """How many are wanted."""
    revision: Mapped[int] = mapped_column(Int, default=1)
    """The one that its replicas are to have."""
    former: Mapped[int | None]
    """While a rolling update is under way, the revision that it leaves, and goes back to if it is given up."""
    updating: Mapped[datetime | None]
    """Since when."""
    failures: Mapped[int] = mapped_column(Int, default=0, server_default="0")
    """Replicas in a row that ended by themselves or never got ready, and when the last one did."""
    failed_at: Mapped[datetime | None]
    state: Mapped[str] = mapped_column(String, default="active")
    """active, deleting, deleted."""
    state_since: Mapped[datetime]
    reasons: Mapped[list[Any]] = mapped_column(JSON, default=list)
    """Why an update was given up, or no replica starts."""
    autoscaling: Mapped[dict[str, Any] | None]
    """`cluster.models.Autoscaling` as JSON."""
    measured: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """In a simulated cluster: requests per second, p95 latency in seconds."""
    created: Mapped[datetime]
    deleted: Mapped[datetime | None]


class RevisionRow(Base):
    """What an endpoint's replicas of one revision run."""

    __tablename__ = "endpoint_revisions"
    endpoint: Mapped[int] = mapped_column(ForeignKey("endpoints.id", ondelete="CASCADE"), primary_key=True)
    revision: Mapped[int] = mapped_column(Int, primary_key=True)
    model: Mapped[str] = mapped_column(String)
    launch: Mapped[dict[str, Any]]
    """Command, environment, amounts, health path: `cluster.models.Launch` as JSON."""
    created: Mapped[datetime]


class ReplicaRow(Base):
    """A session that serves an endpoint, or did a short while ago."""

    __tablename__ = "replicas"
    session: Mapped[str] = mapped_column(
        ForeignKey("sessions.id", deferrable=True, initially="DEFERRED"), primary_key=True
    )
    """Written right before its session's row, hence the deferred check."""
    endpoint: Mapped[int] = mapped_column(ForeignKey("endpoints.id", ondelete="CASCADE"), index=True)
    revision: Mapped[int]
    port: Mapped[int]
    """On its node; no other live replica has it."""
    draining: Mapped[datetime | None]
    """Since when it gets no new requests, because it is to be stopped."""
    leaving: Mapped[datetime | None]
    """Since when its node is being emptied: it serves until a stand-in does."""
    gone: Mapped[datetime | None]
    """When its session's end was noted; for a day, since who stopped a waiting one may take that back."""


class DecisionRow(Base):
    """What the autoscaler decided about an endpoint, and from what."""

    __tablename__ = "scaling_decisions"
    id: Mapped[int] = mapped_column(Int, primary_key=True, autoincrement=True)
    endpoint: Mapped[int] = mapped_column(ForeignKey("endpoints.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime]
    seen: Mapped[dict[str, Any]]
    """All that the decision followed from, so that it can be made again."""
    before: Mapped[int]
    after: Mapped[int]
    reason: Mapped[dict[str, Any]]


# ── pipelines ────────────────────────────────────────────────────────────────────────────────────


class PipelineRow(Base):
    """A pipeline's definition: `cluster.models.PipelineSpec` as JSON."""

    __tablename__ = "pipelines"
    id: Mapped[int] = mapped_column(Int, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String)
    project: Mapped[str] = mapped_column(String)
    owner: Mapped[str] = mapped_column(String)
    spec: Mapped[dict[str, Any]]
    created: Mapped[datetime]
    modified: Mapped[datetime]
    __table_args__ = (UniqueConstraint("project", "name", name="one_pipeline_a_name"),)


class RunRow(Base):
    """One run of a pipeline, with the definition that it began with."""

    __tablename__ = "pipeline_runs"
    id: Mapped[str] = mapped_column(String, primary_key=True)
    pipeline: Mapped[str] = mapped_column(String)
    project: Mapped[str] = mapped_column(String)
    user: Mapped[str] = mapped_column(String)
    spec: Mapped[dict[str, Any]]
    parameters: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String)
    """running, succeeded, failed, cancelling, cancelled."""
    state_since: Mapped[datetime]
    created: Mapped[datetime]
    ended: Mapped[datetime | None]
    reasons: Mapped[list[Any]] = mapped_column(JSON, default=list)
    __table_args__ = (Index("runs_by_end", "ended"),)


class StepRow(Base):
    """One step of a run; its sessions, one a try."""

    __tablename__ = "run_steps"
    run: Mapped[str] = mapped_column(ForeignKey("pipeline_runs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[str] = mapped_column(String, primary_key=True)
    place: Mapped[int]
    """In the order of the definition."""
    state: Mapped[str] = mapped_column(String)
    """waiting, running, succeeded, failed, skipped, cancelled."""
    state_since: Mapped[datetime]
    tries: Mapped[int] = mapped_column(Int, default=0)
    session: Mapped[str | None] = mapped_column(String)
    """Of the last try."""
    reasons: Mapped[list[Any]] = mapped_column(JSON, default=list)
