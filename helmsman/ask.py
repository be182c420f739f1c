"""`helmsman ask`: one request (or several turns, or a file of cases) without a chat, for scripts and evaluation.

    TEXT … ──► conversation ──► every plan is answered by --approve ──► answer, or JSON (schema 1)

What it prints on stdout and its exit codes are a contract (README.md); progress goes to stderr.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.client import Client
from cluster.models import AuditEntry, S
from helmsman.desk import Desk, open_desk
from helmsman.errors import BadConfig
from helmsman.events import (
    Answered,
    Asked,
    CallEnded,
    CallStarted,
    Event,
    PlanShown,
    TurnEnded,
    Working,
)
from helmsman.place import connect, simulate
from helmsman.session import Session
from helmsman.settings import Settings
from tools.views import View

if TYPE_CHECKING:
    from langchain_core.language_models.chat_models import BaseChatModel

    from cluster.simulator.world import World

Approve = Literal["never", "safe", "all"]
EXIT_CODES = {"done": 0, "asked": 3, "refused": 4, "failed": 5, "denied": 6, "stopped": 5}
FACE = "ask"


class CallReport(BaseModel):
    """One call, with its typed, linked, normalised arguments."""

    id: str
    tool: str
    arguments: dict[str, Any]
    risk: Literal["R", "W", "D"]
    status: Literal["done", "denied", "failed", "refused"]
    result: dict[str, Any]


class TurnReport(BaseModel):
    """One line and what came of it."""

    text: str
    calls: list[CallReport] = []
    answer: str = ""
    asks: bool = False
    refused: bool = False
    latency_ms: float = 0
    outcome: str = Field(default="done", exclude=True)
    views: list[View] = Field(default=[], exclude=True)
    choices: list[str] = Field(default=[], exclude=True)


class Changes(BaseModel):
    """The cluster's journal of what these turns changed, oldest first."""

    journal: list[AuditEntry] = []


class Report(BaseModel):
    """Schema 1."""

    schema_: int = Field(default=1, alias="schema", serialization_alias="schema")
    turns: list[TurnReport] = []
    state: Changes = Changes()


class Case(BaseModel):
    """One line of `-`: a conversation on a fresh copy of the scenario."""

    model_config = ConfigDict(extra="ignore")

    id: str | int
    turns: list[str] = Field(min_length=1)


@dataclass(frozen=True)
class Options:
    """The command's flags."""

    scenario: Path | None = None
    user: str | None = None
    approve: Approve = "never"
    as_json: bool = False


def exit_code(turns: Sequence[TurnReport]) -> int:
    """That of the first turn that did not go well; a question back that a later turn answered does not count."""
    codes = [EXIT_CODES.get(turn.outcome, 5) for turn in turns]
    return next((c for i, c in enumerate(codes) if c and not (c == 3 and i < len(codes) - 1)), 0)


async def converse(desk: Desk, texts: Sequence[str], approve: Approve, progress: Callable[[str], None]) -> Report:
    """All `texts` as turns of one new conversation."""
    session = await desk.open()
    before = await _journal(desk)
    report, seen = Report(), 0
    telling = asyncio.create_task(_tell(session, progress))
    for text in texts:
        turn, seen = await _turn(session, text, approve, seen)
        report.turns.append(turn)
        if desk.settle:
            await desk.settle()
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    known = {entry.id for entry in before}
    report.state.journal = [e for e in reversed(await _journal(desk)) if e.id not in known and e.result == "done"]
    return report


async def _journal(desk: Desk) -> list[AuditEntry]:
    return (await desk.cluster.audit(limit=200, user=desk.user)).items


async def _tell(session: Session, progress: Callable[[str], None]) -> None:
    """Say what is being done, while it is."""
    async for event in session.events():
        if isinstance(event.body, Working):
            progress(event.body.label)
        elif isinstance(event.body, CallStarted):
            progress(event.body.tool)


async def _turn(session: Session, text: str, approve: Approve, after: int) -> tuple[TurnReport, int]:
    """Send one line and answer its plans until the turn has ended."""
    started = time.perf_counter()
    report = TurnReport(text=text)
    await session.send(text, FACE)
    while True:
        plan: PlanShown | None = None
        async for event in session.events(after=after, follow=False):
            after = event.seq
            plan = event.body if isinstance(event.body, PlanShown) else None if _closes(event) else plan
            _note(event, report)
        if plan is None:
            break
        yes = approve == "all" or (approve == "safe" and all(call.risk != "D" for call in plan.calls))
        await session.decide(plan.question, plan.digest, "yes" if yes else "no", FACE)
    report.latency_ms = round((time.perf_counter() - started) * 1000, 1)
    return report, after


def _closes(event: Event) -> bool:
    return event.body.kind in ("decided", "turn_ended")


