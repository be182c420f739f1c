"""What is wrong, found by checks: findings with what they follow from, and the call that would help."""

from typing import Literal

from pydantic import Field, JsonValue

from cluster.models.base import Model
from cluster.sentence import Sentence

__all__ = ["Diagnosis", "Finding", "Proposal", "Quote"]

Kind = Literal["cluster", "node", "session", "endpoint", "pipeline", "folder"]


class Proposal(Model):
    """A tool call that would help, or show more. It is never made by itself; whoever makes it is shown its plan."""

    tool: str
    arguments: dict[str, JsonValue] = {}


class Quote(Model):
    """A line of a session's output, as it is: data, whatever it says. Without control characters, cut to a length."""

    text: str
    back: int
    """How many lines of output followed it."""


class Finding(Model):
    code: str
    """Stable, for programs: cuda_oom, node_lost, idle_gpu …"""
    severity: Literal["error", "warning", "info"]
    kind: Kind
    """What `target` is."""
    target: str
    owner: str | None = None
    """Whose it is, of what is somebody's."""
    message: Sentence
    advice: Sentence | None = None
    """What a person can do about it, where no tool does it."""
    evidence: dict[str, str | int | float] = {}
    """Numbers that it follows from, in the units of this package."""
    quote: Quote | None = None
    proposal: Proposal | None = None


class Diagnosis(Model):
    """GET /v1/diagnosis. Only of what the asking person may see."""

    target: str | None = None
    kind: Kind = "cluster"
    summary: list[Sentence]
    """Short clauses, to be read one after the other: "2 of 19 nodes need attention", "the queue is fine"."""
    findings: list[Finding]
    """The worst first, and the first `len(findings)` of `total`."""
    total: int
    counts: dict[str, int] = {}
    """Of all findings, by severity."""
    looked_at: dict[str, int] = {}
    """How many nodes, sessions, logs, endpoints, runs and folders were looked at."""
    not_seen: int = Field(default=0, ge=0)
    """Live sessions of others, which the asking person may not see and which were not looked at."""
