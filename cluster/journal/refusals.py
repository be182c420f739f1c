"""What was refused, or failed, is a row of the journal too; a flood of refusals does not fill the disk."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import structlog

from cluster.errors import ClusterError
from cluster.models import Operation, Reason, UploadFile, User
from cluster.transaction import Transaction

if TYPE_CHECKING:
    from cluster.core import Core

log = structlog.get_logger(__name__)

MOST = 30
"""Rows of refusals a user and minute; the rest is one row that says how many."""
MINUTE = timedelta(minutes=1)
LONGEST = 4000
"""Characters of a refused operation that are kept: it may be anything."""
AIMS = (
    "name", "sessions", "session", "node", "folder", "endpoint", "model", "pipeline", "run", "image", "user", "project",
    "resource_group", "token", "action",
)  # fmt: skip
"""Fields of operations that say on what, the most telling first."""
MOST_NAMES = 20
LONGEST_NAME = 200
LEFT_OUT = "refusals_left_out"
"""The action of the row that stands for those above `MOST`."""


@dataclass(slots=True)
class Window:
    """A user's refusals since `start`."""

    start: datetime
    rows: int = 0
    left_out: int = 0


class Refusals:
    """A `Keeper`: a minute's count of what was left out is written when the minute is over.

    A crash loses that count and nothing else: the rows themselves are committed before the refusal is told.
    """

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._windows: dict[str, Window] = {}
        self._cut_off = 0
        """Rows that could not be written since the journal could be the last time."""

    async def note(
        self,
        user: User,
        operation: Operation | UploadFile,
        reasons: Sequence[Reason],
        result: Literal["refused", "failed"],
    ) -> None:
        """Write it down. When the journal can't be written, the refusal is told all the same."""
        window = await self._window(user.name)
        if window.rows >= MOST:
            window.left_out += 1
            return
        window.rows += 1
        said = [reason.model_dump(mode="json", exclude_defaults=True) for reason in reasons]
        asked = _bounded(operation.model_dump_json())
        await self._write(user.name, operation.op, asked, result, said, aimed_at(operation))

    async def _window(self, user: str) -> Window:
        now, window = self._core.clock.now(), self._windows.get(user)
        if window is None or not timedelta(0) <= now - window.start < MINUTE:
            self._windows[user] = Window(now)
            if window is not None:
                await self._tell(user, window)
        return self._windows[user]

    async def _tell(self, user: str, window: Window) -> bool:
        if not window.left_out:
            return False
        told = {"op": LEFT_OUT, "count": window.left_out, "since": window.start.isoformat()}
        await self._write(user, LEFT_OUT, json.dumps(told), "refused", [])
        return True

    async def _write(
        self, user: str, action: str, operation: str, result: str, reasons: list[Any], on: Sequence[str] = ()
    ) -> None:
        async def row(tx: Transaction) -> Callable[[], None]:
            self._core.draft.audit(tx.now, user, action, operation, [*on], None, result, reasons)
            return lambda: None

        try:
            await self._core.writer.together(self._core.system, row)
        except ClusterError as e:
            self._lost(user, action, e)
        else:
            if self._cut_off:
                log.warning("refusals are in the journal again", missing=self._cut_off)
            self._cut_off = 0

    def _lost(self, user: str, action: str, why: ClusterError) -> None:
        """Said once until the journal can be written again: while it can't, every request may come to this."""
        if not self._cut_off:
            log.error("a refusal is not in the journal", user=user, action=action, why=str(why))
        self._cut_off += 1

    # ── as a keeper ──────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Nothing is left of those before."""
        self._windows.clear()

    async def step(self) -> bool:
        """Write down what the minutes that are over left out."""
        now = self._core.clock.now()
        over = {user: w for user, w in self._windows.items() if not timedelta(0) <= now - w.start < MINUTE}
        for user in over:
            del self._windows[user]
        return any([await self._tell(user, window) for user, window in over.items()])

    def due(self) -> datetime | None:
        """When the first minute is over that has left something out."""
        return min((w.start + MINUTE for w in self._windows.values() if w.left_out), default=None)

    async def close(self) -> None:
        """What is left out is written down now."""
        windows, self._windows = self._windows, {}
        for user, window in windows.items():
            await self._tell(user, window)


def aimed_at(operation: Operation | UploadFile) -> list[str]:
    """What the operation was to be done on, in the words of who asked: it may not exist."""
    fields = AIMS[:1] if operation.op == "start_session" else AIMS
    named: Any = next((value for name in fields if (value := getattr(operation, name, None))), [])
    names = named if isinstance(named, list) else [named]
    return [str(name)[:LONGEST_NAME] for name in names[:MOST_NAMES]]


def _bounded(operation: str) -> str:
    """As it was asked, or its beginning."""
    if len(operation) <= LONGEST:
        return operation
    return json.dumps({"op": json.loads(operation)["op"], "beginning": operation[:LONGEST]})
