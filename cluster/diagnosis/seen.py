"""What the checks look at: one moment of the cluster, as far as the asking person may see it. No plumbing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from cluster.lifecycle import WAITING
from cluster.models import Endpoint, Finding, Folder, Node, PipelineRun, Proposal, Quote, Sentence, Session
from cluster.units import human_duration

HOUR, DAY = 3600.0, 86_400.0
Severity = Literal["error", "warning", "info"]
Kind = Literal["session", "node", "endpoint", "folder"]


@dataclass(frozen=True)
class Disk:
    """The one that database, logs and folders are on; in bytes."""

    free: int
    size: int


@dataclass(frozen=True)
class Seen:
    """Shapes of the door, so that a check can be tested without a cluster."""

    now: datetime
    user: str
    admin: bool = False
    nodes: list[Node] = field(default_factory=list)
    closed: dict[str, datetime] = field(default_factory=dict)
    """Since when a node is cordoned or draining, where that is known."""
    selectors: dict[str, str] = field(default_factory=dict)
    """How each resource group chooses nodes."""
    limits: dict[tuple[str, str], float] = field(default_factory=dict)
    """(user or project, name) -> GPUs of the quota; for an admin, who may change it, else empty."""
    sessions: list[Session] = field(default_factory=list)
    """Live ones; and those that ended lately, none that was started again since."""
    logs: dict[str, str] = field(default_factory=dict)
    """Session id -> the end of its output."""
    endpoints: list[Endpoint] = field(default_factory=list)
    runs: list[PipelineRun] = field(default_factory=list)
    """Of each pipeline the latest."""
    folders: list[Folder] = field(default_factory=list)
    disk: Disk | None = None
    not_seen: int = 0

    def age(self, when: datetime | None) -> float:
        """Seconds since; 0 for what is not known."""
        return max(0.0, (self.now - when).total_seconds()) if when else 0.0

    def ref(self, session: Session) -> str:
        """Its name, where only one here has it; else its id."""
        alike = sum(s.name == session.name for s in self.sessions)
        return session.name if alike <= 1 else session.id

    def waiting(self) -> list[Session]:
        return [s for s in self.sessions if s.state in WAITING]


def span(seconds: float) -> str:
    """ "3 h 40 min": in the words of the cluster, which are said in the reader's language later."""
    return human_duration(seconds - seconds % 60 if seconds >= 60 else max(1, seconds))


def look(tool: str, **arguments: str) -> Proposal:
    """A call that shows more."""
    return Proposal(tool=tool, arguments={**arguments})


def finding(
    thing: Session | Node | Endpoint | Folder,
    code: str,
    severity: Severity,
    message: Sentence,
    evidence: Mapping[str, str | int | float],
    *,
    advice: Sentence | None = None,
    quote: Quote | None = None,
    proposal: Proposal | None = None,
) -> Finding:
    """About one thing."""
    kind, owner = _about(thing)
    return Finding(
        code=code,
        severity=severity,
        kind=kind,
        target=thing.name,
        owner=owner,
        message=message,
        advice=advice,
        evidence={**evidence},
        quote=quote,
        proposal=proposal,
    )


def _about(thing: Session | Node | Endpoint | Folder) -> tuple[Kind, str | None]:
    """Of what kind it is, and whose."""
    match thing:
        case Session():
            return "session", thing.user
        case Node():
            return "node", None
        case Endpoint():
            return "endpoint", thing.owner
        case Folder():
            return "folder", thing.owner


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """In a fixed order, so that two looks at the same cluster say the same."""
    weight = {"error": 0, "warning": 1, "info": 2}
    kinds = ("cluster", "node", "endpoint", "session", "pipeline", "folder")
    return sorted(findings, key=lambda f: (weight[f.severity], kinds.index(f.kind), -_size(f), f.target, f.code))


def _size(finding: Finding) -> float:
    """GPUs that it is about."""
    gpu = finding.evidence.get("gpu", 0)
    return float(gpu) if isinstance(gpu, int | float) else 0.0
