"""PostgreSQL goes away and comes back, and another server wants the same database: nothing that was told is lost, and
nobody writes what they do not know."""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL, text

from cluster.clock import VirtualClock
from cluster.core import Core
from cluster.db import postgres as module
from cluster.db.engine import Database, Where
from cluster.db.tables import Meta, ProjectRow, UserRow
from cluster.db.temporary import Server, outside
from cluster.errors import Unavailable
from cluster.ledger import Ledger
from cluster.models import CreateFolder, Operation, OperationRequest, Outcome, StartSession, User
from cluster.simulator.lab import HandAgent

BOSS = User(name="boss", role="admin", projects=["red"])
CLOCK = VirtualClock(datetime(2026, 3, 2, 9, 0, tzinfo=UTC))


@pytest.fixture
async def where(postgres: Any) -> AsyncIterator[URL]:
    url = await postgres.fresh()
    yield url
    await postgres.drop(url)


@pytest.fixture
def stoppable(postgres: Any) -> Iterator[Server]:
    """The server of all tests; it runs again afterwards."""
    yield postgres.server
    if not postgres.server.runs:
        postgres.server.start()


async def opened(where: Where, data: Path) -> Core:
    """The only server of this database."""
    return await Core.open(where, clock=CLOCK, data_dir=data, name="lab", alone=True)


@pytest.fixture
async def core(where: URL, tmp_path: Path) -> AsyncIterator[Core]:
    core = await opened(where, tmp_path)
    async with core.db.write() as db:
        db.add_all([ProjectRow(name="red"), UserRow(name="boss", role="admin")])
    await HandAgent(core, "n1").join(cpu=1000)
    yield core
    await core.close()


async def do(core: Core, operation: Operation, key: str | None = None) -> Outcome:
    return await core.execute(BOSS, OperationRequest(operation=operation, key=key))


def codes(outcome: Outcome) -> list[str]:
    return [reason.code for reason in outcome.refused]


# ── going away and coming back ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_what_was_acknowledged_while_it_stops_and_starts_is_there_once(
    core: Core, where: URL, stoppable: Server, mode: str
) -> None:
    told: dict[str, str] = {}
    failed: Counter[str] = Counter()
    over = asyncio.Event()

    async def person(number: int) -> None:
        """Goes on asking with the same key until there is an answer, as the client does."""
        for i in range(1000):
            key = f"{number}-{i}"
            operation: Operation = (
                CreateFolder(name=f"f-{key}") if i % 7 == 6 else StartSession(command="x", name=f"s-{key}", cpu=0.1)
            )
            while (outcome := await do(core, operation, key)).refused:
                assert codes(outcome) == ["unavailable"], outcome.refused
                failed["unavailable"] += 1
                await asyncio.sleep(0.02)
            told[operation.name or ""] = outcome.audit_id or ""
            if over.is_set():
                return

    people = [asyncio.create_task(person(number)) for number in range(8)]
    draw = random.Random(7)
    for _ in range(2):
        await reaches(lambda: len(told), 20, people)
        await asyncio.sleep(draw.random() / 20)
        await asyncio.to_thread(stoppable.stop, mode)
        await reaches(failed.total, 10, people)
        with pytest.raises(Unavailable, match="does not answer"):
            await core.reads.status(BOSS)
        await asyncio.to_thread(stoppable.start)
    await reaches(lambda: len(told), 20, people)
    over.set()
    await asyncio.wait_for(asyncio.gather(*people), 30)
    await all_is_there(core, where, told)


async def reaches(count: Callable[[], int], more: int, people: list[asyncio.Task[None]]) -> None:
    """Wait until there are so many more, as long as nobody fails."""
    goal = count() + more
    async with asyncio.timeout(30):
        while count() < goal:
            await asyncio.sleep(0.005)
            for task in people:
                if task.done():
                    task.result()


async def all_is_there(core: Core, where: URL, told: dict[str, str]) -> None:
    """Each once, under the number that was told; the events have no gap; memory and database agree."""
    names = await outside(where, "SELECT name FROM sessions UNION ALL SELECT name FROM folders")
    assert Counter(name for (name,) in names) == dict.fromkeys(told, 1)
    done = await outside(where, "SELECT id FROM audit WHERE result = 'done' ORDER BY id")
    assert sorted(f"a-{number:04d}" for (number,) in done) == sorted(told.values())
    seqs = [seq for (seq,) in await outside(where, "SELECT seq FROM events ORDER BY seq")]
    assert seqs == [*range(1, len(seqs) + 1)]
    await core.save()
    async with core.db.read() as db:
        loaded = await db.run_sync(Ledger.load)
    async with core.still() as ledger:
        assert (ledger.sessions, ledger.nodes) == (loaded.sessions, loaded.nodes)
    folders = {name.removeprefix("f-") for name in told if name.startswith("f-")}
    assert {path.name.removeprefix("f-") for path in (core.data_dir / "volumes" / "red").iterdir()} == folders


