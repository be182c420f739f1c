"""One table of a session's states and what may follow; the only place where a state is set.

Every state in between has a time limit and a way out, so that nothing is stuck in it.
"""

from dataclasses import dataclass
from datetime import datetime

from cluster.errors import Conflict
from cluster.live import LiveSession
from cluster.models import SessionResult, SessionState
from cluster.sentence import S, Sentence

State = SessionState


@dataclass(frozen=True)
class Stage:
    """`words`: what people say. `limit`: seconds after which it goes to `then` (None: it waits for something named)."""

    words: str
    follows: frozenset[State]
    limit: float | None = None
    then: State | None = None


def _to(*states: State) -> frozenset[State]:
    return frozenset(states)


STAGES: dict[State, Stage] = {
    State.HELD: Stage("held back by a quota or a dependency", _to(State.PENDING, State.SCHEDULED, State.CANCELLED)),
    State.PENDING: Stage("waiting for room", _to(State.HELD, State.SCHEDULED, State.CANCELLED)),
    State.SCHEDULED: Stage(
        "given its place",
        _to(State.PREPARING, State.RUNNING, State.PENDING, State.TERMINATING, State.TERMINATED, State.ERROR),
        limit=120,
        then=State.PENDING,
    ),
    State.PREPARING: Stage(
        "being set up on its node",
        _to(State.RUNNING, State.TERMINATING, State.TERMINATED, State.ERROR),
        limit=600,
        then=State.ERROR,
    ),
    State.RUNNING: Stage("running", _to(State.TERMINATING, State.TERMINATED, State.ERROR)),
    State.TERMINATING: Stage(
        "being stopped", _to(State.PENDING, State.TERMINATED, State.ERROR), limit=300, then=State.ERROR
    ),
    State.TERMINATED: Stage("ended", _to()),
    State.ERROR: Stage("failed", _to()),
    State.CANCELLED: Stage("cancelled before it ran", _to(State.PENDING)),
}

WAITING = _to(State.HELD, State.PENDING)
HOLDING = _to(State.SCHEDULED, State.PREPARING, State.RUNNING, State.TERMINATING)
"""Those that hold resources."""
LIVE = WAITING | HOLDING
ENDED = _to(State.TERMINATED, State.ERROR, State.CANCELLED)


def move(row: LiveSession, to: State, now: datetime, result: SessionResult | None = None) -> Sentence:
    """Set `row`'s state and its times; returns the event's sentence, or raises `Conflict`."""
    came_from = State(row.state)
    if to not in STAGES[came_from].follows:
        raise Conflict(S("{name} is {state}; it can't become {to}.", name=row.name, state=came_from.value, to=to.value))
    row.state, row.state_since = to.value, now
    if to is State.RUNNING:
        row.started = row.started or now
    if to in ENDED:
        row.ended = now
        row.result = result.value if result else row.result or _result_of(to).value
        row.utilization = None
    if to in WAITING:
        row.started = row.ended = row.result = row.exit_code = None
    return S("{name} went from {before} to {after}.", name=row.name, before=came_from.value, after=to.value)


def _result_of(state: State) -> SessionResult:
    return {State.CANCELLED: SessionResult.CANCELLED, State.ERROR: SessionResult.FAILURE}.get(
        state, SessionResult.SUCCESS
    )


def overdue(row: LiveSession, now: datetime) -> State | None:
    """Where a session goes that was too long in a state in between; None when it wasn't."""
    stage = STAGES[State(row.state)]
    if stage.limit is None or (now - row.state_since).total_seconds() <= stage.limit + row.grace:
        return None
    return stage.then


def table() -> str:
    """The states as a Markdown table; the README holds it, and a test holds the README to it."""
    lines = ["| state | means | may become | at most | then |", "|---|---|---|---|---|"]
    for state, stage in STAGES.items():
        follows = ", ".join(s.value for s in State if s in stage.follows) or "-"
        limit = f"{stage.limit:.0f} s" if stage.limit else "-"
        lines.append(
            f"| {state.value} | {stage.words} | {follows} | {limit} | {stage.then.value if stage.then else '-'} |"
        )
    return "\n".join(lines)
