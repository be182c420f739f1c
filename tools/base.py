"""What a tool is: a name, a risk, typed arguments, and what it does with them.

A new tool is one class in one file: a reading tool has `run`, an operating one has `operation`. See README.md.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue

from cluster.client import Client
from cluster.errors import ClusterError
from cluster.models import Names, Operation, Outcome, Reason, Sentence
from tools.views import Plan, View

A = TypeVar("A", bound="Arguments")


class Risk(StrEnum):
    """R reads. W changes what can be put back. D destroys or interrupts somebody's work."""

    R = "R"
    W = "W"
    D = "D"


class Arguments(BaseModel):
    """Base of every tool's arguments, linked and normalised: names as they exist, sizes as canonical strings."""

    model_config = ConfigDict(extra="forbid")

    def given(self) -> dict[str, JsonValue]:
        """The arguments that were given, none of the defaults: what is shown, journalled and evaluated."""
        said = self.model_dump(mode="json", exclude_unset=True)
        return {key: int(v) if isinstance(v, float) and v.is_integer() else v for key, v in said.items()}


@dataclass(frozen=True)
class Context:
    """Everything a tool may know of the moment: who asks, when, in which language, of which cluster."""

    client: Client
    user: str
    now: datetime
    """The cluster's time, aware, in the time zone that people there mean."""
    names: Names
    language: Literal["en", "ko"]
    say: Callable[[Sentence], str]
    """Put a sentence into the reader's language."""
    workdir: str | None = None
    """Where the person stands, when node and person share a machine."""


class Result(BaseModel):
    """What came of a call, in two dresses: `data` for the model (compact, bounded), `view` for people."""

    status: Literal["done", "refused", "failed"]
    data: dict[str, JsonValue]
    view: View
    answer: str
    """One sentence in the reader's language that says it, made from the result by code."""
    rows: list[str] = []
    """Names of the listed things, in the order shown: what "the second one" points into."""
    rows_of: str | None = None
    """The argument that such a name would be: "session", "node", "folder" …"""
    reasons: list[Reason] = []
    """Structured, when refused or failed."""
    audit_id: str | None = None


class Card(BaseModel):
    """A previewed call: what people see (`plan`) and what approval is bound to (`digest`).

    Refused: `refusal` says why, and there is nothing to approve.
    """

    plan: Plan | None
    digest: str
    refusal: Result | None = None


class Tool(ABC, Generic[A]):
    """One typed operation. The docstring of the class is its description for models and people."""

    name: ClassVar[str]
    risk: ClassVar[Risk]
    arguments: type[A]
    rows_of: ClassVar[str | None] = None
    """The argument that a name in its result would be: "session", "node" …"""

    async def run(self, ctx: Context, args: A, *, key: str | None = None, expect: str | None = None) -> Result:
        """Do it; an error of the cluster becomes a result. `key` makes a second run harmless, `expect` (from `preview`)
        refuses if the world moved."""
        from tools.outcome import failure

        try:
            return await self.perform(ctx, args, key, expect)
        except ClusterError as error:
            return failure(ctx, error)

    @abstractmethod
    async def perform(self, ctx: Context, args: A, key: str | None, expect: str | None) -> Result:
        """The doing itself; raises `ClusterError`."""

    async def preview(self, ctx: Context, args: A) -> Card | None:
        """What it would do, for W and D; None for R."""
        return None

    def wants(self, ctx: Context, given: Mapping[str, Any]) -> str | None:
        """An argument that these linked ones still need, though the schema does not demand it; it is asked for."""
        return None

    def schema(self) -> dict[str, Any]:
        """JSON schema of the arguments, for models that read one."""
        return self.arguments.model_json_schema()


class ReadingTool(Tool[A]):
    """An R tool: it looks and tells."""

    risk = Risk.R

    @abstractmethod
    async def read(self, ctx: Context, args: A) -> Result:
        """Look; raises `ClusterError`."""

    async def perform(self, ctx: Context, args: A, key: str | None, expect: str | None) -> Result:
        return await self.read(ctx, args)


class OperationTool(Tool[A]):
    """A W or D tool: one cluster operation, previewed and carried out by the same code."""

    @abstractmethod
    def operation(self, ctx: Context, args: A) -> Operation:
        """The cluster operation that these arguments mean."""

    @abstractmethod
    def title(self, ctx: Context, args: A, outcome: Outcome) -> Sentence:
        """What it would do, as one sentence: "Start bert-tune: 2 cores, 4 GiB"."""

    @abstractmethod
    def done(self, ctx: Context, args: A, outcome: Outcome) -> Sentence:
        """What it did, as one sentence: "bert-tune runs on a100-03."."""

    async def preview(self, ctx: Context, args: A) -> Card | None:
        from tools.outcome import card, failure, longest_run

        try:
            outcome = await ctx.client.preview(self.operation(ctx, args))
            longest = await longest_run(ctx, outcome) if self.risk is Risk.D else 0
        except ClusterError as error:
            return Card(plan=None, digest="", refusal=failure(ctx, error))
        return card(ctx, self, args, outcome, longest)

    async def perform(self, ctx: Context, args: A, key: str | None, expect: str | None) -> Result:
        from tools.outcome import result

        outcome = await ctx.client.execute(self.operation(ctx, args), key=key, expect=expect)
        return result(ctx, self, args, outcome)
