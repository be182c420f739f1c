"""What one turn knows, from the line to the answer: plain data that the checkpointer keeps as JSON."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.models import Reason
from helmsman.events import Decision
from tools.views import Plan

Status = Literal["done", "denied", "failed", "refused"]
Outcome = Literal["done", "asked", "refused", "denied", "failed", "stopped"]
Language = Literal["en", "ko"]


class _Kept(BaseModel):
    """Base of what is kept: an unknown key is an error, so that a checkpoint of another version is noticed."""

    model_config = ConfigDict(extra="forbid")


class Call(_Kept):
    """One call, from the model's wish to its result."""

    id: str
    """Made by code, never by a model: an approval and an idempotency key hang on it."""
    tool: str
    said: dict[str, Any]
    """The arguments as the model (or an editing person) said them."""
    arguments: dict[str, Any] = {}
    """Typed and linked."""
    risk: Literal["R", "W", "D"] = "R"
    ready: bool = False
    """Linked and, for W and D, previewed."""
    plan: Plan | None = None
    digest: str = ""
    """Of the previewed effects: what the cluster is told to expect."""
    tries: int = 0
    """How often it was planned anew, since the world moved or it was edited; part of its idempotency key."""
    status: Status | None = None
    data: dict[str, Any] = {}
    answer: str = ""
    rows: list[str] = []
    rows_of: str | None = None
    reasons: list[Reason] = []
    audit_id: str | None = None

    @property
    def key(self) -> str:
        """The idempotency key: a second run with the same key does nothing."""
        return f"{self.id}.{self.tries}"


class Step(_Kept):
    """One answer of the model: words, calls, or both; or a decision (`ask`, `refuse`, `talk`)."""

    words: str = ""
    calls: list[Call] = []
    decision: str | None = None
    decision_arguments: dict[str, Any] = {}


class Exchange(_Kept):
    """A line of the person and what came of it: the memory that later turns speak of."""

    user: str
    steps: list[Step] = []


class Question(_Kept):
    """The open plan of this turn."""

    id: str
    digest: str
    automatic: bool = False


class Given(_Kept):
    """A person's decision as it reaches the graph; it comes from `Session.decide` only."""

    question: str
    digest: str
    decision: Decision
    comment: str | None = None
    edited: dict[str, dict[str, Any]] | None = None
    face: str


class Asking(_Kept):
    """A question back: what is missing, and the calls that wait for it."""

    text: str
    choices: list[str] = []
    tool: str
    argument: str
    calls: list[Call] = []
    """The request as far as it is understood; the answer goes into the call `waiting`."""
    waiting: int = 0
    confirm: bool = False
    """A guess that the person only has to confirm."""
    language: Language = "en"
    """That of the line which led here: an answer like "2" has none of its own."""


class Picked(_Kept):
    """What the person chose when a model had asked for one argument: the next call has to hold it."""

    tool: str
    argument: str
    value: str


class Turn(_Kept):
    """The present turn."""

    id: str
    language: Language
    exchange: Exchange
    rounds: int = 0
    """How often the model was asked."""
    plans: int = 0
    """How many plans were shown; numbers the questions."""
    moved: bool = False
    question: Question | None = None
    given: Given | None = None
    asking: Asking | None = None
    answer: str = ""
    outcome: Outcome | None = None
    picked: Picked | None = None
    preset: bool = Field(default=False)
    """The calls are there already (a picked choice): no model is asked first."""

    @property
    def calls(self) -> list[Call]:
        """The calls of the model's last answer."""
        return self.exchange.steps[-1].calls if self.exchange.steps else []

    @property
    def waiting(self) -> list[Call]:
        """Those that have not ended."""
        return [c for c in self.calls if c.status is None]

    @property
    def planned(self) -> list[Call]:
        """Those that are linked and previewed: what a person says yes to."""
        return [c for c in self.waiting if c.ready]

    @property
    def all_calls(self) -> list[Call]:
        """Every call of the turn, in order."""
        return [c for step in self.exchange.steps for c in step.calls]
