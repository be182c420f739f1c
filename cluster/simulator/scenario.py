"""The scenario file's format, typed (`cluster.simulator.loading.load` reads one)."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import product, zip_longest
from math import prod
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr
from pydantic_core import PydanticCustomError

from cluster.models import NodeStatus, SessionResult, SessionState, SessionType
from cluster.simulator.source import Place
from cluster.units import parse_duration, parse_size

MISSING = "\0missing"
"""Stands for a name that is missing, while the rest of the file is checked."""

MOST_NAMES = 10_000
"""A range makes no more names than this."""

# ── units ────────────────────────────────────────────────────────────────────────────────────────


def _size(value: Any) -> Any:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    try:
        return parse_size(str(value))
    except Exception as e:
        raise PydanticCustomError("size", "{value} is not a size; write for example 64g", {"value": str(value)}) from e


def _duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    text = str(value).strip()
    sign = -1 if text.startswith("-") else 1
    try:
        return timedelta(seconds=sign * parse_duration(text.lstrip("+-")))
    except Exception as e:
        raise PydanticCustomError(
            "duration", "{value} is not a duration; write for example 90m", {"value": text}
        ) from e


def _moment(value: Any) -> Any:
    """`-3h` and `+5m` count from the scenario's clock; a full date stands for itself."""
    if isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        return _duration(value)


Size = Annotated[int, BeforeValidator(_size), Field(ge=0, le=2**60)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
Moment = Annotated[timedelta | datetime, BeforeValidator(_moment)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=0, le=100_000)]
Amount = Annotated[float, Field(ge=0, le=1_000_000)]
Share = Annotated[float, Field(ge=0, le=1)]


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True, protected_namespaces=())

    _at: Place = PrivateAttr(default=())

    @property
    def at(self) -> Place:
        """Where in the file it stands, for `Source.line`."""
        return self._at

    def placed(self, at: Place) -> Self:
        """The same, which says that it stands at `at`."""
        self._at = at
        return self


# ── what a file may hold ─────────────────────────────────────────────────────────────────────────


class GroupSpec(Spec):
    name: Name
    policy: Literal["fifo", "lifo", "drf", "fair_share", "short_first"] = "fifo"
    selector: Literal["concentrated", "dispersed", "round_robin", "least_fragmentation", "least_power", "coolest"] = (
        "concentrated"
    )
    backfill: bool = False
    preemption: bool = False


class NodeSpec(Spec):
    name: Name
    resource_group: Name = "default"
    cpu: Amount = 64
    memory: Size = 256 * 2**30
    gpu: Count = 0
    gpu_model: Name | None = None
    gpu_memory: Size | None = None
    rack: Name | None = None
    status: NodeStatus = NodeStatus.ALIVE
    reason: str | None = None
    temperature: float | None = None
    power: float | None = None


class Caps(Spec):
    """A quota's amounts; what is left out is not limited."""

    cpu: Amount | None = None
    memory: Size | None = None
    gpu: Amount | None = None
    storage: Size | None = None
    sessions: Count | None = None


class ProjectSpec(Caps):
    name: Name
    description: str | None = None


class UserSpec(Spec):
    name: Name
    email: str | None = None
    role: Literal["user", "project_admin", "admin"] = "user"
    projects: list[Name] = []
    active: bool = True
    full_name: str | None = None


class ImageSpec(Spec):
    name: Name
    registry: str | None = None
    size: Size | None = None


class FileSpec(Spec):
    path: Name
    size: Size = 0
    modified: Moment | None = None


class FolderSpec(Spec):
    name: Name
    project: Name | None = None
    owner: Name | None = None
    size: Size | None = None
    """The sum of `files` when left out."""
    quota: Size | None = None
    trashed: bool | Moment = False
    """True or when it was moved to the trash."""
    created: Moment | None = None
    modified: Moment | None = None
    files: list[FileSpec] = []


class SessionSpec(Spec):
    name: Name
    id: Name | None = None
    user: Name
    project: Name | None = None
    type: SessionType = SessionType.INTERACTIVE
    image: Name | None = None
    command: str | None = None
    cpu: Amount | None = None
    memory: Size | None = None
    gpu: Amount = 0
    gpu_model: Name | None = None
    node_count: Annotated[int, Field(ge=1, le=10_000)] | None = None
    resource_group: Name | None = None
    priority: Annotated[int, Field(ge=0, le=100)] = 10
    mounts: list[Name] = []
    env: dict[str, str] = {}
    depends_on: list[Name] = []
    time_limit: Duration | None = None
    start_at: Moment | None = None
    status: SessionState = SessionState.PENDING
    result: SessionResult | None = None
    exit_code: int | None = None
    node: Name | list[Name] | None = None
    nodes: list[Name] = []
    submitted: Moment | None = None
    started: Moment | None = None
    ended: Moment | None = None
    runs_for: Duration | None = None
    """How long it will run in all; drawn by the simulator when left out."""
    gpu_utilization: Share | None = None
    cpu_utilization: Share | None = None
    idle: bool | None = None
    reason: str | None = None
    log: str | list[str] | None = None
    _if_there_is_room: bool = PrivateAttr(default=False)

    @property
    def if_there_is_room(self) -> bool:
        """It was made here; without room it waits, instead of being a mistake."""
        return self._if_there_is_room

    @if_there_is_room.setter
    def if_there_is_room(self, value: bool) -> None:
        self._if_there_is_room = value

    @property
    def on(self) -> list[str]:
        """The nodes it runs on, in the order of ranks."""
        return self.nodes or ([self.node] if isinstance(self.node, str) else self.node or [])


