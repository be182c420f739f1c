"""The web on the real conversation and a simulated cluster: one question, two faces in what could be two processes."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from helmsman.desk import Desk, open_desk
from helmsman.events import Answered, CallEnded, CallStarted, Decided, Event, PlanShown, TurnEnded, UserSaid, Working
from helmsman.models.scripted import Line, ScriptedModel, Wish
from helmsman.place import simulate
from helmsman.settings import Settings
from helmsman.web.app import create_web
from helmsman.web.gate import Key

SCENARIO = """
name: two-nodes
clock: 2026-03-02T09:40:00+09:00
resource_groups: [{name: train}]
nodes: [{name: "n-[1-2]", resource_group: train, cpu: 8, memory: 32g}]
projects: [{name: lab}]
users: [{name: sora, role: admin, projects: [lab]}]
"""
CORDON = Line(when="cordon", calls=[Wish(tool="cordon_node", arguments={"node": "n-1"})])
LIST = Line(when="nodes", calls=[Wish(tool="list_nodes")])


@dataclass
class Faces:
    """A terminal's desk, and a browser on another desk with the same store and cluster."""

    terminal: Desk
    http: httpx.AsyncClient

    async def post(self, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        return await self.http.post(f"/api/threads{path}", json=body or {}, headers={"Origin": str(self.http.base_url)})

    async def events(self, thread: str) -> list[Any]:
        """The bodies of what is stored."""
        session = await self.terminal.open(thread)
        stored: list[Event] = [event async for event in session.events(follow=False)]
        return [event.body for event in stored]


@pytest.fixture
async def faces(tmp_path: Path) -> AsyncIterator[Faces]:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(SCENARIO, encoding="utf-8")
    model = ScriptedModel(lines=[CORDON, LIST])
    settings = Settings()
    async with simulate(scenario) as (client, _):
        terminal = await open_desk(settings, client, tmp_path, model)
        browser = await open_desk(settings, client, tmp_path, model)
        key = Key()
        transport = httpx.ASGITransport(create_web(browser, key))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8765") as http:
            await http.get("/", params={"ticket": key.ticket})
            yield Faces(terminal, http)
        await browser.close()
        await terminal.close()


async def test_a_request_from_the_browser_is_carried_out(faces: Faces) -> None:
    thread = (await faces.post("")).json()["id"]
    assert (await faces.post(f"/{thread}/send", {"text": "list the nodes"})).status_code == 202
    happened = await faces.events(thread)
    assert [type(body) for body in happened if not isinstance(body, Working)] == [
        UserSaid,
        CallStarted,
        CallEnded,
        Answered,
        TurnEnded,
    ]
    assert "n-2" in str(next(body.view for body in happened if isinstance(body, CallEnded)))
    assert (await faces.http.get("/api/threads")).json()[0]["title"] == "list the nodes"


async def test_a_question_raised_in_the_terminal_is_answered_in_the_browser(faces: Faces) -> None:
    session = await faces.terminal.open()
    await session.send("cordon n-1", "terminal")
    (shown,) = [body for body in await faces.events(session.thread) if isinstance(body, PlanShown)]

    verdict = {"question": shown.question, "digest": "0" * len(shown.digest), "decision": "yes"}
    assert (await faces.post(f"/{session.thread}/decide", verdict)).json()["code"] == "stale"
    assert (await faces.post(f"/{session.thread}/decide", verdict | {"digest": shown.digest})).status_code == 202

    (decided,) = [body for body in await faces.events(session.thread) if isinstance(body, Decided)]
    assert (decided.decision, decided.face) == ("yes", "web")
    assert (await faces.terminal.cluster.node("n-1")).status == "cordoned"


async def test_a_question_raised_in_the_browser_is_answered_in_the_terminal(faces: Faces) -> None:
    thread = (await faces.post("")).json()["id"]
    await faces.post(f"/{thread}/send", {"text": "cordon n-1"})
    await (await faces.terminal.open(thread)).send("no", "terminal")

    (shown,) = [body for body in await faces.events(thread) if isinstance(body, PlanShown)]
    late = {"question": shown.question, "digest": shown.digest, "decision": "yes"}
    refused = await faces.post(f"/{thread}/decide", late)
    assert (refused.status_code, refused.json()["code"]) == (409, "stale")
    assert (await faces.terminal.cluster.node("n-1")).status == "alive"
