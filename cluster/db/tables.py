"""The tables. Amounts in bytes, cores, devices, seconds; times are UTC."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Boolean, DateTime, Float, ForeignKey, Index, Integer, String, Text, TypeDecorator, false
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Utc(TypeDecorator[datetime]):
    """Aware in, aware out; SQLite itself would forget the zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value else None


class Base(DeclarativeBase):
    type_annotation_map = {datetime: Utc, dict[str, Any]: JSON, list[Any]: JSON, int: Integer, float: Float}


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


class TokenRow(Base):
    """A bearer token, hashed; `owner` is a user's name, or empty for the agents' token."""

    __tablename__ = "tokens"
    digest: Mapped[str] = mapped_column(String, primary_key=True)
    owner: Mapped[str] = mapped_column(String, default="")


class ProjectRow(Base):
    __tablename__ = "projects"
    name: Mapped[str] = mapped_column(String, primary_key=True)
    cohort: Mapped[str | None] = mapped_column(String)
    """Projects of one cohort lend each other what their quotas leave idle."""


class MemberRow(Base):
    __tablename__ = "members"
    project: Mapped[str] = mapped_column(ForeignKey("projects.name"), primary_key=True)
    user: Mapped[str] = mapped_column(ForeignKey("users.name"), primary_key=True)


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
    env: Mapped[dict[str, Any]]
    depends_on: Mapped[list[Any]]
    start_at: Mapped[datetime | None]
    time_limit: Mapped[float | None]
    submitted: Mapped[datetime]
    started: Mapped[datetime | None]
    ended: Mapped[datetime | None]
    exit_code: Mapped[int | None]
    attempt: Mapped[int] = mapped_column(Integer, default=0)
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
    rank: Mapped[int] = mapped_column(Integer, primary_key=True)
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
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String, index=True)
    project: Mapped[str] = mapped_column(String)
    owner: Mapped[str] = mapped_column(String)
    size: Mapped[int] = mapped_column(Integer, default=0)
    quota: Mapped[int | None]
    trash_id: Mapped[str | None] = mapped_column(String)
    trashed_at: Mapped[datetime | None]
    created: Mapped[datetime]
    modified: Mapped[datetime]


class EventRow(Base):
    __tablename__ = "events"
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String)
    severity: Mapped[str] = mapped_column(String, default="info")
    target: Mapped[str | None] = mapped_column(String)
    message: Mapped[dict[str, Any]]


class AuditRow(Base):
    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    user: Mapped[str] = mapped_column(String)
    action: Mapped[str] = mapped_column(String)
    operation: Mapped[dict[str, Any]]
    targets: Mapped[list[Any]]
    inverse: Mapped[dict[str, Any] | None]
    undone_by: Mapped[int | None]


class KeyRow(Base):
    """An idempotency key and the outcome that it had."""

    __tablename__ = "idempotency_keys"
    user: Mapped[str] = mapped_column(String, primary_key=True)
    key: Mapped[str] = mapped_column(String, primary_key=True)
    outcome: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
