"""Endpoints: models that are served. Life cycle, health and traffic are three things, and each is said for itself."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from cluster.models.base import Model, Reason
from cluster.sentence import Sentence

__all__ = [
    "Autoscaling",
    "DeleteEndpoint",
    "DeployModel",
    "Endpoint",
    "EndpointHealth",
    "EndpointMetrics",
    "EndpointState",
    "Replica",
    "ReplicaPhase",
    "ScaleEndpoint",
    "ScalingDecision",
    "SetAutoscaling",
    "Traffic",
]

NAME = r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
"""It is a part of the endpoint's address."""
MOST_REPLICAS = 1000


class EndpointState(StrEnum):
    """Its life cycle."""

    ACTIVE = "active"
    DELETING = "deleting"
    DELETED = "deleted"


class EndpointHealth(StrEnum):
    """Of its replicas, together."""

    STOPPED = "stopped"
    """None is wanted."""
    STARTING = "starting"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """Some are healthy, but fewer than are wanted."""
    UNHEALTHY = "unhealthy"


class ReplicaPhase(StrEnum):
    WAITING = "waiting"
    """Its session waits for room."""
    PREPARING = "preparing"
    """Its session is being set up on its node."""
    STARTING = "starting"
    """It runs, and has not said yet that it can serve."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    AWAY = "away"
    """Its node is lost."""
    DRAINING = "draining"
    """It gets no new requests, and is stopped when it has answered those that it has."""
    STOPPING = "stopping"


class Autoscaling(Model):
    """How many replicas there are follows from a measured amount; `target` is a replica's share of it."""

    metric: Literal["requests_per_second", "latency_p95", "queue_depth", "gpu_utilization"]
    target: float = Field(gt=0, allow_inf_nan=False)
    """Requests a second, seconds, requests, or a share (0..1]."""
    min_replicas: int = Field(ge=0, le=MOST_REPLICAS)
    max_replicas: int = Field(ge=1, le=MOST_REPLICAS)


class ScalingDecision(Model):
    """What the autoscaler decided, and from what."""

    at: datetime
    before: int
    after: int
    reason: Sentence
    seen: dict[str, Any] = {}


class Traffic(Model):
    """Whether a request would be answered right now."""

    reachable: bool
    replicas: int = 0
    """How many take requests."""
    reason: Sentence | None = None
    """Why not, when it is not reachable."""


class EndpointMetrics(Model):
    """Over the last minute, as the proxy saw it."""

    requests_per_second: float | None = None
    latency_p95: float | None = None
    """Seconds."""
    in_flight: int = 0
    queue_depth: int = 0
    """Requests that wait at the proxy for a replica."""
    errors_per_second: float | None = None
    gpu_utilization: float | None = None


class Replica(Model):
    session: str
    """Id of the session that it is."""
    name: str
    revision: int
    model: str
    phase: ReplicaPhase
    since: datetime | None = None
    node: str | None = None
    port: int
    in_flight: int = 0
    gpu_utilization: float | None = None
    reasons: list[Reason] = []
    """Why its session waits."""


class Endpoint(Model):
    name: str
    project: str
    owner: str
    model: str
    """Of the revision that it is to have."""
    revision: int
    former: int | None = None
    """While a rolling update is under way: the revision that it leaves."""
    state: EndpointState
    state_since: datetime
    health: EndpointHealth
    traffic: Traffic
    url: str
    """Path below the server's address; an OpenAI client's `base_url` is this and `/v1`."""
    wanted: int
    replicas: list[Replica] = []
    gpu: float = 0
    """Of one replica."""
    gpu_model: str | None = None
    resource_group: str | None = None
    metrics: EndpointMetrics = EndpointMetrics()
    autoscaling: Autoscaling | None = None
    decisions: list[ScalingDecision] = []
    """The last ones, newest first; in lists empty."""
    reasons: list[Reason] = []
    """Why an update was given up, or why its replicas fail."""
    created: datetime


class DeployModel(Model):
    """A new endpoint; or, where the project has one of this name, a rolling update of it."""

    op: Literal["deploy_model"] = "deploy_model"
    model: str
    name: str | None = Field(default=None, pattern=NAME)
    replicas: int | None = Field(default=None, ge=0, le=MOST_REPLICAS)
    """Left out: 1; in an update as many as there are."""
    gpu: float | None = Field(default=None, ge=0, le=1000)
    """Of one replica; as the model's recipe says when left out."""
    gpu_model: str | None = None
    runtime: str | None = None
    project: str | None = None
    resource_group: str | None = None


class ScaleEndpoint(Model):
    op: Literal["scale_endpoint"] = "scale_endpoint"
    endpoint: str
    replicas: int = Field(ge=0, le=MOST_REPLICAS)


class SetAutoscaling(Autoscaling):
    op: Literal["set_autoscaling"] = "set_autoscaling"
    endpoint: str


class DeleteEndpoint(Model):
    op: Literal["delete_endpoint"] = "delete_endpoint"
    endpoint: str
