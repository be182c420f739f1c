"""The authorisation matrix: every route and every operation, asked by everybody, about things of project red.

A route or an operation that is missing in the tables fails the first two tests: say here who may.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from cluster.api.app import ROUTERS, create_app
from cluster.api.asking import OPEN
from cluster.db.tables import GroupRow, ModelRow
from cluster.models import (
    AddProjectMember,
    CordonNode,
    CreateFolder,
    CreateUser,
    DeactivateUser,
    DeleteFolder,
    DeployModel,
    Launch,
    NewToken,
    Operation,
    OperationRequest,
    PutPipeline,
    Recipe,
    RunPipeline,
    ShareFolder,
    StartSession,
)
from cluster.simulator.lab import Lab

ROLES = ("nobody", "agents", "outsider", "outlead", "member", "lead", "owner", "admin")
"""Without a token; the agents' token; eve, who is in project blue; the admin of blue; bob, who is in red; the admin of
red; ann, whose things these are; and the admin of all."""
PEOPLE = {"outsider": "eve", "outlead": "olga", "member": "bob", "lead": "lea", "owner": "ann", "admin": "boss"}

ALL = "401 403 200 200 200 200 200 200"
OF_RED = "401 403 404 404 200 200 200 200"
ADMINS = "401 403 403 403 403 403 403 200"
AGENTS = "401 422 403 403 403 403 403 403"
OWNERS = "401 403 404 404 404 404 204 404"
"""Uploads are their uploader's alone."""

ROUTES = {
    "GET /v1/me": ALL,
    "GET /v1/status": ALL,
    "GET /v1/names": ALL,
    "GET /v1/utilization?resource=gpu": ALL,
    "GET /v1/utilization?resource=cpu&group_by=user": ALL,
    "GET /v1/utilization?resource=cpu&group_by=project&period=60": ALL,
    "GET /v1/utilization?resource=storage&group_by=project": ALL,
    "GET /v1/utilization?resource=storage&group_by=user": ALL,
    "GET /v1/sessions": ALL,
    "GET /v1/sessions/zebra-run": OF_RED,
    "GET /v1/sessions/zebra-run/logs": OF_RED,
    "GET /v1/sessions/zebra-wait/explanation": OF_RED,
    "POST /v1/estimates": ALL,
    "GET /v1/nodes": ALL,
    "GET /v1/nodes/n1": ALL,
    "GET /v1/resource-groups": ALL,
    "GET /v1/folders": ALL,
    "GET /v1/folders/zebra-data/files": OF_RED,
    "GET /v1/folders/zebra-data/files/zebra.txt": OF_RED,
    "HEAD /v1/folders/zebra-data/files/zebra.txt": OF_RED,
    "OPTIONS /v1/uploads": "204 204 204 204 204 204 204 204",
    "OPTIONS /v1/uploads/{upload}": "204 204 204 204 204 204 204 204",
    "POST /v1/uploads": "401 403 404 404 201 201 201 201",
    "HEAD /v1/uploads/{upload}": OWNERS.replace("204", "200"),
    "PATCH /v1/uploads/{upload}": OWNERS,
    "DELETE /v1/uploads/{upload}": OWNERS,
    "GET /v1/quotas": ALL,
    "GET /v1/quotas?project=red": OF_RED,
    "GET /v1/quotas?user=ann": "401 403 404 403 403 200 200 200",
    "GET /v1/users": ALL,
    "GET /v1/projects": ALL,
    "GET /v1/images": ALL,
    "GET /v1/tokens": ALL,
    "GET /v1/tokens?user=ann": "401 403 403 403 403 403 200 200",
    "POST /v1/tokens": "401 403 201 201 201 201 201 201",
    "DELETE /v1/tokens/{token}": "401 403 404 404 404 404 200 404",
    "GET /v1/models": ALL,
    "GET /v1/models/tiny": ALL,
    "GET /v1/models/zebra-model": OF_RED,
    "GET /v1/endpoints": ALL,
    "GET /v1/endpoints/zebra-api": OF_RED,
    "GET /v1/endpoints/zebra-api/decisions": OF_RED,
    "GET /v1/pipelines": ALL,
    "GET /v1/pipelines/zebra-flow": OF_RED,
    "GET /v1/pipeline-runs": ALL,
    "GET /v1/pipeline-runs/{run}": OF_RED,
    "GET /v1/audit": ALL,
    "GET /v1/audit/verify": ADMINS,
    "GET /v1/diagnosis": ALL,
    "GET /v1/events": ALL,
    "GET /v1/events/stream": "401 403",  # the others would be told for ever; they see what /v1/events shows
    "GET /metrics": ADMINS,
    "POST /v1/operations": "401 403 422 422 422 422 422 422",
    "POST /v1/agents/register": AGENTS,
    "POST /v1/agents/n1/beat": "401 200 403 403 403 403 403 403",
}
"""What is answered to each of ROLES; a HEAD has no body to tell apart. Parts in braces are ids."""

