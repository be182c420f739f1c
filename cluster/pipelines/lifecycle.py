"""One table each of what a run and a step of it may become; the only place where their states are set."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from cluster.db.tables import RunRow, StepRow
from cluster.errors import Conflict
from cluster.models import RunState, StepState
from cluster.sentence import S

T = TypeVar("T", RunState, StepState)
CANCELLING_FOR = 900.0
"""Seconds that a cancelled run waits for its sessions to end; theirs end within 310 s unless their node is lost."""


@dataclass(frozen=True)
class Stage(Generic[T]):
    """`words`: what people say. `limit`: seconds after which it goes to `then` (None: it waits for something named)."""

    words: str
    follows: frozenset[T]
    limit: float | None = None
    then: T | None = None


R, P = RunState, StepState
RUN: dict[RunState, Stage[RunState]] = {
    R.RUNNING: Stage("its steps are carried out", frozenset({R.CANCELLING, R.SUCCEEDED, R.FAILED, R.CANCELLED})),
    R.CANCELLING: Stage("its steps are being stopped", frozenset({R.CANCELLED}), CANCELLING_FOR, R.CANCELLED),
    R.SUCCEEDED: Stage("all steps succeeded, or were allowed to fail", frozenset()),
    R.FAILED: Stage("a step failed", frozenset({R.RUNNING})),
    R.CANCELLED: Stage("ended because somebody wanted it", frozenset({R.RUNNING})),
}
STEP: dict[StepState, Stage[StepState]] = {
    P.WAITING: Stage("waits for the steps before it, or for its next try",
                     frozenset({P.RUNNING, P.FAILED, P.SKIPPED, P.CANCELLED})),
    P.RUNNING: Stage("has a session, which waits or runs",
                     frozenset({P.WAITING, P.SUCCEEDED, P.FAILED, P.CANCELLED})),
    P.SUCCEEDED: Stage("its session ended with success", frozenset()),
    P.FAILED: Stage("it could not be started, or its last try failed", frozenset({P.WAITING})),
    P.SKIPPED: Stage("left out, or a step before it did not succeed", frozenset({P.WAITING})),
    P.CANCELLED: Stage("its run was cancelled", frozenset({P.WAITING})),
}  # fmt: skip

RUN_ENDED = frozenset({R.SUCCEEDED, R.FAILED, R.CANCELLED})
STEP_ENDED = frozenset({P.SUCCEEDED, P.FAILED, P.SKIPPED, P.CANCELLED})


def move_run(row: RunRow, to: RunState, now: datetime) -> None:
    """Set the run's state and its times. `Conflict` when that may not follow."""
    _check(RUN, RunState(row.state), to, row.id)
    row.state, row.state_since = to.value, now
    row.ended = now if to in RUN_ENDED else None


def move_step(row: StepRow, to: StepState, now: datetime) -> None:
    """Set the step's state. `Conflict` when that may not follow."""
    _check(STEP, StepState(row.state), to, row.step)
    row.state, row.state_since = to.value, now


def _check(table: Mapping[T, Stage[T]], now: T, to: T, name: str) -> None:
    if to not in table[now].follows:
        raise Conflict(S("{name} is {state}; it can't become {to}.", name=name, state=now.value, to=to.value))


def table() -> str:
    """Both tables as Markdown; the README holds them, and a test holds the README to them."""
    return "\n\n".join((_markdown("run", RUN), _markdown("step", STEP)))


def _markdown(what: str, stages: Mapping[T, Stage[T]]) -> str:
    lines = [f"| {what} | means | may become | at most | then |", "|---|---|---|---|---|"]
    for state, stage in stages.items():
        follows = ", ".join(s.value for s in stages if s in stage.follows) or "-"
        limit, then = (f"{stage.limit:.0f} s" if stage.limit else "-"), (stage.then.value if stage.then else "-")
        lines.append(f"| {state.value} | {stage.words} | {follows} | {limit} | {then} |")
    return "\n".join(lines)
