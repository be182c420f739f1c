"""Runs and steps as rows: read as what `moves` judges, and its moves carried out inside a transaction.

A step's row and its session change in the same commit, so that a crash neither starts a step twice nor loses one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select

from cluster import records
from cluster.db.tables import RunRow, StepRow
from cluster.lifecycle import WAITING
from cluster.live import LiveSession
from cluster.models import PipelineSpec, Reason, RunState, SessionResult, SessionState, StepState, User
from cluster.operations import sessions
from cluster.pipelines import filling, lifecycle
from cluster.pipelines.moves import Begin, Finish, Move, Settle, Step, Stop, Work
from cluster.sentence import S
from cluster.transaction import Done, Refused, Transaction

GRACE = 10.0


@dataclass(frozen=True, slots=True)
class Run:
    """A run with its steps, as they are written."""

    row: RunRow
    spec: PipelineSpec
    rows: dict[str, StepRow]

    @classmethod
    def of(cls, row: RunRow, rows: Iterable[StepRow]) -> "Run":
        return cls(row, PipelineSpec.model_validate(row.spec), {each.step: each for each in rows})

    @property
    def state(self) -> RunState:
        return RunState(self.row.state)

    def steps(self) -> list[Step]:
        """In the order of the definition."""
        return [self._step(i) for i in range(len(self.spec.steps))]

    def _step(self, i: int) -> Step:
        told = self.spec.steps[i]
        row = self.rows[told.name]
        return Step(
            name=told.name,
            state=StepState(row.state),
            since=row.state_since,
            after=tuple(told.after),
            tries=row.tries,
            retries=told.retries,
            delay=told.retry_delay,
            may_fail=told.may_fail,
            left_out=filling.left_out(self.spec, told, self.row.parameters),
            session=row.session,
            reasons=tuple(Reason.model_validate(reason) for reason in row.reasons),
        )


async def load(tx: Transaction, ident: str) -> Run | None:
    """A run as it is now, to be changed."""
    row = await tx.db.get(RunRow, ident)
    if row is None:
        return None
    return Run.of(row, await tx.db.scalars(select(StepRow).where(StepRow.run == ident).order_by(StepRow.place)))


async def carry_out(tx: Transaction, run: Run, moves: Sequence[Move], done: Done | None = None) -> Done:
    """Do all of it. `tx.user` is who asks; sessions begin in the name of the run's user.

    Raises `Refused` or a `ClusterError` when a session can't be started.
    """
    done = done or Done(effects=[], targets=[])
    for move in moves:
        match move:
            case Begin(step):
                await _begin(tx, run, run.rows[step], done)
            case Settle():
                _settle(tx, run, run.rows[move.step], move, done)
            case Stop(step):
                _stop(tx, run.rows[step], done)
            case Finish():
                _finish(tx, run, move)
    return done


async def _begin(tx: Transaction, run: Run, row: StepRow, done: Done) -> None:
    op = ask(tx, run, row.step)
    await tx.core.idents.stock(1)
    name = tx.ledger.free_name(f"{run.spec.name}-{row.step}"[:90])
    made = await sessions.start(as_user(tx, run.row.user), op.model_copy(update={"name": name}))
    lifecycle.move_step(row, StepState.RUNNING, tx.now)
    row.session, row.tries = made.sessions[0].id, row.tries + 1
    done.sessions += made.sessions
    done.warnings += [warning for warning in made.warnings if warning not in done.warnings]


def ask(tx: Transaction, run: Run, step: str) -> Any:
    """The session that a step asks for. `Refused` when its parameters don't make one."""
    told = next(each for each in run.spec.steps if each.name == step)
    row = run.row
    try:
        return filling.request(row.id, row.project, run.spec, told, row.parameters, tx.core.simulated)
    except filling.Unfilled as e:
        raise Refused(e.reason) from e


def as_user(tx: Transaction, name: str) -> Transaction:
    """The same transaction, for what is done in the name of the run's user. `Refused` when they can't act any more."""
    if name == tx.user.name:
        return tx
    return replace(tx, user=active(tx, name))


def active(tx: Transaction, name: str) -> User:
    user = tx.core.directory.users.get(name)
    if user is None or not user.active:
        raise Refused(inactive(name))
    return user


def inactive(name: str) -> Reason:
    message = S("{user} is not active here any more; nothing can run in their name.", user=name)
    return Reason(code="not_allowed", message=message)


def _settle(tx: Transaction, run: Run, row: StepRow, move: Settle, done: Done) -> None:
    lifecycle.move_step(row, move.to, tx.now)
    row.reasons = [reason.model_dump(mode="json") for reason in move.reasons]
    session = tx.ledger.sessions.get(row.session or "")
    if move.stop and session is not None and session.state in WAITING:
        tx.edit(session).reasons = row.reasons
        tx.move(session, SessionState.CANCELLED)
    if move.to is StepState.FAILED:
        said = S("Step {step} of {run} ({pipeline}) failed.", step=row.step, run=row.run, pipeline=run.spec.name)
        tx.event("step_failed", run.spec.name, said, "error", owner=run.row.user, project=run.row.project)


def _stop(tx: Transaction, row: StepRow, done: Done) -> None:
    session = tx.ledger.sessions.get(row.session or "")
    if session is not None and not stopping(session):
        sessions.stop(tx, session, GRACE, done)


def stopping(session: LiveSession) -> bool:
    """It is on its way to its end, and will not come back."""
    return session.state == SessionState.TERMINATING and not session.requeue


def _finish(tx: Transaction, run: Run, move: Finish) -> None:
    lifecycle.move_run(run.row, move.to, tx.now)
    run.row.reasons = [reason.model_dump(mode="json") for reason in move.reasons]
    words = {"run": run.row.id, "pipeline": run.spec.name}
    said = {
        RunState.SUCCEEDED: S("Run {run} of {pipeline} has succeeded.", **words),
        RunState.FAILED: S("Run {run} of {pipeline} has failed.", **words),
        RunState.CANCELLED: S("Run {run} of {pipeline} is cancelled.", **words),
    }[move.to]
    bad = move.to is RunState.FAILED
    severity = "error" if bad else "info"
    tx.event(f"run_{move.to.value}", run.spec.name, said, severity, owner=run.row.user, project=run.row.project)


def work(session: LiveSession) -> Work:
    """What `moves` wants to know of a session."""
    ended = session.ended is not None
    return Work(
        name=session.name,
        ended=ended,
        result=SessionResult(session.result) if ended and session.result else None,
        exit_code=session.exit_code,
        stopping=stopping(session),
        reasons=tuple(records.session(session).reasons) if ended else (),
    )
