"""The one stream of what happens in a conversation. Terminal, web and `ask` are renderers of it.

Events are stored per thread with a `seq` that grows by one, so that any face can join late, or after a crash, and
read on. They hold finished strings and views; a face adds only drawing.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from tools.views import Plan, View

Decision = Literal["yes", "no", "edit"]


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid")


class UserSaid(_Event):
    """A line was taken (a new request, or the answer to an open question)."""

    kind: Literal["user_said"] = "user_said"
    text: str
    face: str
    """terminal, web, ask …"""


class Working(_Event):
    """What is being done right now, for the spinner: "thinking", "looking at sessions"."""

    kind: Literal["working"] = "working"
    label: str


class Words(_Event):
    """A piece of the model's prose as it comes; `Answered` has the whole."""

    kind: Literal["words"] = "words"
    delta: str


class PlannedCall(BaseModel):
    """One call on a plan card."""

    model_config = ConfigDict(extra="forbid")

    id: str
    tool: str
    risk: Literal["R", "W", "D"]
    arguments: dict[str, Any]
    plan: Plan


class PlanShown(_Event):
    """A plan waits for a decision. `digest` binds the decision to exactly these calls and this state."""

    kind: Literal["plan_shown"] = "plan_shown"
    question: str
    digest: str
    calls: list[PlannedCall]
    moved: bool = False
    """Asked again since the world moved between the first question and the yes."""


class Asked(_Event):
    """Something is missing or fits several things; the next line (or a choice) answers it."""

    kind: Literal["asked"] = "asked"
    question: str
    text: str
    choices: list[str] = []


class Decided(_Event):
    kind: Literal["decided"] = "decided"
    question: str
    decision: Decision
    comment: str | None = None
    face: str
    automatic: bool = False
    """By a pre-approval of the person's, not by hand."""


class CallStarted(_Event):
    kind: Literal["call_started"] = "call_started"
    id: str
    tool: str
    risk: Literal["R", "W", "D"]
    arguments: dict[str, Any]


class CallEnded(_Event):
    kind: Literal["call_ended"] = "call_ended"
    id: str
    tool: str
    status: Literal["done", "denied", "failed", "refused"]
    view: View
    data: dict[str, Any] = {}
    risk: Literal["R", "W", "D"] = "R"
    arguments: dict[str, Any] = {}
    """Typed and linked, as in CallStarted; as they were said when they could not be linked."""
    audit_id: str | None = None


class Answered(_Event):
    """What Helmsman says at the end of a turn (made from results, or the model's prose)."""

    kind: Literal["answered"] = "answered"
    text: str
    refused: bool = False


class TurnEnded(_Event):
    kind: Literal["turn_ended"] = "turn_ended"
    outcome: Literal["done", "asked", "refused", "denied", "failed", "stopped"]
    done: list[str] = []
    """For a stopped turn: what had already happened, a sentence each."""
    latency_ms: float = 0


Happening = Annotated[
    UserSaid | Working | Words | PlanShown | Asked | Decided | CallStarted | CallEnded | Answered | TurnEnded,
    Field(discriminator="kind"),
]
happening: TypeAdapter[Happening] = TypeAdapter(Happening)


class Event(BaseModel):
    """One entry of the stream."""

    seq: int
    at: datetime
    thread: str
    body: Happening
