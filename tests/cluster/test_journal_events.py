"""Events: filtered lists, and a stream that leaves nothing out, sends nothing twice, and waits for slow readers."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from cluster.api.app import create_app
from cluster.api.routes import happenings
from cluster.client import Client
from cluster.db.tables import MemberRow, UserRow
from cluster.errors import NotAuthenticated
from cluster.journal.reads import EventFilter
from cluster.models import CordonNode, Event, StartSession, UncordonNode
from cluster.simulator.lab import Lab


async def toggled(lab: Lab, times: int) -> None:
    """Two events each time."""
    for _ in range(times):
        await lab.boss.execute(CordonNode(node="n1"))
        await lab.boss.execute(UncordonNode(node="n1"))


async def followed(lab: Lab, user: str, after: int = 0, **query: Any) -> AsyncIterator[dict[str, Any]]:
    wanted = EventFilter(**query)
    token = lab.core.tokens.passing(user)
    begun = await lab.core.journal.following(await lab.core.user(user), wanted, after, happenings.MOST)
    async for sent in happenings._follow(lab.core, token, wanted, *begun):
        yield sent


async def upto(stream: AsyncIterator[dict[str, Any]], seq: int) -> list[int]:
    """The numbers that come, until one is `seq`."""
    seen: list[int] = []
    async with asyncio.timeout(10):
        async for sent in stream:
            seen.append(int(sent["id"]))
            if seen[-1] >= seq:
                return seen
    raise AssertionError(f"the stream ended after {seen}")


async def newest(lab: Lab) -> int:
    return (await lab.boss.events(after=-1, limit=1)).items[-1].seq


# ── lists ────────────────────────────────────────────────────────────────────────────────────────


async def test_events_are_filtered_by_what_they_are_about_how_bad_and_since_when(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.node("n2")
    await lab.ann.execute(StartSession(command="job"))
    work = (await node.obey()).start[0].id
    await lab.later(600)
    await node.exit(work, 3)
    failed = (await lab.boss.events(severity="error")).items
    assert [e.target for e in failed] == ["job"]
    assert {e.target for e in (await lab.boss.events(target="n2")).items} == {"n2"}
    since = (lab.clock.now() - timedelta(minutes=1)).isoformat()
    late = await lab.boss.events(since=since, after=-1)
    assert late.items
    assert all(e.at >= lab.clock.now() - timedelta(minutes=1) for e in late.items)
    assert late.total == len(late.items) < (await lab.boss.events()).total


# ── the stream ───────────────────────────────────────────────────────────────────────────────────


async def test_a_stream_gives_what_was_and_then_what_comes_without_gaps(lab: Lab) -> None:
    await lab.node("n1")
    await toggled(lab, 2)
    before = await newest(lab)
    stream = followed(lab, "boss")
    assert await upto(stream, before) == [*range(1, before + 1)]
    waiting = asyncio.ensure_future(upto(stream, before + 4))
    await toggled(lab, 2)
    assert await waiting == [*range(before + 1, before + 5)]


async def test_a_reader_that_comes_back_goes_on_where_it_stopped(lab: Lab) -> None:
    await lab.node("n1")
    await toggled(lab, 3)
    last = await newest(lab)
    token = lab.core.tokens.passing("boss")
    headers = {"Authorization": f"Bearer {token}", "Last-Event-ID": str(last - 2)}
    got: list[bytes] = []

    async def send(message: Any) -> None:
        got.append(message.get("body", b""))
        if b"id: %d\r\n" % last in got[-1]:
            gone.set()

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    gone = asyncio.Event()
    raw = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
    scope = {"type": "http", "method": "GET", "path": "/v1/events/stream", "query_string": b"after=0", "headers": raw,
             "http_version": "1.1", "scheme": "http", "server": ("lab", 80), "root_path": ""}  # fmt: skip
    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def first_asked() -> Any:
        return next(asked, None) or await receive()

    async with asyncio.timeout(10):
        await create_app(lab.core)(scope, first_asked, send)
    ids = [line for body in got for line in body.decode().splitlines() if line.startswith("id: ")]
    assert ids == [f"id: {last - 1}", f"id: {last}"]


async def test_a_slow_reader_is_waited_for_and_nothing_piles_up(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(happenings, "MOST", 4)
    await lab.node("n1")
    await toggled(lab, 10)
    looked: list[int] = []
    following = lab.core.journal.following

    async def counted(*args: Any) -> Any:
        found, seen = await following(*args)
        looked.append(len(found))
        return found, seen

    monkeypatch.setattr(lab.core.journal, "following", counted)
    stream = followed(lab, "boss")
    for _ in range(4):
        await anext(stream)
    await toggled(lab, 10)
    assert looked == [4]
    last = await newest(lab)
    assert await upto(stream, last) == [*range(5, last + 1)]
    assert max(looked) == 4


async def test_a_stream_shows_what_the_list_shows_also_between_filtered_events(lab: Lab) -> None:
    await lab.node("n1")
    await lab.node("n2")
    await toggled(lab, 3)
    await lab.boss.execute(CordonNode(node="n2"))
    listed = [e.seq for e in (await lab.boss.events(target="n2", limit=1000)).items]
    assert await upto(followed(lab, "boss", target="n2"), listed[-1]) == listed
    await lab.eve.execute(StartSession(command="hers"))
    await lab.ann.execute(StartSession(command="mine"))
    mine = [e.seq for e in (await lab.ann.events(limit=1000)).items]
    assert await upto(followed(lab, "ann"), mine[-1]) == mine


async def test_who_leaves_a_project_sees_its_events_no_more_in_a_stream_that_runs(lab: Lab) -> None:
    await lab.node("n1")
    stream = followed(lab, "bob", after=await newest(lab))
    await lab.ann.execute(StartSession(command="first"))
    assert ["first" in (await anext(stream))["data"] for _ in range(2)] == [True, True]
    async with lab.core.db.write() as db:
        member = await db.scalar(select(MemberRow).where(MemberRow.user == "bob"))
        await db.delete(member)
    await lab.ann.execute(StartSession(command="second"))
    await lab.boss.execute(CordonNode(node="n1"))
    async with asyncio.timeout(10):
        seen = Event.model_validate_json((await anext(stream))["data"])
    assert (seen.kind, seen.target) == ("node_cordoned", "n1")


async def test_a_stream_ends_when_its_reader_is_deactivated(lab: Lab) -> None:
    await lab.node("n1")
    stream = followed(lab, "ann")
    await anext(stream)
    async with lab.core.db.write() as db:
        (await db.get_one(UserRow, "ann")).active = False
    await toggled(lab, 1)
    async with asyncio.timeout(10):
        rest = [sent async for sent in stream]
    assert rest == []


async def test_a_stream_for_nobody_is_an_error_and_not_an_empty_one(lab: Lab) -> None:
    transport = httpx.ASGITransport(create_app(lab.core))
    stranger = Client.connect("http://lab", "wrong", transport)
    with pytest.raises(NotAuthenticated):
        async for _ in stranger.follow_events():
            pass
    await stranger.close()
