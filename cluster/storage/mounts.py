"""A session's right to the folders that it mounts, weighed again before an agent is told to start it.

Between asking for a session and its start, a share may be taken back, or its person may leave the project. So whenever
something was committed that rights follow from, the sessions that mount something and were handed to no agent yet are
looked at once more, in a round of their own before anything else: who lost a right ends with the reason, who may only
read by now gets the folder to read. Until that is done no session with mounts is handed out. Others cost nothing.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import select

from cluster.db.tables import FolderRow, GrantRow, MemberRow, UserRow
from cluster.lifecycle import WAITING
from cluster.live import LiveSession
from cluster.models import Reason, SessionState
from cluster.sentence import S
from cluster.storage import rights
from cluster.transaction import Transaction

if TYPE_CHECKING:
    from cluster.core import Core

WATCHED = frozenset({FolderRow, GrantRow, MemberRow, UserRow})
"""What rights follow from."""


class Mounts:
    """What the writer asks before each round (`core.mounts`)."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._stale = True

    def note(self, touched: set[type]) -> None:
        """These were changed."""
        self._stale = self._stale or bool(touched & WATCHED)

    def look_again(self) -> None:
        """The sessions were read anew: what was found of their rights is not written down, and is found again."""
        self._stale = True

    def settled(self) -> None:
        """All have been looked at."""
        self._stale = False

    def unsure(self, session: LiveSession) -> bool:
        """It mounts something, and something changed that its right may follow from: not to be handed out now."""
        return bool(session.mounts) and (self._stale or bool(self._core.db.touched & WATCHED))

    def due(self) -> bool:
        """There is something to weigh."""
        if self._stale and not self._candidates():
            self._stale = False
        return self._stale

    def _candidates(self) -> list[LiveSession]:
        """Those that mount something and do not run yet."""
        states = {*WAITING, SessionState.SCHEDULED}
        return [s for s in self._core.ledger.sessions.values() if s.mounts and s.state in states]

    async def weigh(self, tx: Transaction) -> Callable[[], None]:
        """Work for a round of its own."""
        async with tx.look() as db:
            usable = select(FolderRow).where(FolderRow.trash_id.is_(None), FolderRow.state == "ready")
            folders = {f"{row.project}/{row.name}": row for row in await db.scalars(usable)}
            known = await rights.grants(db)
        for session in self._candidates():
            begun = tx.handed_out(session)
            lost = next((m for m in session.mounts if not self._may_see(session, folders.get(m), known)), None)
            if lost is None:
                self._renew(tx, session, folders, known)
            elif not begun:
                _fail(tx, session, lost)
            if not begun:
                tx.nudge(session)
        return lambda: None

    def _may_see(self, session: LiveSession, row: FolderRow | None, known: rights.Grants) -> bool:
        user = self._core.directory.users.get(session.user)
        return row is not None and user is not None and user.active and rights.sees(user, row, known)

    def _renew(
        self, tx: Transaction, session: LiveSession, folders: dict[str, FolderRow], known: rights.Grants
    ) -> None:
        user = self._core.directory.users[session.user]
        read_only = [m for m in session.mounts if not rights.writes(user, folders[m], known)]
        if read_only != session.read_only:
            tx.edit(session).read_only = read_only


def _fail(tx: Transaction, session: LiveSession, place: str) -> None:
    words = {"name": session.name, "user": session.user, "folder": place}
    message = S("{name} does not start: {user} can't use folder {folder} any more.", **words)
    tx.edit(session).reasons = [Reason(code="not_allowed", message=message).model_dump(mode="json")]
    waiting = session.state in WAITING
    tx.move(session, SessionState.CANCELLED if waiting else SessionState.ERROR)
