"""The API's edges: who is let in, how errors look, what survives."""

import base64
import re

import httpx
import pytest
from fastapi.routing import APIRoute

from cluster import lifecycle
from cluster.api.app import ROUTERS, create_app
from cluster.api.asking import OPEN
from cluster.client import Client
from cluster.errors import Invalid, NotAuthenticated, NotFound, Unavailable
from cluster.models import Beat, LogChunk, SessionState, StartSession
from cluster.simulator.lab import Lab

ROUTES = sorted(
    (method, re.sub(r"\{\w+(:path)?\}", "x", route.path))
    for module in ROUTERS
    for route in module.router.routes
    if isinstance(route, APIRoute) and route.path not in OPEN
    for method in route.methods - {"OPTIONS"}
)
"""Every route that wants to know who asks; `test_tenancy_matrix.py` has the table of them."""


TUS = {"Tus-Resumable": "1.0.0"}
"""Without it uploads are refused before anybody is asked for."""


def raw(lab: Lab) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(create_app(lab.core)), base_url="http://lab")


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}])
async def test_no_route_answers_without_a_valid_token(lab: Lab, method: str, path: str, header: dict[str, str]) -> None:
    async with raw(lab) as http:
        reply = await http.request(method, path, headers=header | TUS, json={})
    assert reply.status_code == 401
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_people_and_agents_are_kept_apart(lab: Lab, method: str, path: str) -> None:
    person = await lab.core.token_for("boss")
    agents = await lab.core.token_for("")
    wrong = person if "/agents/" in path else agents
    async with raw(lab) as http:
        reply = await http.request(method, path, headers=TUS | {"Authorization": f"Bearer {wrong}"}, json={})
    assert reply.status_code == 403


async def test_errors_come_back_as_the_errors_they_were(lab: Lab) -> None:
    await lab.node("a100-01")
    with pytest.raises(NotFound, match="There is no node a100-1") as e:
        await lab.ann.node("a100-1")
    assert e.value.candidates == ["a100-01"]
    with pytest.raises(Invalid, match=r"query\.limit"):
        await lab.ann.sessions(limit=0)
    with pytest.raises(Invalid, match=r"query\.colour"):
        await lab.ann.sessions(colour="red")
    with pytest.raises(NotAuthenticated):
        await Client.connect("http://lab", "wrong", httpx.ASGITransport(create_app(lab.core))).status()


async def test_a_server_that_is_not_there_is_one_sentence() -> None:
    client = Client.connect("http://127.0.0.1:9", "t")
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:9 does not answer .*helmsman up"):
        await client.status()
    await client.close()


async def test_a_token_of_someone_deactivated_opens_nothing(lab: Lab) -> None:
    from cluster.db.tables import UserRow

    async with lab.core.db.write() as db:
        (await db.get_one(UserRow, "ann")).active = False
    with pytest.raises(NotAuthenticated):
        await lab.ann.status()


async def test_lists_are_filtered_sorted_and_bounded(lab: Lab) -> None:
    await lab.node("n1", cpu=4)
    for name, cpu in (("a", 1), ("b", 3), ("c", 2)):
        await lab.ann.execute(StartSession(command="x", name=name, cpu=cpu))
        await lab.later(10)
    await lab.eve.execute(StartSession(command="x", name="hers"))
    assert [s.name for s in (await lab.ann.sessions()).items] == ["a", "b", "c"]
    assert [s.name for s in (await lab.boss.sessions(sort_by="cpu", limit=2)).items] == ["b", "c"]
    assert [s.name for s in (await lab.boss.sessions(status="pending")).items] == ["c", "hers"]
    assert [s.name for s in (await lab.boss.sessions(node="n1", order="desc")).items] == ["b", "a"]
    assert (await lab.boss.sessions(user="eve")).total == 1
    assert (await lab.boss.sessions(limit=1)).total == 4


async def test_output_is_kept_once_and_read_by_lines_and_offset(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    work = (await node.obey()).start[0].id

    async def send(offset: int, text: str) -> None:
        chunk = LogChunk(id=work, offset=offset, data=base64.b64encode(text.encode()).decode())
        await lab.core.agents.beat("n1", Beat(running=[work], logs=[chunk]))

    await send(0, "one\ntwo\n")
    await send(4, "two\nthree\n")
    page = await lab.ann.logs("job", tail=2)
    assert (page.text, page.next_offset, page.finished) == ("two\nthree\n", 14, False)
    assert (await lab.ann.logs("job", offset=8)).text == "three\n"


async def test_events_have_no_gaps_and_can_be_read_on(lab: Lab) -> None:
    await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    everything = (await lab.boss.events(limit=1000)).items
    assert [e.seq for e in everything] == list(range(1, len(everything) + 1))
    assert [e.seq for e in (await lab.boss.events(after=everything[-2].seq)).items] == [everything[-1].seq]
    assert [e.target for e in (await lab.eve.events()).items] == ["n1"]


def test_every_state_has_a_way_out_or_is_an_end() -> None:
    ends = {s for s, stage in lifecycle.STAGES.items() if not stage.follows or s in lifecycle.ENDED}
    assert ends == set(lifecycle.ENDED)
    for state in set(SessionState) - ends:
        seen, edge = set(), {state}
        while edge:
            seen |= edge
            edge = {n for s in edge for n in lifecycle.STAGES[s].follows} - seen
        assert seen & ends, state


def test_states_in_between_have_a_time_limit() -> None:
    for state in (SessionState.SCHEDULED, SessionState.PREPARING, SessionState.TERMINATING):
        stage = lifecycle.STAGES[state]
        assert stage.limit
        assert stage.then in stage.follows


def test_the_readmes_table_of_states_is_the_real_one() -> None:
    from pathlib import Path

    readme = Path(lifecycle.__file__).with_name("README.md").read_text()
    assert lifecycle.table() in readme
