"""Between server and agents."""

import zlib
from datetime import datetime
from typing import Literal

from pydantic import Field, field_validator

from cluster.models.base import Model, Resources
from cluster.models.nodes import Device
from cluster.sentence import Sentence

__all__ = [
    "Beat",
    "BeatReply",
    "LogChunk",
    "NodeInfo",
    "Registered",
    "Sample",
    "StopOrder",
    "Work",
    "WorkId",
    "WorkReport",
    "rendezvous_port",
]

MOST_CORES = 100_000
MOST_BYTES = 2**50
MOST_DEVICES = 1024


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

    @field_validator("capacity")
    @classmethod
    def _possible(cls, capacity: Resources) -> Resources:
        """The scheduler reckons with whole numbers of 64 bits: a node beyond them would stop everybody's."""
        if not (0 <= capacity.cpu <= MOST_CORES and 0 <= capacity.memory <= MOST_BYTES):
            raise ValueError(f"a node has 0 to {MOST_CORES} cores and 0 to {MOST_BYTES} bytes of memory")
        return capacity

    @field_validator("devices")
    @classmethod
    def _counted(cls, devices: list[Device]) -> list[Device]:
        if [device.index for device in devices] != [*range(len(devices))] or len(devices) > MOST_DEVICES:
            raise ValueError(f"devices are numbered 0, 1, 2 … without gaps, and a node has at most {MOST_DEVICES}")
        return devices


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
    read_only: list[str] = []
    """Those of them that it may only read, where the node's isolation can see to that."""
    shown: list[str] = []
    """Directories on this host that it may read besides, at their own paths: a replica its model's."""
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