def lost_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next commit is done, and the answer to it is lost with the connection."""
    real, left = Database._say, [1]

    async def say(self: Database, what: str) -> None:
        await real(self, what)
        if what == "COMMIT" and left:
            left.clear()
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    monkeypatch.setattr(Database, "_say", say)


async def test_an_answer_that_was_lost_is_found_by_its_key(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    lost_after(monkeypatch)
    operation = StartSession(command="x", name="job")
    assert codes(await do(core, operation, "k")) == ["unavailable"]
    again = await do(core, operation, "k")
    assert again.session is not None
    assert [s.name for s in core.ledger.sessions.values()] == ["job"]
    other = await do(core, StartSession(command="x", name="other"))
    assert (again.audit_id, other.audit_id) == ("a-0001", "a-0002") or other.audit_id == "a-0003"


async def test_a_folder_whose_answer_was_lost_is_where_its_row_says(
    core: Core, where: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.ext.asyncio import AsyncSession

    real = AsyncSession.commit

    async def commits(self: AsyncSession) -> None:
        await real(self)
        raise DBAPIError("COMMIT", None, asyncpg.ConnectionDoesNotExistError("closed"), connection_invalidated=True)

    with monkeypatch.context() as patch:
        patch.setattr(AsyncSession, "commit", commits)
        assert codes(await do(core, CreateFolder(name="cats"), "k")) == ["unavailable"]
    again = await do(core, CreateFolder(name="cats"), "k")
    assert not again.refused
    assert (core.data_dir / "volumes" / "red" / "cats").is_dir()
    assert await outside(where, "SELECT count(*) FROM folders") == [(1,)]


async def test_a_connection_that_was_cut_while_nobody_looked_is_not_noticed(core: Core, where: URL) -> None:
    await do(core, StartSession(command="x", name="before"))
    await outside(where, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'helmsman'")
    await asyncio.sleep(0.05)  # until the news of it is in
    assert not (await do(core, StartSession(command="x", name="after"))).refused
    assert (await core.reads.status(BOSS)).nodes == {"alive": 1}


async def test_a_database_that_takes_no_changes_says_so_and_can_be_read(core: Core, where: URL, postgres: Any) -> None:
    await outside(where, f"ALTER DATABASE {where.database} SET default_transaction_read_only = on")
    await outside(where, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'helmsman'")
    await asyncio.sleep(0.05)
    outcome = await do(core, StartSession(command="x"))
    assert codes(outcome) == ["unavailable"]
    assert "read-only" in str(outcome.refused[0].message)
    assert (await core.reads.status(BOSS)).nodes == {"alive": 1}
    await postgres.server.sql(f"ALTER DATABASE {where.database} RESET default_transaction_read_only")


async def test_a_server_that_lives_but_says_nothing_is_given_up_and_gone_back_to(
    core: Core, where: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST", 0.3)
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    await do(core, StartSession(command="x", name="before"))
    asked = "SELECT pid FROM pg_stat_activity WHERE application_name = 'helmsman' AND datname = ?"
    asleep = [pid for (pid,) in await outside(where, asked, where.database)]
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(20):
            late = await do(core, StartSession(command="x", name="late"), "k")
            assert codes(late) == ["unavailable"]
    finally:
        for pid in asleep:
            os.kill(pid, signal.SIGCONT)
    async with asyncio.timeout(20):
        while (again := await do(core, StartSession(command="x", name="late"), "k")).refused:
            await asyncio.sleep(0.05)
    assert again.session is not None
    assert await outside(where, "SELECT name FROM sessions ORDER BY name") == [("before",), ("late",)]


# ── one server ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.3)


@pytest.mark.usefixtures("impatient")
async def test_a_second_server_on_the_same_database_is_refused(core: Core, where: URL) -> None:
    with pytest.raises(Unavailable, match="Another server uses the database"):
        await Database.open(where, alone=True)
    assert not (await do(core, StartSession(command="x"))).refused


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_lost_the_database_to_another_writes_nothing_more(
    core: Core, where: URL, tmp_path: Path
) -> None:
    await outside(where, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'helmsman'")
    other = await opened(where, tmp_path)
    assert codes(await do(core, StartSession(command="x", name="late"))) == ["unavailable"]
    await do(other, StartSession(command="x", name="new"))
    await other.close()
    late = await do(core, StartSession(command="x", name="late"))
    assert "restart this one" in str(late.refused[0].message)
    assert await outside(where, "SELECT name FROM sessions") == [("new",)]


async def test_one_that_was_killed_gives_the_database_free(where: URL) -> None:
    killed = await Database.open(where, alone=True)
    async with killed.write() as db:
        db.add(Meta(key="a", value="1"))
    holding = asyncio.create_task(holds(killed))
    await asyncio.sleep(0.1)
    late = asyncio.create_task(Database.open(where, alone=True))
    await asyncio.sleep(0.2)
    assert not late.done()
    await outside(where, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state LIKE 'idle in%'")
    second = await asyncio.wait_for(late, 10)
    with pytest.raises(Unavailable):
        await holding
    async with second.read() as db:
        assert (await db.get_one(Meta, "a")).value == "1"
    await killed.close()
    await second.close()


async def holds(database: Database) -> None:
    """A transaction under way, until it is found to be cut."""
    async with database.write() as db:
        (await db.get_one(Meta, "a")).value = "2"
        await db.flush()
        await asyncio.sleep(1)
        await db.execute(text("SELECT 1"))


async def test_commits_are_on_the_disk_even_where_the_server_would_not_wait(where: URL) -> None:
    await outside(where, f"ALTER DATABASE {where.database} SET synchronous_commit = off")
    asked = text("SELECT current_setting('synchronous_commit')")
    for durable, expected in ((True, "on"), (False, "off")):
        database = await Database.open(where, durable=durable)
        async with database.write() as db:
            assert await db.scalar(asked) == expected
        await database.close()


async def test_a_database_that_cannot_hold_every_letter_is_refused(postgres: Any) -> None:
    await postgres.server.sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' "
                              "TEMPLATE template0")  # fmt: skip
    with pytest.raises(Unavailable, match="UTF8"):
        await Database.open(postgres.server.url("latin"))
    await postgres.server.sql("DROP DATABASE latin")
