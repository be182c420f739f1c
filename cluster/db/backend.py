"""What `Database` needs of a database program: SQLite's answer is in `sqlite.py`, PostgreSQL's in `postgres.py`."""

from collections.abc import Sequence
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from cluster.db.log import Statement
from cluster.errors import ClusterError

BEGIN, COMMIT = "BEGIN", "COMMIT"


class BackEnd(Protocol):
    """One database, for one process. What writes comes one after another; `Database` sees to that."""

    @property
    def writing(self) -> AsyncEngine:
        """For rows of the ORM that are to be changed."""

    @property
    def reading(self) -> AsyncEngine:
        """For those who only look; in one transaction they see one moment."""

    async def open(self) -> None:
        """Make or migrate it, all or nothing. Raises `Unavailable` when it can't be used."""

    async def close(self) -> None: ...

    async def begin_reading(self, db: AsyncSession) -> None: ...

    async def begin_writing(self, db: AsyncSession) -> None:
        """Have the write lock, before anything is read."""

    async def say(self, what: str) -> None:
        """`BEGIN` (with the write lock) or `COMMIT`, around `write`. What is committed is on the disk."""

    async def write(self, statements: Sequence[Statement], to: AsyncSession | None = None) -> None:
        """The rows; into the transaction `to`, else between `BEGIN` and `COMMIT`."""

    async def give_up(self) -> None:
        """Take back what was written since `BEGIN`; never raises."""

    def told(self, e: Exception) -> ClusterError | None:
        """What a person can do something about, in a sentence."""

    def lost(self, e: Exception) -> ClusterError | None:
        """It went away in the middle, in a sentence: whether what was written is there has to be looked up."""
