"""The benchmark's database: filled before the core opens it, opened anew afterwards to see what it holds."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from sqlalchemy import Engine, event, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from cluster.db.engine import Database, Where
from cluster.db.log import Statement
from cluster.db.tables import Base, EventRow, SessionRow
from cluster.models import SessionResult, SessionState
from evals.benchmarks.report import Broken


async def seed(folder: Path, rows: Iterable[Base], where: Where | None = None) -> None:
    """A new database in `folder`, or `where` it is to be, with `rows`, in their order (parents first)."""
    db = await Database.open(where or folder / "cluster.db")
    async with db.write() as session:
        for row in rows:
            session.add(row)
            await session.flush()
    await db.close()


@contextmanager
def counted_commits() -> Iterator[Counter[str]]:
    """Counts this process' commits while it is open, under "commits". Each is one fsync of a durable database."""
    counter: Counter[str] = Counter()
    append = Database.append

    def count(_connection: object) -> None:
        counter["commits"] += 1

    async def counted(self: Database, statements: Sequence[Statement], to: AsyncSession | None = None) -> None:
        counter["commits"] += to is None
        await append(self, statements, to)

    event.listen(Engine, "commit", count)
    try:
        with patch.object(Database, "append", counted):
            yield counter
    finally:
        event.remove(Engine, "commit", count)


async def verify(folder: Path, names: Iterable[str], where: Where | None = None) -> None:
    """Open the database in `folder`, or `where` it is, anew. `Broken` unless each session has ended well, once."""
    db = await Database.open(where or folder / "cluster.db")
    try:
        async with db.read() as session:
            rows_ = (await session.execute(select(SessionRow.name, SessionRow.state, SessionRow.result))).all()
            ends = select(EventRow.target, func.count()).where(EventRow.kind == "session_terminated")
            ended = dict((await session.execute(ends.group_by(EventRow.target))).all())
    finally:
        await db.close()
    found = {name: (state, result, ended.get(name, 0)) for name, state, result in rows_}
    well = (SessionState.TERMINATED.value, SessionResult.SUCCESS.value, 1)
    bad = {name: found.get(name) for name in names if found.get(name) != well}
    if bad:
        raise Broken(f"{len(bad)} acknowledged sessions did not end well, once: {dict(list(bad.items())[:3])}.")