def _note(event: Event, report: TurnReport) -> None:
    """Put one event into the report."""
    body = event.body
    if isinstance(body, CallEnded):
        report.calls.append(_call(body))
        report.views.append(body.view)
    elif isinstance(body, Answered):
        report.answer = body.text
    elif isinstance(body, Asked):
        report.answer, report.choices, report.asks = body.text, body.choices, True
    elif isinstance(body, TurnEnded):
        report.outcome = body.outcome
        report.asks = report.asks or body.outcome == "asked"
        report.refused = body.outcome == "refused"


def _call(ended: CallEnded) -> CallReport:
    return CallReport(
        id=ended.id,
        tool=ended.tool,
        arguments=ended.arguments,
        risk=ended.risk,
        status=ended.status,
        result=ended.data,
    )


# ── the places ───────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def _desk(
    settings: Settings, client: Client, folder: Path, world: "World | None", model: "BaseChatModel | None"
) -> AsyncIterator[Desk]:
    """A desk on which `--approve` alone decides: approvals in advance are left out."""
    desk = await open_desk(settings.model_copy(update={"approvals": []}), client, folder, model)
    if world is not None:
        desk.settle, desk.timezone = world.settle, world.timezone
    elif settings.cluster.url is None:
        desk.workdir = os.getcwd()
    try:
        yield desk
    finally:
        await desk.close()


async def ask(settings: Settings, texts: Sequence[str], options: Options) -> int:
    """One conversation; prints it and gives the exit code. Raises `HelmsmanError`, `ClusterError`."""
    progress = _progress(sys.stderr)
    with tempfile.TemporaryDirectory(prefix="helmsman-ask-") as folder:
        async with (
            _place(settings, options) as (client, world),
            _desk(settings, client, Path(folder), world, None) as desk,
        ):
            report = await converse(desk, texts, options.approve, progress)
    if options.as_json:
        print(dump(report))  # noqa: T201 - stdout is this command's product
    else:
        _show(report)
    return exit_code(report.turns)


async def ask_cases(settings: Settings, lines: TextIO, options: Options) -> int:
    """`-`: one JSON line out for each case in, each on a fresh copy of the scenario; the model is loaded once.

    Gives 2 when a line was no case, else 0: how each case went stands in its line.
    """
    from helmsman.models import choose, close
    from tools.registry import default_registry

    if options.scenario is None:
        raise BadConfig(S("Cases from stdin need --scenario FILE: each runs on a fresh copy of it."))
    model, code = choose(settings, default_registry()), 0
    async with simulate(options.scenario, options.user) as (_, seeded):
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            case = _case(line, number)
            code = code if case else 2
            if case:
                print(await _run_case(settings, case, seeded, model, options), flush=True)  # noqa: T201
    await close(model)
    return code


async def _run_case(settings: Settings, case: Case, seeded: "World", model: "BaseChatModel", options: Options) -> str:
    world = await seeded.fork()
    client = world.client(options.user)
    try:
        with tempfile.TemporaryDirectory(prefix="helmsman-ask-") as folder:
            async with _desk(settings, client, Path(folder), world, model) as desk:
                report = await converse(desk, case.turns, options.approve, lambda _: None)
    finally:
        await client.close()
        await world.close()
    return dump(report, case.id)


def _case(line: str, number: int) -> Case | None:
    try:
        return Case.model_validate_json(line)
    except ValidationError as e:
        why = e.errors()[0]["msg"]
        print(f"line {number} is no case ({why})", file=sys.stderr)  # noqa: T201
        return None


@asynccontextmanager
async def _place(settings: Settings, options: Options) -> AsyncIterator[tuple[Client, "World | None"]]:
    """A cluster from the scenario, or the one that the settings name."""
    if options.scenario is None:
        async with connect(settings) as client:
            yield client, None
    else:
        async with simulate(options.scenario, options.user) as (client, world):
            yield client, world


# ── what is printed ──────────────────────────────────────────────────────────────────────────────


def dump(report: Report, case: str | int | None = None) -> str:
    """One line of JSON, schema 1; with the case's id first where there is one."""
    body = report.model_dump(mode="json", by_alias=True)
    return json.dumps(body if case is None else {"id": case, **body}, ensure_ascii=False)


def _show(report: Report) -> None:
    """For people: the views, and the answer where no view says it already."""
    from helmsman.render import render, standard_look

    look = standard_look()
    for turn in report.turns:
        shown = [render(view, look) for view in turn.views]
        if turn.answer and not any(turn.answer in text for text in shown):
            shown.append("\n".join([turn.answer, *(f"  {i}. {c}" for i, c in enumerate(turn.choices, 1))]))
        print("\n".join(shown))  # noqa: T201 - stdout is this command's product


def _progress(stream: TextIO) -> Callable[[str], None]:
    def say(label: str) -> None:
        print(f"{label} …", file=stream, flush=True)

    return say
