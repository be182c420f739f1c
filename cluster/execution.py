"""How an operation is carried out, alone with all its consequences or in a round with others, and its outcome."""

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster import consequences
from cluster.consequences import Before, People
from cluster.db.tables import KeyRow
from cluster.errors import ClusterError
from cluster.journal.chain import audit_id
from cluster.models import Effect, Operation, OperationRequest, Outcome, Reason, Resources, User
from cluster.operations import apply
from cluster.scheduler import Plan
from cluster.sentence import S
from cluster.transaction import Done, Refused, Transaction, reasons_of

if TYPE_CHECKING:
    from cluster.core import Core

WORDY = ("waits", "held", "delayed", "sooner")
"""Kinds of effects whose wording is not part of what a person agrees to."""
TOGETHER = ("start_session", "terminate_sessions", "cordon_node", "uncordon_node", "drain_node")
"""Operations that touch the ledger only, so that many can share a commit."""


class Execution:
    """What `POST /v1/operations` does."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    async def execute(self, user: User, request: OperationRequest) -> Outcome:
        """Do it, or with `dry_run` find out what it would do. A refusal is an outcome; nothing was changed then.

        What somebody wants to see first, or has seen, is done alone, and its outcome tells what becomes of others.
        """
        alone = request.dry_run or request.expect is not None or request.operation.op not in TOGETHER
        try:
            return await (self._alone(user, request) if alone else self._together(user, request))
        except Refused as e:
            return await self._refused(user, request, e.reasons)
        except ClusterError as e:
            return await self._refused(user, request, reasons_of(e), failed=e.status >= 500)
        except Exception:
            message = S("The server failed at this; its log says why.")
            await self._refused(user, request, [Reason(code="unavailable", message=message)], failed=True)
            raise

    async def _refused(
        self, user: User, request: OperationRequest, reasons: list[Reason], failed: bool = False
    ) -> Outcome:
        """The outcome, once it is in the journal."""
        if not request.dry_run:
            await self._core.refusals.note(user, request.operation, reasons, "failed" if failed else "refused")
        return _refusal(request, reasons)

    # ── in a round with others ───────────────────────────────────────────────────────────────────

    async def _together(self, user: User, request: OperationRequest) -> Outcome:
        async def work(tx: Transaction) -> Callable[[], Outcome]:
            if tx.known is not None:
                before = _as_before(tx.known, request)
                return lambda: before
            done = await apply(tx, request.operation)
            return lambda: self._own_outcome(tx, request, done)

        key = (user.name, request.key) if request.key else None
        return await self._core.writer.together(user, work, plans=True, key=key)

    def _own_outcome(self, tx: Transaction, request: OperationRequest, done: Done) -> Outcome:
        assert tx.decided is not None, "it asked for a pass"
        effects = list(done.effects)
        for session in done.sessions:
            effects += consequences.own(session, tx.decided, People(tx.ledger, tx.user), brief=self._core.crowded)
        return self._written(tx, request, done, _outcome(request, done, effects), tx.decided)

    # ── alone ────────────────────────────────────────────────────────────────────────────────────

    async def _alone(self, user: User, request: OperationRequest) -> Outcome:
        async def work(tx: Transaction) -> Callable[[], Outcome]:
            outcome = await self._whole(tx, request)
            return lambda: outcome

        return await self._core.writer.alone(user, work, dry_run=request.dry_run)

    async def _whole(self, tx: Transaction, request: OperationRequest) -> Outcome:
        """The operation, and the scheduler's plan before it against the plan after it."""
        if request.key and (known := await tx.db.get(KeyRow, (tx.user.name, request.key))):
            return _as_before(known.outcome, request)
        before = Before.of(self._core.outlook.plan(tx.now), tx.ledger)
        done = await apply(tx, request.operation)
        after = self._core.outlook.plan(tx.now)
        effects = self._effects(tx, done, before, after)
        left = None
        if done.sessions:
            left = consequences.quota_left(tx.ledger, self._core.directory, after, done.sessions[0])
        outcome = _outcome(request, done, effects, left)
        outcome.digest = _digest(request.operation, effects)
        if request.expect is not None and request.expect != outcome.digest:
            message = S("Things have changed since the plan was shown; look at it again.")
            raise Refused(Reason(code="state_changed", message=message))
        decided = self._core.outlook.plan(tx.now)  # the same: looking at what could be has made `after` unreadable
        tx.carry_out(decided)
        return self._written(tx, request, done, outcome, decided)

    def _effects(self, tx: Transaction, done: Done, before: Before, after: Plan) -> list[Effect]:
        people = People(tx.ledger, tx.user)
        effects = list(done.effects)
        for session in done.sessions:
            effects += consequences.own(session, after, people)
        effects += consequences.give_way(before, after, people)
        start, again = after.start, consequences.queued_again(tx.ledger, before)
        estimated = self._core.outlook.estimated_without(again, tx.now) if again else after.estimated
        mine = {session.id for session in done.sessions} | again
        effects += consequences.others(before, start, estimated, people, mine)
        return effects + consequences.once_stopped(before, self._core.outlook, tx.now, people)

    # ── both ─────────────────────────────────────────────────────────────────────────────────────

    def _written(self, tx: Transaction, request: OperationRequest, done: Done, outcome: Outcome, plan: Plan) -> Outcome:
        """`outcome` complete, with its row in the journal and under its key."""
        draft, operation = self._core.draft, request.operation
        if done.sessions:
            outcome.session = self._core.shown(tx.user, done.sessions[0], plan)
        told = operation.model_dump_json()
        number = draft.audit(tx.now, tx.user.name, operation.op, told, done.targets, done.inverse)
        if done.undoes is not None:
            done.undoes.undone_by = number
        outcome.audit_id = audit_id(number)
        if request.key:
            draft.key(tx.user.name, request.key, outcome.model_dump_json(), tx.now)
        return outcome


def _outcome(request: OperationRequest, done: Done, effects: list[Effect], left: Resources | None = None) -> Outcome:
    return Outcome(
        operation=request.operation,
        dry_run=request.dry_run,
        effects=effects,
        warnings=done.warnings,
        quota_left=left,
        undo=done.undo,
        made=done.made,
    )


def _refusal(request: OperationRequest, reasons: list[Reason]) -> Outcome:
    return Outcome(operation=request.operation, dry_run=request.dry_run, refused=reasons)


def _as_before(known: str, request: OperationRequest) -> Outcome:
    """The outcome that this key had, given as JSON; refused when it was of something else."""
    outcome = Outcome.model_validate_json(known)
    if outcome.operation != request.operation:
        message = S("The key {key} belongs to another operation; nothing was done.", key=request.key or "")
        raise Refused(Reason(code="conflict", message=message))
    return outcome


def _digest(operation: Operation, effects: list[Effect]) -> str:
    """Of what a person agreed to: the operation and its effects, without those that move with the clock only.

    Who waits counts, but not in which words: how much is short changes all the time, and the answer stays the same.
    """
    told = [(e.kind, e.target, "" if e.kind in WORDY else str(e.message)) for e in effects if e.stable]
    text = json.dumps([operation.model_dump(mode="json"), list(dict.fromkeys(told))], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
