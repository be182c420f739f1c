"""The API as it describes itself: every route says what it takes, what it gives and how it fails, and keeps to it."""

import asyncio
import copy
import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import schemathesis
from fastapi import FastAPI, HTTPException
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from requests import Request
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import select

from cluster.api.app import create_app
from cluster.api.asking import OPEN
from cluster.api.limits import Streams
from cluster.api.problems import MOST_BODY, PROBLEM
from cluster.api.routes.happenings import STREAMS
from cluster.clock import VirtualClock
from cluster.core import Core
from cluster.db.tables import GroupRow, MemberRow, ModelRow, ProjectRow, QuotaRow, UserRow
from cluster.errors import Unavailable
from cluster.models import (
    CreateFolder,
    DeployModel,
    Launch,
    OperationRequest,
    PutPipeline,
    Recipe,
    RunPipeline,
    StartSession,
)
from cluster.sentence import S
from cluster.simulator.lab import HandAgent, Lab


@pytest.fixture
def app(lab: Lab) -> FastAPI:
    return create_app(lab.core)


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://lab") as client:
        yield client


def operations(app: FastAPI) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path with something in its holes, and what is said of it."""
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), re.sub(r"{[^}]*}", "x", path), operation


def is_problem(reply: httpx.Response, status: int) -> bool:
    body = reply.json()
    whole = {"type", "title", "status", "detail", "code", "sentence", "candidates"} == set(body)
    return (
        whole and reply.headers["content-type"] == PROBLEM and (reply.status_code, body["status"]) == (status, status)
    )


# ── what it says ─────────────────────────────────────────────────────────────────────────────────


def test_operations_have_readable_names_of_their_own_and_a_description(app: FastAPI) -> None:
    names = [operation["operationId"] for _, _, operation in operations(app)]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names), names


def test_every_route_that_needs_a_token_says_so_and_no_other(app: FastAPI) -> None:
    for method, path, operation in operations(app):
        assert method == "OPTIONS" or ("security" in operation) is (path not in OPEN), (method, path)


def test_every_errors_shape_is_the_problem_document(app: FastAPI) -> None:
    for method, path, operation in operations(app):
        for status, response in operation["responses"].items():
            if status == "default" or status[0] in "45":
                assert [*response["content"]] == [PROBLEM], (method, path, status)
    assert "HTTPValidationError" not in json.dumps(app.openapi())


def test_every_answer_in_json_has_a_shape(app: FastAPI) -> None:
    for method, path, operation in operations(app):
        for response in operation["responses"].values():
            for kind, content in response.get("content", {}).items():
                assert kind != "application/json" or content["schema"], (method, path)


async def test_the_description_is_served_and_no_page_fetches_scripts_from_elsewhere(http: httpx.AsyncClient) -> None:
    assert (await http.get("/openapi.json")).json()["openapi"].startswith("3.")
    assert [(await http.get(path)).status_code for path in ("/docs", "/redoc")] == [404, 404]


# ── how it fails ─────────────────────────────────────────────────────────────────────────────────


async def test_what_the_framework_refuses_is_a_problem_with_its_own_status(lab: Lab, http: httpx.AsyncClient) -> None:
    mine = {"Authorization": f"Bearer {lab.core.tokens.passing('ann')}"}
    assert is_problem(await http.get("/v1/nothing"), 404)
    wrong = await http.delete("/v1/status")
    assert is_problem(wrong, 405)
    assert wrong.headers["allow"] == "GET"
    assert is_problem(await http.post("/v1/operations", content=b"{", headers=mine), 422)
    assert is_problem(await http.post("/v1/operations", content=b"x" * (MOST_BODY + 1), headers=mine), 413)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(MOST_BODY // 2**20 + 2):
            yield b"x" * 2**20

    assert is_problem(await http.post("/v1/operations", content=endless(), headers=mine), 413)


async def test_a_bug_is_a_problem_too(lab: Lab, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(*_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(lab.core.reads, "status", breaks)
    mine = {"Authorization": f"Bearer {lab.core.tokens.passing('ann')}"}
    reply = await http.get("/v1/status", headers=mine)
    assert is_problem(reply, 500)
    assert "secret" not in reply.text


async def test_a_stream_that_can_not_begin_says_why_as_a_problem(
    lab: Lab, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: Any) -> None:
        raise Unavailable(S("The server failed at this; its log says why."))

    mine = {"Authorization": f"Bearer {lab.core.tokens.passing('ann')}"}
    assert is_problem(await http.get("/v1/events/stream", params={"after": -1}, headers=mine), 422)
    assert is_problem(await http.get("/v1/events/stream", headers={**mine, "Last-Event-ID": "x"}), 422)
    monkeypatch.setattr(lab.core.journal, "following", breaks)
    assert is_problem(await http.get("/v1/events/stream", headers=mine), 503)


async def test_the_twenty_first_stream_of_a_person_is_refused_until_one_ends(
    lab: Lab, app: FastAPI, http: httpx.AsyncClient
) -> None:
    streams: Streams = app.state.streams

    def opened(who: str) -> asyncio.Task[httpx.Response]:
        mine = {"Authorization": f"Bearer {lab.core.tokens.passing(who)}"}
        return asyncio.create_task(http.get("/v1/events/stream", headers=mine))

    async def until(who: str, count: int) -> None:
        async with asyncio.timeout(30):
            while streams.of(who) != count:
                await asyncio.sleep(0)

    held = [opened("ann") for _ in range(STREAMS)]
    await until("ann", STREAMS)
    assert is_problem(refused := await opened("ann"), 429)
    assert refused.json()["code"] == "too_many"
    held.append(opened("bob"))
    await until("bob", 1)
    held[0].cancel()
    await until("ann", STREAMS - 1)
    held.append(opened("ann"))
    await until("ann", STREAMS)
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert (streams.of("ann"), streams.of("bob")) == (0, 0)


async def test_what_another_part_refuses_as_too_many_is_a_problem(app: FastAPI, http: httpx.AsyncClient) -> None:
    @app.get("/busy")
    async def busy() -> None:
        raise HTTPException(429, headers={"Retry-After": "3"})

    reply = await http.get("/busy")
    assert is_problem(reply, 429)
    assert reply.headers["retry-after"] == "3"


STARTS = "/v1/operations"
REGISTERS = "/v1/agents/register"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (STARTS, {"operation": {"op": "start_session", "command": "x", "time_limit": 1e15}}),
        (STARTS, {"operation": {"op": "start_session", "command": "x", "start_at": "0001-01-01T00:00:00Z"}}),
        (STARTS, {"operation": {"op": "start_session", "command": "x", "start_at": "9999-12-31T23:59:59-12:00"}}),
        (STARTS, {"operation": {"op": "drain_node", "node": "n1", "grace": 1e300}}),
        (REGISTERS, {"name": "n2", "capacity": {"cpu": 1e300, "memory": 1, "gpu": 0}}),
        (REGISTERS, {"name": "n2", "capacity": {"cpu": 1, "memory": 2**70, "gpu": 0}}),
        (REGISTERS, {"name": "n2", "capacity": {"cpu": -1, "memory": 1, "gpu": 0}}),
        (REGISTERS, {"name": "n2", "capacity": {"cpu": 1, "memory": 1}, "devices": [{"index": 5, "model": "A100"}]}),
    ],
)
async def test_amounts_beyond_all_measure_are_refused_before_they_stop_everybodys_rounds(
    lab: Lab, http: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    node = await lab.node("n1")
    who = lab.core.tokens.passing("" if path == REGISTERS else "boss")
    assert is_problem(await http.post(path, json=body, headers={"Authorization": f"Bearer {who}"}), 422)
    await node.obey()
    await lab.later(60)
    assert not (await lab.ann.execute(StartSession(command="y"))).refused


# ── whatever it is sent ──────────────────────────────────────────────────────────────────────────


LONG = "HELMSMAN_API_EXAMPLES"
"""How many requests of each kind a route and an operation get, for a long run by night."""
EXAMPLES = int(os.environ.get(LONG, "4"))
ENDLESS = {"/v1/events/stream"}
"""Has tests of its own."""
SPEC = create_app(cast(Core, None)).openapi()
SCHEMA = schemathesis.openapi.from_dict(SPEC)
OPERATIONS = SPEC["components"]["schemas"]["OperationRequest"]["properties"]["operation"]["discriminator"]["mapping"]
TRIED = [(method, path) for path in SPEC["paths"] if path not in ENDLESS for method in SPEC["paths"][path]]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
MODES = st.sampled_from([*GenerationMode])
"""What the description allows, and what it does not."""
TRY = settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[*HealthCheck],
               phases=[Phase.explicit, Phase.generate, Phase.shrink])  # fmt: skip
UPLOADED = "folder Y2F0cw==,path YS50eHQ="
"""The folder cats and the file a.txt, as tus has it."""
THERE = {
    "action": ["a-0001", "a-0004"],
    "endpoint": ["chat"],
    "folder": ["cats", "red/cats"],
    "image": ["pytorch"],
    "model": ["small"],
    "mounts": [["cats"]],
    "name": ["cats", "job", "red", "ann"],
    "node": ["n1", "n2"],
    "path": ["a.txt", "deep/b.txt"],
    "permission": ["read", "write"],
    "pipeline": ["nightly"],
    "policy": ["fifo", "drf"],
    "project": ["red", "blue"],
    "ref": ["job", "waits", "n1", "cats", "red"],
    "resource_group": ["default"],
    "sessions": [["job"], ["waits"], ["job", "waits"]],
    "user": ["ann", "eve"],
}
"""What is there, so that requests get further than to "there is no such thing"."""
BELOW = {
    "/v1/sessions/": "job", "/v1/nodes/": "n1", "/v1/folders/": "cats", "/v1/models/": "small",
    "/v1/endpoints/": "chat", "/v1/pipelines/": "nightly", "/v1/pipeline-runs/": "nightly", "/v1/agents/": "n1",
}  # fmt: skip
"""What the first hole of a path is filled with; uploads and tokens are made anew, as requests end them."""


NIGHTLY = "name: nightly\nsteps: [{name: one, command: one, cpu: 1}]"


class Served:
    """A small cluster on a loop of its own, so that requests made by Hypothesis share it."""

    def __init__(self, where: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.app, self.core, self.run = self.loop.run_until_complete(seeded(where))
        self.tokens = {name: self.core.tokens.passing(name) for name in ("boss", "ann", "")}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://lab", timeout=60)

    def send(self, case: Case, user: str) -> httpx.Response:
        asked = Request(**case.as_transport_kwargs(base_url="http://lab")).prepare()
        headers = {**asked.headers, "Authorization": f"Bearer {self.tokens[user]}"}
        if case.path.startswith("/v1/uploads"):
            headers = {"Upload-Length": "5", "Upload-Metadata": UPLOADED, **headers, "Tus-Resumable": "1.0.0"}
        sent = self.http.request(asked.method or "", asked.url or "", headers=headers, content=asked.body or b"")
        reply = self.loop.run_until_complete(sent)
        if reply.status_code == 401:
            self.loop.run_until_complete(self._let_in_again())
        return reply

    def first(self, path: str, user: str) -> str:
        """Something that there is, for the first hole of `path`."""
        return self.loop.run_until_complete(self._first(path, user))

    async def _first(self, path: str, user: str) -> str:
        for beginning, name in BELOW.items():
            if path.startswith(beginning):
                return self.run if path.startswith("/v1/pipeline-runs/") else name
        whose = await self.core.user(user)
        if path.startswith("/v1/uploads/"):
            return (await self.core.uploads.create(whose, "cats", "new.txt", 5)).id
        return (await self.core.token_for(user)).split("_")[1]

    async def _let_in_again(self) -> None:
        """One of the requests before has deactivated somebody."""
        async with self.core.db.write() as db:
            for row in await db.scalars(select(UserRow)):
                row.active, row.role = True, "admin" if row.name == "boss" else "user"

    def close(self) -> None:
        self.loop.run_until_complete(self.http.aclose())
        self.loop.run_until_complete(self.core.close())
        self.loop.close()


async def seeded(where: Path) -> tuple[FastAPI, Core, str]:
    """With a session that runs, one that waits, a folder with a file, a model, an endpoint, a pipeline and its run
    (whose id is given too)."""
    clock = VirtualClock(datetime(2026, 3, 2, 9, 0, tzinfo=UTC))
    core = await Core.open(where / "cluster.db", clock=clock, data_dir=where, name="lab")
    async with core.db.write() as db:
        db.add_all([ProjectRow(name="red"), ProjectRow(name="blue"), GroupRow(name="default")])
        db.add_all([UserRow(name="boss", role="admin"), UserRow(name="ann"), UserRow(name="eve")])
        await db.flush()
        db.add_all([MemberRow(project=p, user=u) for p, u in (("red", "ann"), ("blue", "eve"), ("red", "boss"))])
        db.add(QuotaRow(scope="project", name="red", cpu=8.0))
        recipe = Recipe(name="small", runtime="command", launch=Launch(command="serve", cpu=1))
        db.add(ModelRow(name="small", owner="ann", project="red", source="small", recipe=recipe.model_dump(mode="json"),
                        card={}, state="ready", state_since=clock.now(), reasons=[], created=clock.now()))  # fmt: skip
    ann = await core.user("ann")
    for name in ("n1", "n2"):
        await (await HandAgent(core, name).join(cpu=2)).obey()
    for operation in (StartSession(command="a", name="job", cpu=2), StartSession(command="b", name="waits", cpu=2),
                      StartSession(command="c", name="last", cpu=2), CreateFolder(name="cats"),
                      DeployModel(model="small", name="chat"), PutPipeline(text=NIGHTLY, project="red"),
                      RunPipeline(pipeline="nightly")):  # fmt: skip
        done = await core.execute(ann, OperationRequest(operation=operation))
        assert not done.refused
    (where / "volumes" / "red" / "cats" / "a.txt").write_text("hello")
    return create_app(core), core, next(iter((await core.pipelines.names(ann))[1]))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("served"))
    yield served
    served.close()


WITH_HOLES = [(method, path) for method, path in TRIED if "{" in path and method in ("get", "head", "delete")]


@pytest.mark.parametrize("user", ["boss", "ann"])
@pytest.mark.parametrize(("method", "path"), WITH_HOLES)
def test_what_is_there_is_found_and_as_described(served: Served, method: str, path: str, user: str) -> None:
    """Before anything random: every one of these routes gets past "there is no such thing"."""
    hole, *more = re.findall(r"{(\w+)}", path)
    filled = {hole: served.first(path, user)} | dict.fromkeys(more, "a.txt")
    case = SCHEMA[path][method.upper()].Case(path_parameters=filled)
    reply = served.send(case, user)
    assert reply.status_code < 300, reply.text
    case.validate_response(reply, checks=CHECKS)


def nearer(served: Served, case: Case, user: str, data: Any) -> Case:
    """With names of things that there are, in some of its places; and such that no answer is waited for."""
    parts = [case.path_parameters, case.query, case.body]
    if isinstance(case.body, dict):
        parts.append(case.body.get("operation"))
        case.body.pop("expect", None)
        if "wait" in case.body:
            case.body["wait"] = 0
    for part in parts:
        for key in [*part] if isinstance(part, dict) else []:
            if key in THERE and data.draw(st.booleans()):
                part[key] = data.draw(st.sampled_from(THERE[key]))
    hole = re.search(r"{(\w+)}", case.path)
    if hole and data.draw(st.booleans()):
        case.path_parameters[hole[1]] = served.first(case.path, user)
    return case


@pytest.mark.parametrize("user", ["boss", "ann"])
@pytest.mark.parametrize(("method", "path"), TRIED)
def test_whatever_it_is_sent_a_route_keeps_to_its_description(
    served: Served, method: str, path: str, user: str
) -> None:
    who = "" if path.startswith("/v1/agents/") else user
    operation = SCHEMA[path][method.upper()]

    @TRY
    @given(case=MODES.flatmap(lambda mode: operation.as_strategy(generation_mode=mode)), data=st.data())
    def holds(case: Case, data: Any) -> None:
        reply = served.send(nearer(served, case, who, data), who)
        case.validate_response(reply, checks=CHECKS)

    holds()


@pytest.mark.parametrize("user", ["boss", "ann"])
@pytest.mark.parametrize("op", sorted(OPERATIONS))
def test_whatever_it_is_asked_for_an_operation_is_done_refused_or_a_problem(served: Served, op: str, user: str) -> None:
    spec = copy.deepcopy(SPEC)
    spec["components"]["schemas"]["OperationRequest"]["properties"]["operation"] = {"$ref": OPERATIONS[op]}
    spec["paths"] = {"/v1/operations": spec["paths"]["/v1/operations"]}
    asked = schemathesis.openapi.from_dict(spec)["/v1/operations"]["POST"].as_strategy()

    @TRY
    @given(case=asked, data=st.data())
    def holds(case: Case, data: Any) -> None:
        reply = served.send(nearer(served, case, user, data), user)
        case.validate_response(reply, checks=CHECKS)

    holds()
