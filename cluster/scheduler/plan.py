"""What a pass decided. Who waits and why is worked out when somebody asks."""

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property

from cluster.models import Reason
from cluster.scheduler.board import Board, Started
from cluster.scheduler.explain import Brief, Waiting, explain, held_ids
from cluster.scheduler.queue import Bucket
from cluster.scheduler.state import Placement


class Plan:
    """`plan`'s answer. Every waiting session is in exactly one of `start`, `wait` and `hold`.

    All but `start` and `preempt` is worked out when it is asked for: ask before the board changes.
    """

    def __init__(
        self,
        board: Board,
        now: datetime,
        started: tuple[Started, ...],
        preempt: dict[str, Reason],
        over: tuple[Bucket, ...] = (),
    ) -> None:
        """`over`: buckets that found their quota used up."""
        self._over = over
        self._board, self._now, self._version = board, now, board.version
        self.started = started
        self.preempt: Mapping[str, Reason] = preempt
        """Running session's id -> why it has to be stopped with grace and queued again."""

    @cached_property
    def start(self) -> Mapping[str, tuple[Placement, ...]]:
        """Session id -> its ranks in order."""
        room = self._board.room
        return {
            each.request.id: tuple(room.placement(each.bucket.wish.need, spot) for spot in each.spots)
            for each in self.started
        }

    @property
    def wait(self) -> Mapping[str, tuple[Reason, ...]]:
        """Stays (or becomes) PENDING: nothing free, someone is ahead, too early …"""
        return self._waiting.wait

    @property
    def hold(self) -> Mapping[str, tuple[Reason, ...]]:
        """HELD by quota or dependency."""
        return self._waiting.hold

    @property
    def estimated(self) -> Mapping[str, datetime]:
        """Session id -> earliest start, where known time limits allow to tell."""
        return self._waiting.estimated

    def why(self, ident: str) -> tuple[Reason, ...]:
        """Why one session waits or is held, without who is ahead of it, so that it is cheap however many wait."""
        self._current()
        return self._brief.why(ident)

    @cached_property
    def _brief(self) -> Brief:
        return Brief(self._current(), self.started)

    @cached_property
    def held(self) -> frozenset[str]:
        """Ids of those in `hold`, without their reasons, so that it is cheap however many wait.

        Of a cohort whose quota is used up, only those that had their turn in the pass.
        """
        return held_ids(self._current(), self.started, self._over)

    @cached_property
    def _waiting(self) -> Waiting:
        return explain(self._current(), self._now, self.started)

    def _current(self) -> Board:
        if self._board.version != self._version:
            raise RuntimeError("the board has changed since this plan was made; ask it for reasons before that")
        return self._board