BODIES: dict[str, Any] = {
    "POST /v1/estimates": {"cpu": 1},
    "POST /v1/tokens": {},
    "POST /v1/agents/n1/beat": {},
}
HEADERS: dict[str, dict[str, str]] = {
    "POST /v1/uploads": {
        "Upload-Length": "4",
        "Upload-Metadata": "folder emVicmEtZGF0YQ==,project cmVk,path ei1uZXc=",  # zebra-data, red, z-new
    },
    "PATCH /v1/uploads/{upload}": {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"},
}

MAY_NOT, NO_SUCH = "not_allowed", "not_found"
EVERYBODY = "done done done done done done"
THEIRS = f"{NO_SUCH} {NO_SUCH} {MAY_NOT} done done done"
"""Things of ann's: she, who leads her project, and an admin."""
MEMBERS = f"{NO_SUCH} {NO_SUCH} done done done done"
LEADERS = f"{NO_SUCH} {NO_SUCH} {MAY_NOT} done {MAY_NOT} done"
ADMIN = f"{MAY_NOT} {MAY_NOT} {MAY_NOT} {MAY_NOT} {MAY_NOT} done"
OPERATIONS: list[tuple[dict[str, Any], str]] = [
    ({"op": "start_session", "command": "x"}, EVERYBODY),
    ({"op": "start_session", "command": "x", "project": "red"}, MEMBERS),
    ({"op": "start_session", "command": "x", "depends_on": ["zebra-run"]}, MEMBERS),
    ({"op": "start_session", "command": "x", "mounts": ["zebra-data"]}, MEMBERS),
    ({"op": "terminate_sessions", "sessions": ["zebra-run"]}, THEIRS),
    ({"op": "restart_session", "session": "zebra-run"}, THEIRS),
    ({"op": "set_session_priority", "session": "zebra-wait", "priority": 5}, THEIRS),
    (
        {"op": "set_session_priority", "session": "zebra-wait", "priority": 50},
        f"{NO_SUCH} {NO_SUCH} {MAY_NOT} done {MAY_NOT} done",
    ),
    ({"op": "start_session", "command": "x", "priority": 50}, f"{MAY_NOT} done {MAY_NOT} done {MAY_NOT} done"),
    ({"op": "cordon_node", "node": "n1"}, ADMIN),
    ({"op": "uncordon_node", "node": "n2"}, ADMIN),
    ({"op": "drain_node", "node": "n1"}, ADMIN),
    ({"op": "move_node", "node": "n1", "resource_group": "spare"}, ADMIN),
    ({"op": "set_scheduling_policy", "resource_group": "default", "policy": "lifo"}, ADMIN),
    ({"op": "create_folder", "name": "new"}, EVERYBODY),
    ({"op": "create_folder", "name": "new", "project": "red"}, MEMBERS),
    ({"op": "delete_folder", "folder": "zebra-data"}, THEIRS),
    ({"op": "delete_file", "folder": "zebra-data", "path": "zebra.txt"}, MEMBERS),
    ({"op": "restore_folder", "folder": "zebra-trash"}, THEIRS),
    ({"op": "share_folder", "folder": "zebra-data", "permission": "read", "user": "eve"}, THEIRS),
    ({"op": "unshare_folder", "folder": "zebra-data", "user": "pat"}, THEIRS),
    ({"op": "clone_folder", "folder": "zebra-data", "name": "copy"}, MEMBERS),
    ({"op": "set_folder_quota", "folder": "zebra-data", "quota": 2**30}, THEIRS),
    ({"op": "deploy_model", "model": "tiny", "name": "new"}, EVERYBODY),
    ({"op": "deploy_model", "model": "tiny", "name": "new", "project": "red"}, MEMBERS),
    ({"op": "install_model", "recipe": "qwen3-8b"}, EVERYBODY),
    ({"op": "install_model", "recipe": "qwen3-8b", "project": "red"}, MEMBERS),
    ({"op": "deploy_model", "model": "zebra-model", "name": "new"}, MEMBERS),
    ({"op": "scale_endpoint", "endpoint": "zebra-api", "replicas": 2}, THEIRS),
    (
        {
            "op": "set_autoscaling",
            "endpoint": "zebra-api",
            "metric": "queue_depth",
            "target": 4,
            "min_replicas": 1,
            "max_replicas": 3,
        },
        THEIRS,
    ),
    ({"op": "delete_endpoint", "endpoint": "zebra-api"}, THEIRS),
    ({"op": "put_pipeline", "text": "{name: new, steps: [{name: a, command: x}]}"}, EVERYBODY),
    ({"op": "put_pipeline", "text": "{name: new, steps: [{name: a, command: x}]}", "project": "red"}, MEMBERS),
    ({"op": "delete_pipeline", "pipeline": "zebra-flow"}, THEIRS),
    ({"op": "run_pipeline", "pipeline": "zebra-flow"}, MEMBERS),
    ({"op": "cancel_pipeline_run", "run": "{run}"}, THEIRS),
    ({"op": "resume_pipeline_run", "run": "{run}"}, f"{NO_SUCH} {NO_SUCH} {MAY_NOT} conflict conflict conflict"),
    ({"op": "create_project", "name": "new"}, ADMIN),
    ({"op": "create_user", "name": "new"}, ADMIN),
    ({"op": "deactivate_user", "user": "ann"}, ADMIN),
    ({"op": "reactivate_user", "user": "gone"}, ADMIN),
    ({"op": "link_user", "user": "ann", "subject": "https://id.lab.example 7"}, ADMIN),
    ({"op": "add_project_member", "project": "red", "user": "olga"}, LEADERS),
    ({"op": "remove_project_member", "project": "red", "user": "bob"}, LEADERS),
    ({"op": "set_quota", "project": "red", "gpu": 1}, f"{NO_SUCH} {NO_SUCH} {MAY_NOT} {MAY_NOT} {MAY_NOT} done"),
    ({"op": "set_quota", "user": "ann", "gpu": 1}, f"{NO_SUCH} {MAY_NOT} {MAY_NOT} {MAY_NOT} {MAY_NOT} done"),
    ({"op": "register_image", "image": "new:1"}, ADMIN),
    ({"op": "create_token"}, EVERYBODY),
    ({"op": "create_token", "user": "ann"}, f"{NO_SUCH} {MAY_NOT} {MAY_NOT} {MAY_NOT} done done"),
    ({"op": "create_token", "user": ""}, ADMIN),
    ({"op": "revoke_token", "token": "{token}"}, f"{NO_SUCH} {NO_SUCH} {NO_SUCH} {NO_SUCH} done done"),
    ({"op": "undo", "action": "{action}"}, f"{NO_SUCH} {NO_SUCH} {NO_SUCH} {NO_SUCH} done done"),
]
"""What the preview says to each of PEOPLE: done, or the code of the first reason why not."""

HIDDEN = ("zebra", "ann", "bob", "red")
"""What eve must not come to know: names of ann's things, of people she shares no project with, of their project."""


class World(NamedTuple):
    """Red's things, and everybody's tokens."""

    lab: Lab
    app: FastAPI
    tokens: dict[str, str]
    ids: dict[str, str]

    def http(self, role: str) -> httpx.AsyncClient:
        token = self.tokens.get(role)
        headers = {"Tus-Resumable": "1.0.0"} | ({"Authorization": f"Bearer {token}"} if token else {})
        transport = httpx.ASGITransport(self.app)
        return httpx.AsyncClient(transport=transport, base_url="http://lab", headers=headers)

    def with_ids(self, text: str) -> str:
        for name, ident in self.ids.items():
            text = text.replace("{%s}" % name, ident)  # noqa: UP031 - it is JSON, full of braces
        return text


@pytest.fixture
async def world(lab: Lab) -> World:
    core, ids = lab.core, dict[str, str]()
    node = await lab.node("n1", cpu=4)
    await lab.node("n2", cpu=1)
    async with core.db.write() as db:
        db.add(GroupRow(name="spare"))
    for name, project in (("lea", "red"), ("olga", "blue"), ("gone", "red")):
        await lab.boss.execute(CreateUser(name=name, project=project))
        if name != "gone":
            await lab.boss.execute(AddProjectMember(project=project, user=name, role="project_admin"))
    await lab.boss.execute(DeactivateUser(user="gone"))
    await lab.boss.execute(AddProjectMember(project="blue", user="boss"))
    await lab.boss.execute(CordonNode(node="n2"))
    await lab.ann.execute(StartSession(command="x", name="zebra-run", cpu=3))
    await node.obey()
    await lab.ann.execute(StartSession(command="x", name="zebra-wait", cpu=4))
    ids["action"] = str((await lab.ann.execute(CreateFolder(name="zebra-data"))).audit_id)
    await lab.boss.execute(CreateUser(name="pat"))
    await lab.ann.execute(ShareFolder(folder="zebra-data", permission="read", user="pat"))
    assert core.volumes is not None
    (core.volumes.path("red", "zebra-data") / "zebra.txt").write_text("stripes")
    await lab.ann.execute(CreateFolder(name="zebra-trash"))
    await lab.ann.execute(DeleteFolder(folder="zebra-trash"))
    await _model(lab, "tiny", None)
    await _model(lab, "zebra-model", "red")
    assert (await lab.ann.execute(DeployModel(model="tiny", name="zebra-api"))).refused == []
    await lab.ann.execute(PutPipeline(text="{name: zebra-flow, steps: [{name: a, command: x}]}"))
    await lab.ann.execute(RunPipeline(pipeline="zebra-flow"))
    tokens = {role: core.tokens.passing(name) for role, name in PEOPLE.items()} | {"agents": core.tokens.passing("")}
    world = World(lab, create_app(core), tokens, ids)
    async with world.http("owner") as http:
        runs = (await http.get("/v1/pipeline-runs")).json()
        ids["run"] = runs["items"][0]["id"]
    ids["token"] = (await lab.ann.make_token(NewToken(name="zebra-token"))).id
    return world


async def _model(lab: Lab, name: str, project: str | None) -> None:
    now, owner = lab.clock.now(), "ann" if project else "boss"
    recipe = Recipe(name=name, runtime="command", launch=Launch(command="serve", cpu=1))
    async with lab.core.db.write() as db:
        db.add(
            ModelRow(name=name, owner=owner, project=project, source=name, recipe=recipe.model_dump(mode="json"),
                     card={}, state="ready", state_since=now, reasons=[], created=now)
        )  # fmt: skip


async def _upload(world: World) -> str:
    """A new one of ann's, as each row of the table needs it."""
    async with world.http("owner") as http:
        reply = await http.post("/v1/uploads", headers=HEADERS["POST /v1/uploads"])
    assert reply.status_code == 201, reply.text
    return reply.headers["Location"].rpartition("/")[2]


# ── the tables are whole ─────────────────────────────────────────────────────────────────────────


def _routes() -> Iterator[str]:
    for module in ROUTERS:
        for route in module.router.routes:
            if isinstance(route, APIRoute) and route.path not in OPEN:
                yield from (f"{method} {route.path}" for method in route.methods)


def _fits(template: str, route: str) -> bool:
    """Is `GET /v1/sessions/zebra-run` one of `GET /v1/sessions/{ref}`?"""
    wanted, told = template.split("/"), route.partition("?")[0].split("/")
    return len(wanted) == len(told) and all(w == t or w.startswith("{") for w, t in zip(wanted, told, strict=True))


def test_every_route_is_in_the_table() -> None:
    missing = [route for route in _routes() if not any(_fits(route, known) for known in ROUTES)]
    assert missing == [], f"say in ROUTES of {__file__} who may call {missing}, and what everybody else is told"


def test_every_operation_is_in_the_table() -> None:
    every = {kind.model_fields["op"].default for kind in get_args(get_args(Operation)[0])}
    missing = sorted(every - {example["op"] for example, _ in OPERATIONS})
    assert missing == [], f"say in OPERATIONS of {__file__} who may do {missing}, and what everybody else is told"


# ── and true ─────────────────────────────────────────────────────────────────────────────────────


async def _ask(world: World, role: str, route: str) -> httpx.Response:
    method, path = world.with_ids(route).split(" ")
    async with world.http(role) as http:
        body = BODIES.get(route)
        content = b"data" if method == "PATCH" else None
        return await http.request(method, path, json=body, content=content, headers=HEADERS.get(route))


@pytest.mark.parametrize("route", ROUTES)
async def test_a_route_answers_everybody_as_the_table_says(world: World, route: str) -> None:
    if "{upload}" in route:
        world.ids["upload"] = await _upload(world)
    expected = ROUTES[route].split()
    found = [str((await _ask(world, role, route)).status_code) for role in ROLES[: len(expected)]]
    assert dict(zip(ROLES, found, strict=False)) == dict(zip(ROLES, expected, strict=False))


@pytest.mark.parametrize(
    ("example", "expected"), OPERATIONS, ids=lambda v: json.dumps(v) if isinstance(v, dict) else ""
)
async def test_an_operation_says_to_everybody_what_the_table_says(
    world: World, example: dict[str, Any], expected: str
) -> None:
    operation = TypeAdapter(Operation).validate_python(json.loads(world.with_ids(json.dumps(example))))
    found = {}
    for role, name in PEOPLE.items():
        user = await world.lab.core.user(name)
        outcome = await world.lab.core.execute(user, OperationRequest(operation=operation, dry_run=True))
        found[role] = outcome.refused[0].code if outcome.refused else "done"
    assert found == dict(zip(PEOPLE, expected.split(), strict=True))


# ── nothing hidden is told ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("route", [r for r in ROUTES if r.startswith("GET") and ROUTES[r] == ALL])
async def test_no_list_holds_what_another_project_has(world: World, route: str) -> None:
    reply = await _ask(world, "outsider", route)
    told = set(_strings(reply.json()))
    assert [text for text in told if any(hidden in text.split("-")[0].split() for hidden in HIDDEN)] == []
    assert not [text for text in told if "zebra" in text]


def _strings(body: Any) -> Iterator[str]:
    """Every key and value that is text."""
    if isinstance(body, dict):
        for key, value in body.items():
            yield str(key)
            yield from _strings(value)
    elif isinstance(body, list):
        for value in body:
            yield from _strings(value)
    elif isinstance(body, str):
        yield body


@pytest.mark.parametrize("route", [r for r in ROUTES if ROUTES[r] in (OF_RED, OWNERS) and not r.startswith("HEAD")])
async def test_what_may_not_be_seen_is_told_as_what_is_not_there(world: World, route: str) -> None:
    if "{upload}" in route:
        world.ids["upload"] = await _upload(world)
    method, path = world.with_ids(route).split(" ")
    name = world.ids[route.split("{")[1].rstrip("}")] if "{" in route else _thing(path)
    content = b"data" if method == "PATCH" else None
    async with world.http("outsider") as http:
        hidden = await http.request(method, path, content=content, headers=HEADERS.get(route))
        none = await http.request(method, path.replace(name, "nosuch"), content=content, headers=HEADERS.get(route))
    assert hidden.text.replace(name, "nosuch") == none.text
    assert hidden.status_code == none.status_code


def _thing(path: str) -> str:
    return "red" if path.endswith("=red") else path.split("/")[3]


@pytest.mark.parametrize(
    "example",
    [example for example, expected in OPERATIONS if expected.startswith(NO_SUCH)],
    ids=json.dumps,
)
async def test_an_operation_on_what_may_not_be_seen_is_refused_as_on_what_is_not_there(
    world: World, example: dict[str, Any]
) -> None:
    eve = await world.lab.core.user("eve")
    said = []
    for text in (world.with_ids(json.dumps(example)), _on_nothing(json.dumps(example))):
        operation = TypeAdapter(Operation).validate_python(json.loads(text))
        outcome = await world.lab.core.execute(eve, OperationRequest(operation=operation))
        told = outcome.model_dump_json(include={"refused"})
        said.append(_on_nothing(told, world.ids))
    assert said[0] == said[1]


def _on_nothing(text: str, ids: dict[str, str] | None = None) -> str:
    """About things that do not exist."""
    for name in ("zebra-run", "zebra-data", "zebra-trash", "zebra-api", "zebra-flow", "zebra-model", "red", "ann"):
        text = text.replace(f'"{name}"', '"nosuch"')
    for name, ident in (ids or {"run": "{run}", "token": "{token}", "action": "{action}"}).items():
        text = text.replace(ident, "a-999999" if name == "action" else "nosuch")
    return text


async def test_who_waits_behind_another_project_learns_no_name_of_it(world: World) -> None:
    await world.lab.eve.execute(StartSession(command="x", name="hers", cpu=4))
    mine = await world.lab.eve.explain("hers")
    text = mine.model_dump_json()
    assert "zebra" not in text
    assert "another project's session (4 CPU)" in text
    assert "zebra-wait" in (await world.lab.bob.explain("zebra-wait")).model_dump_json()
    for reader in (await world.lab.eve.preview(StartSession(command="x", cpu=4)),):
        assert "zebra" not in reader.model_dump_json()
    seen_by_admin = await world.lab.boss.explain("hers")
    assert "zebra-wait" in seen_by_admin.ahead


async def test_the_same_name_does_not_show_anothers_events(world: World) -> None:
    await world.lab.eve.execute(StartSession(command="x", name="zebra-run", cpu=1))
    told = [str(e.message) for e in (await world.lab.eve.events(limit=1000)).items if e.target == "zebra-run"]
    assert told
    assert not [text for text in told if "ann" in text]
