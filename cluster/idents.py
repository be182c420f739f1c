"""Ids for new sessions, looked up in the database beforehand, so that giving one out costs nothing."""

import secrets
from collections import deque

from sqlalchemy import select

from cluster.db.engine import Database
from cluster.db.tables import SessionRow

AT_A_TIME = 500


class Idents:
    """A store of ids that no session ever had. Short ones, as long as there are enough of them."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._fresh: deque[str] = deque()
        self._bytes = 3

    async def stock(self, count: int) -> None:
        """Have `count` at hand."""
        while len(self._fresh) < count:
            wanted = {f"s-{secrets.token_hex(self._bytes)}" for _ in range(AT_A_TIME)} - set(self._fresh)
            async with self._db.read() as db:
                taken = set(await db.scalars(select(SessionRow.id).where(SessionRow.id.in_(wanted))))
            self._fresh.extend(wanted - taken)
            if len(taken) > AT_A_TIME // 4:
                self._bytes += 1

    def take(self) -> str:
        return self._fresh.popleft()
