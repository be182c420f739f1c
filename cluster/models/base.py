"""What all shapes share, and the small ones that everything uses."""

from datetime import UTC, datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict

from cluster.sentence import Sentence

__all__ = ["Event", "Model", "Names", "Page", "Reason", "Resources"]

T = TypeVar("T")


DAY = 86_400
LONGEST = 10 * 365 * DAY
"""Seconds: longer than anything here may last, and short enough to be added to any time."""


def _in_utc(at: datetime) -> datetime:
    """The first and the last year have moments that UTC has no name for."""
    if not 1970 <= at.year <= 2999:
        raise ValueError("the year must be between 1970 and 2999")
    return at.astimezone(UTC)


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time that somebody says, with its zone."""


class Model(BaseModel):
    """Base of the door's shapes: an unknown key is an error, and so is a number that is none (1e999)."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


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
    runs: dict[str, str] = {}
    """Of pipelines: id -> pipeline, the latest first."""
