"""What a database has to do for the core, on either program: one writer, one moment, rows as they were given, and plain
words for what goes wrong."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import structlog
from sqlalchemy import select

from cluster.db import log
from cluster.db.address import parsed, place, without_password
from cluster.db.engine import Database, Where
from cluster.db.tables import EventRow, Meta, SessionRow, UsageRow
from cluster.db.temporary import outside
from cluster.errors import Invalid, Unavailable
from cluster.models import CordonNode, CreateFolder, OperationRequest, StartSession, User
from cluster.simulator.lab import Lab

BOSS = User(name="boss", role="admin", projects=["red"])
SECRET = "hunter2"
NOON = datetime(2026, 3, 2, 12, 0, 0, 123456, tzinfo=UTC)


async def test_what_the_ledger_writes_is_what_the_orm_reads(where: Where) -> None:
    db = await Database.open(where)
    seoul = NOON.astimezone(timezone(timedelta(hours=9)))
    async with db.writing:
        await db.append([log.USAGE.of([("ann", 1.5, NOON), ("bob", 2, seoul)])])
        await db.append([log.USAGE.of([("ann", 2.5, NOON + timedelta(seconds=1))])])
    async with db.read() as rows:
        found = {row.user: (row.value, row.at) for row in await rows.scalars(select(UsageRow))}
    assert found == {"ann": (2.5, NOON + timedelta(seconds=1)), "bob": (2.0, NOON)}
    assert {at.utcoffset() for _, at in found.values()} == {timedelta(0)}
    await db.close()


async def test_any_text_comes_back_as_it_was(lab: Lab) -> None:
    await lab.node("n1")
    words = 'echo "한국어 \U0001f680 \\u0041 \\\' \t $1 ? %s :name"; true'
    env = {"A": words, "빈": ""}
    outcome = await lab.boss.execute(StartSession(command=words, name="odd", env=env))
    assert outcome.session is not None
    async with lab.core.db.read() as db:
        row = await db.get_one(SessionRow, outcome.session.id)
    assert (row.command, row.env) == (words, env)


async def test_a_second_writer_waits_for_the_first(where: Where) -> None:
    first, second = await Database.open(where), await Database.open(where)
    async with first.write() as db:
        db.add(Meta(key="a", value="1"))
        await db.flush()
        late = asyncio.create_task(add_one(second))
        done, _ = await asyncio.wait([late], timeout=0.3)
        assert not done
    await late
    async with first.read() as db:
        assert (await db.get_one(Meta, "a")).value == "2"
    await first.close()
    await second.close()


async def add_one(database: Database) -> None:
    """Read and write, which is only right if nobody writes in between."""
    async with database.write() as db:
        row = await db.get_one(Meta, "a")
        row.value = str(int(row.value) + 1)


async def test_a_crowd_of_readers_does_not_keep_the_writer_from_its_work(lab: Lab) -> None:
    await lab.node("n1")
    core = lab.core
    async with core.still():
        crowd = [asyncio.create_task(core.reads.status(BOSS)) for _ in range(150)]
        await asyncio.sleep(0.3)  # until all of them wait for their turn, with whatever they hold meanwhile
        starts = [
            OperationRequest(operation=StartSession(command="x", name=f"job-{i}"), key=f"k-{i}") for i in range(20)
        ]
        works = [asyncio.create_task(core.execute(BOSS, request)) for request in starts]
    await asyncio.wait_for(asyncio.gather(*crowd, *works), 25)
    assert (await lab.boss.sessions(limit=1000)).total == 20


async def test_events_that_the_orm_adds_get_the_next_numbers_in_their_order(lab: Lab) -> None:
    await lab.boss.execute(CreateFolder(name="cats"))
    before = [e.seq for e in (await lab.boss.events(limit=1000)).items]
    async with lab.core.db.write() as db:
        db.add_all([EventRow(at=NOON, kind=f"k{i}", message={"text": f"{i}", "params": {}}) for i in range(20)])
    await lab.node("n1")
    await lab.boss.execute(CordonNode(node="n1"))
    events = (await lab.boss.events(limit=1000)).items
    assert [e.seq for e in events] == [*range(1, len(events) + 1)]
    assert [e.kind for e in events[len(before) : len(before) + 20]] == [f"k{i}" for i in range(20)]


async def test_a_character_that_cannot_be_kept_is_one_sentence_or_kept(lab: Lab) -> None:
    """SQLite keeps a NUL; PostgreSQL does not."""
    await lab.node("n1")
    request = OperationRequest(operation=StartSession(command="echo a\0b", name="nul"))
    good = OperationRequest(operation=StartSession(command="echo", name="good"))
    said, fine = await asyncio.gather(*(lab.core.execute(BOSS, r) for r in (request, good)))
    assert not fine.refused
    if said.refused:
        assert [r.code for r in said.refused] == ["invalid"]
        assert "NUL" in str(said.refused[0].message)
    rows = await outside(lab.core.db.where, "SELECT name FROM sessions ORDER BY name")
    assert rows == ([("good",)] if said.refused else [("good",), ("nul",)])


# ── addresses ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "told", "kept"),
    [
        ("postgresql://ann@db.example/helm", "helm (db.example)", "postgresql://ann@db.example/helm"),
        ("postgres://ann:pw@db.example:5433/helm", "helm (db.example)", "postgresql://ann@db.example:5433/helm"),
        ("postgresql:///helm?host=/run/pg", "helm (/run/pg)", "postgresql:///helm?host=%2Frun%2Fpg"),
        ("postgresql://ann:p%40w@[::1]/helm?password=pw", "helm (::1)", "postgresql://ann@[::1]/helm"),
        ("postgresql:///helm", "helm", "postgresql:///helm"),
    ],
)
def test_an_address_is_told_and_kept_without_its_password(text: str, told: str, kept: str) -> None:
    url = parsed(text)
    assert (place(url), without_password(url)) == (told, kept)
    assert parsed(kept).host == url.host


@pytest.mark.parametrize(
    "text",
    ["", "secret", "mysql://ann:secret@db/helm", "postgresql://ann:secret@db:x/helm", "postgresql://ann:secret@db/",
     "postgresql://ann:secret@db:99999999999/", "postgresql:secret"],
)  # fmt: skip
def test_an_address_that_is_none_is_one_sentence_that_does_not_repeat_it(text: str) -> None:
    with pytest.raises(Invalid) as said:
        parsed(text)
    assert "secret" not in str(said.value)
    assert "postgresql://USER@HOST" in str(said.value)


async def test_a_server_that_is_not_there_is_one_sentence_without_the_password(
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = parsed(f"postgresql://ann:{SECRET}@127.0.0.1:1/helm")
    with pytest.raises(Unavailable, match=r"helm \(127\.0\.0\.1\) does not answer") as said:
        await Database.open(url)
    try:
        raise RuntimeError("somewhere up the stack") from said.value
    except RuntimeError:
        structlog.get_logger().exception("as a log would show it, with the values of all names")
    shown: Any = capsys.readouterr()
    assert SECRET not in shown.out + shown.err + repr(said.value)
    assert "somewhere up the stack" in shown.out + shown.err
