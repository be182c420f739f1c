"""Pipelines: how one is defined, what can be done with it, and its runs."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from cluster.errors import Invalid
from cluster.models.base import Model, Reason
from cluster.units import parse_duration, parse_size

__all__ = [
    "CancelPipelineRun",
    "DeletePipeline",
    "Parameter",
    "Pipeline",
    "PipelineRun",
    "PipelineSpec",
    "PipelineStep",
    "PutPipeline",
    "ResumePipelineRun",
    "RunPipeline",
    "RunState",
    "RunStep",
    "Scalar",
    "StepState",
]

PLACEHOLDER = "{{"
MOST_STEPS = 500
MOST_TEXT = 256 * 1024
"""Characters of a definition."""

Scalar = bool | int | Annotated[float, Field(allow_inf_nan=False)] | str


def _templated(value: Any, read: Any, kind: str) -> Any:
    """`value` as it is where a parameter will fill it in, else read from what people write ("8g", "90m")."""
    if isinstance(value, str) and PLACEHOLDER not in value:
        try:
            return read(value)
        except (Invalid, ValueError) as e:
            raise PydanticCustomError(kind, "not a {kind}", {"kind": kind}) from e
    return value


def _number(value: Any) -> Any:
    return _templated(value, float, "number")


def _size(value: Any) -> Any:
    return _templated(value, parse_size, "size")


def _span(value: Any) -> Any:
    return _templated(value, parse_duration, "duration")


Template = Annotated[str, Field(max_length=200, pattern=r"\{\{")]
Amount = Annotated[Annotated[float, Field(gt=0, le=1_000_000)] | Template, BeforeValidator(_number)]
Devices = Annotated[Annotated[float, Field(ge=0, le=100_000)] | Template, BeforeValidator(_number)]
Size = Annotated[Annotated[int, Field(gt=0, le=2**60)] | Template, BeforeValidator(_size)]
Span = Annotated[Annotated[float, Field(gt=0, le=10 * 365 * 86400)] | Template, BeforeValidator(_span)]
Delay = Annotated[Annotated[float, Field(ge=0, le=86400)], BeforeValidator(_span)]

PipelineName = Annotated[str, Field(pattern=r"^[^\s/\x00-\x1f\x7f]{1,60}$")]
StepName = Annotated[str, Field(pattern=r"^[^\s/\x00-\x1f\x7f]{1,60}$")]
ParameterName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,59}$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]
Line = Annotated[str, Field(min_length=1, max_length=500)]


class RunState(StrEnum):
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepState(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class Parameter(Model):
    """What a run may set. Without `default` a run has to."""

    type: Literal["text", "integer", "number", "boolean"] = "text"
    default: Scalar | None = None
    choices: list[Scalar] = Field(default=[], max_length=100)
    description: str = Field(default="", max_length=2000)


class PipelineStep(Model):
    """One step: a batch session that begins when those in `after` have succeeded.

    Amounts are totals over all nodes, as a session's; a text with `{{ parameters.x }}` is filled in by the run.
    """

    name: StepName
    after: list[StepName] = Field(default=[], max_length=MOST_STEPS)
    description: str = Field(default="", max_length=2000)
    image: Line | None = None
    command: Annotated[str, Field(min_length=1, max_length=8000)] | None = None
    cpu: Amount | None = None
    memory: Size | None = None
    gpu: Devices | None = None
    gpu_model: Line | None = None
    node_count: Annotated[int, Field(ge=1, le=10_000)] | Template = 1
    resource_group: Line | None = None
    priority: int = Field(default=10, ge=0, le=100)
    mounts: list[Line] = Field(default=[], max_length=50)
    env: dict[Variable, Annotated[str, Field(max_length=8000)]] = Field(default={}, max_length=200)
    time_limit: Span | None = None
    """Seconds of one try."""
    retries: int = Field(default=0, ge=0, le=20)
    """How often it is tried again after a failure."""
    retry_delay: Delay = 0
    """Seconds between a failure and the next try."""
    when: bool | Template = True
    """False: it is left out, and those after it go on as if it had succeeded."""
    may_fail: bool = False
    """Its failure is no failure of the run, and those after it go on."""


class PipelineSpec(Model):
    """A pipeline as it is kept, and as a run of it began with."""

    name: PipelineName
    description: str = Field(default="", max_length=10_000)
    parameters: dict[ParameterName, Parameter] = Field(default={}, max_length=100)
    env: dict[Variable, Annotated[str, Field(max_length=8000)]] = Field(default={}, max_length=200)
    """For every step; a step's own goes before it."""
    steps: list[PipelineStep] = Field(min_length=1, max_length=MOST_STEPS)


class RunStep(Model):
    """What became of one step of a run."""

    name: str
    after: list[str] = []
    state: StepState
    since: datetime
    tries: int = 0
    session: str | None = None
    """Id of its session, of the last try."""
    reasons: list[Reason] = []


class PipelineRun(Model):
    id: str
    pipeline: str
    project: str
    user: str
    state: RunState
    since: datetime
    created: datetime
    ended: datetime | None = None
    parameters: dict[str, Scalar] = {}
    reasons: list[Reason] = []
    """Why it failed, or what is odd about how it was cancelled."""
    steps: list[RunStep] = []
    """In the order of the definition."""


class Pipeline(Model):
    name: str
    project: str
    owner: str
    description: str = ""
    parameters: dict[str, Parameter] = {}
    steps: list[str] = []
    """Their names, in the order of the definition."""
    created: datetime
    modified: datetime
    last_run: PipelineRun | None = None
    """The latest, without its steps."""
    spec: PipelineSpec | None = None
    """The whole, where one is asked for by name."""


class PutPipeline(Model):
    """Create a pipeline, or replace the one of its name in its project."""

    op: Literal["put_pipeline"] = "put_pipeline"
    text: str = Field(min_length=1, max_length=MOST_TEXT)
    """YAML: ours (`steps`), or FastTrack's (`tasks`)."""
    name: PipelineName | None = None
    """Instead of the one in the text."""
    project: str | None = None


class DeletePipeline(Model):
    op: Literal["delete_pipeline"] = "delete_pipeline"
    pipeline: str
    project: str | None = None


class RunPipeline(Model):
    op: Literal["run_pipeline"] = "run_pipeline"
    pipeline: str
    parameters: dict[str, Scalar] = Field(default={}, max_length=100)
    project: str | None = None
    """Where it runs; the pipeline's own when left out. Of several of the name, the one there is meant."""


class CancelPipelineRun(Model):
    op: Literal["cancel_pipeline_run"] = "cancel_pipeline_run"
    run: str
    """Its id; or a pipeline's name for its latest run."""


class ResumePipelineRun(Model):
    op: Literal["resume_pipeline_run"] = "resume_pipeline_run"
    run: str