class ModelSpec(Spec):
    name: Name
    parameters: str | None = None
    format: str | None = None
    license: str | None = None
    size: Size | None = None
    base_model: str | None = None
    description: str | None = None


class EndpointSpec(Spec):
    name: Name
    model: Name
    replicas: Count = 1
    gpu: Amount = 0
    gpu_model: Name | None = None
    runtime: str | None = None
    project: Name | None = None
    user: Name | None = None
    resource_group: Name | None = None
    status: str | None = None
    health: str | None = None
    requests_per_second: float | None = None
    latency_p95: float | None = None
    queue_depth: float | None = None
    gpu_utilization: Share | None = None


class StepSpec(Spec):
    name: Name
    after: list[Name] = []
    image: Name | None = None
    command: str | None = None
    cpu: Amount | None = None
    memory: Size | None = None
    gpu: Amount | None = None


class PipelineSpec(Spec):
    name: Name
    project: Name | None = None
    user: Name | None = None
    schedule: str | None = None
    parameters: dict[str, str] = {}
    steps: list[StepSpec] = []


class QuotaSpec(Caps):
    user: Name | None = None
    project: Name | None = None


class FaultSpec(Spec):
    """What the simulator does to the fleet while it runs. `lost` and `recovered`: the node falls silent, speaks again;
    `hot`: it runs 25 °C warmer; `crash`: the session ends with an error."""

    when: Moment = Field(alias="at")
    node: Name | None = None
    session: Name | None = None
    kind: Literal["lost", "recovered", "hot", "crash"]
    duration: Duration | None = None
    """After which the fault is over."""


class Catalog(BaseModel):
    """What the file says of things that are served: kept for later."""

    models: list[ModelSpec] = []
    endpoints: list[EndpointSpec] = []
    pipelines: list[PipelineSpec] = []


class Scenario(Spec):
    """A whole cluster at one moment. Names with ranges are expanded, names are checked against each other."""

    name: Name = "scenario"
    clock: datetime = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
    """Aware; a time without an offset is taken as UTC. The offset is the one in which people speak of times."""
    resource_groups: list[GroupSpec] = []
    nodes: list[NodeSpec] = []
    projects: list[ProjectSpec] = []
    users: list[UserSpec] = []
    images: list[ImageSpec] = []
    folders: list[FolderSpec] = []
    sessions: list[SessionSpec] = []
    models: list[ModelSpec] = []
    endpoints: list[EndpointSpec] = []
    pipelines: list[PipelineSpec] = []
    quotas: list[QuotaSpec] = []
    faults: list[FaultSpec] = []

    @property
    def catalog(self) -> Catalog:
        return Catalog(models=self.models, endpoints=self.endpoints, pipelines=self.pipelines)

    @property
    def now(self) -> datetime:
        """`clock`, aware."""
        return self.clock if self.clock.tzinfo else self.clock.replace(tzinfo=UTC)

    def when(self, moment: timedelta | datetime) -> datetime:
        """A moment of the file as an aware time in UTC."""
        if isinstance(moment, timedelta):
            return (self.now + moment).astimezone(UTC)
        return (moment if moment.tzinfo else moment.replace(tzinfo=self.now.tzinfo)).astimezone(UTC)


_RANGE = re.compile(r"\[(\d+)-(\d+)\]")


def expand(name: str) -> list[str]:
    """`a100-[01-04]` as its four names, a name without a range as itself. `ValueError` for a range that runs backwards
    or makes more than 10,000 names."""
    parts = _RANGE.split(name)
    ranges = [_numbers(low, high) for low, high in zip(parts[1::3], parts[2::3], strict=True)]
    if prod(map(len, ranges)) > MOST_NAMES:
        raise ValueError(name)
    return [_woven(parts[0::3], numbers) for numbers in product(*ranges)]


def _numbers(low: str, high: str) -> Sequence[str]:
    if not 0 <= int(high) - int(low) < MOST_NAMES:
        raise ValueError(f"{low}-{high}")
    return [str(i).zfill(len(low)) for i in range(int(low), int(high) + 1)]


def _woven(texts: Sequence[str], numbers: Sequence[str]) -> str:
    return "".join(text + number for text, number in zip_longest(texts, numbers, fillvalue=""))
