"""What is to be done about a run now: pure, from what is written of it and of its sessions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from cluster.models import Reason, RunState, SessionResult, StepState
from cluster.pipelines.lifecycle import RUN, STEP_ENDED
from cluster.sentence import S

State = StepState


@dataclass(frozen=True, slots=True)
class Step:
    """A step as it is written, with what its definition says of its place among the others."""

    name: str
    state: StepState
    since: datetime
    after: tuple[str, ...] = ()
    tries: int = 0
    retries: int = 0
    delay: float = 0.0
    may_fail: bool = False
    left_out: bool = False
    """Its `when` is false."""
    session: str | None = None
    reasons: tuple[Reason, ...] = ()

    @property
    def lets_go_on(self) -> bool:
        """Those after it may begin. Left out by its definition it has no reasons; for another's failure it has."""
        passed_over = self.left_out and self.state is State.SKIPPED and not self.reasons
        return self.state is State.SUCCEEDED or passed_over or (self.may_fail and self.state is State.FAILED)

    @property
    def settled(self) -> bool:
        return self.state in STEP_ENDED

    @property
    def next_try(self) -> datetime:
        """Not before this."""
        return self.since + timedelta(seconds=self.delay) if self.tries else self.since


@dataclass(frozen=True, slots=True)
class Work:
    """A step's session. `never`: why it could not start any more, of one that waits."""

    name: str
    ended: bool
    result: SessionResult | None = None
    exit_code: int | None = None
    stopping: bool = False
    never: tuple[Reason, ...] = ()
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Begin:
    """Start its session."""

    step: str


@dataclass(frozen=True, slots=True)
class Settle:
    """The step's next state; `stop`: its session, which waits, is taken out of the queue at the same time."""

    step: str
    to: StepState
    reasons: tuple[Reason, ...] = ()
    stop: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Have its session stopped."""

    step: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The run has come to its end."""

    to: RunState
    reasons: tuple[Reason, ...] = ()


Move = Begin | Settle | Stop | Finish


def next_moves(
    state: RunState, since: datetime, steps: Sequence[Step], sessions: Mapping[str, Work], now: datetime
) -> list[Move]:
    """Everything that can be done at once. `sessions` by id; one that is missing there is gone for good.

    Settlements come before beginnings, so that what follows from them is seen at the next look.
    """
    if state is RunState.CANCELLING:
        return _cancelling(since, steps, sessions, now)
    if state is not RunState.RUNNING:
        return []
    if settled := [each for step in steps if (each := _settled(step, sessions))]:
        return [*settled]
    by_name = {step.name: step for step in steps}
    moves = [move for step in steps if step.state is State.WAITING and (move := _waits(step, by_name, now))]
    if moves or not all(step.settled for step in steps):
        return moves
    return [_finish(steps)]


def next_look(state: RunState, since: datetime, steps: Sequence[Step]) -> list[datetime]:
    """When time alone will bring a move: the next tries, and the end of patience with a cancelled run."""
    limit = RUN[state].limit
    if limit is not None:
        return [since + timedelta(seconds=limit)]
    return [step.next_try for step in steps if step.state is State.WAITING and step.tries]


# ── while it runs ────────────────────────────────────────────────────────────────────────────────


def _settled(step: Step, sessions: Mapping[str, Work]) -> Settle | None:
    """What the session of a running step says of it."""
    if step.state is not State.RUNNING:
        return None
    work = sessions.get(step.session or "")
    if work is None:
        gone = S("The session of {step} is not there any more.", step=step.name)
        return Settle(step.name, State.FAILED, (Reason(code="unavailable", message=gone),))
    if not work.ended:
        return Settle(step.name, State.FAILED, work.never, stop=True) if work.never else None
    if work.result is SessionResult.SUCCESS:
        return Settle(step.name, State.SUCCEEDED)
    again = step.tries <= step.retries and work.result is not SessionResult.CANCELLED
    return Settle(step.name, State.WAITING if again else State.FAILED, _why(step, work))


def _why(step: Step, work: Work) -> tuple[Reason, ...]:
    """Why its session did not succeed, and where its last lines are."""
    words = {"step": step.name, "session": work.name}
    if work.result is SessionResult.CANCELLED:
        said = S("Step {step}: its session {session} was stopped by hand.", **words)
    elif work.result is SessionResult.LOST:
        said = S("Step {step}: its session {session} was lost with its node.", **words)
    elif work.exit_code is None:
        said = S("Step {step}: its session {session} failed.", **words)
    else:
        said = S(
            "Step {step} failed with exit code {code}; its last lines are in the log of {session}.",
            code=work.exit_code,
            **words,
        )
    code: Literal["conflict", "unavailable"] = "conflict" if work.result is SessionResult.CANCELLED else "unavailable"
    return (Reason(code=code, message=said), *work.reasons)


def _waits(step: Step, by_name: Mapping[str, Step], now: datetime) -> Move | None:
    """Begin it, or leave it out because one before it did not succeed."""
    before = [by_name[name] for name in step.after]
    if all(other.lets_go_on for other in before):
        if step.left_out:
            return Settle(step.name, State.SKIPPED)
        return Begin(step.name) if step.next_try <= now else None
    blocked = next((other for other in before if other.settled and not other.lets_go_on), None)
    if blocked is None:
        return None
    said = S("Step {step} is left out, because {other} did not succeed.", step=step.name, other=blocked.name)
    return Settle(step.name, State.SKIPPED, (Reason(code="dependency", message=said),))


def _finish(steps: Sequence[Step]) -> Finish:
    failed = [step for step in steps if step.state is State.FAILED and not step.may_fail]
    if not failed:
        return Finish(RunState.SUCCEEDED)
    return Finish(RunState.FAILED, tuple(reason for step in failed[:5] for reason in step.reasons[:2]))


# ── while it is being cancelled ──────────────────────────────────────────────────────────────────


def _cancelling(since: datetime, steps: Sequence[Step], sessions: Mapping[str, Work], now: datetime) -> list[Move]:
    late = now >= since + timedelta(seconds=RUN[RunState.CANCELLING].limit or 0)
    moves = [move for step in steps if not step.settled and (move := _called_off(step, sessions, late))]
    if moves or not all(step.settled for step in steps):
        return moves
    odd = tuple(reason for step in steps if step.state is State.CANCELLED for reason in step.reasons)
    return [Finish(RunState.CANCELLED, odd[:5])]


def _called_off(step: Step, sessions: Mapping[str, Work], late: bool) -> Move | None:
    if step.state is State.WAITING:
        return Settle(step.name, State.CANCELLED)
    work = sessions.get(step.session or "")
    if work is None or work.ended:
        fine = work is not None and work.result is SessionResult.SUCCESS
        return Settle(step.name, State.SUCCEEDED if fine else State.CANCELLED)
    if late:
        said = S("Nobody said in time that the session {session} has ended.", session=work.name)
        return Settle(step.name, State.CANCELLED, (Reason(code="unavailable", message=said),))
    return None if work.stopping else Stop(step.name)
