"""`helmsman mcp` as a process of its own, over both transports, with the official client."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from mcp import Client as McpClient
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitResult

from cluster.models import NodeStatus
from cluster.simulator.world import World

pytestmark = pytest.mark.slow

SCENARIO = """
name: mcp-lab
clock: 2026-03-02T09:40:00+09:00
resource_groups: [{name: train, policy: fifo}]
nodes: [{name: "a100-[01-02]", resource_group: train, cpu: 64, memory: 512g, gpu: 8, gpu_model: A100-80G}]
projects: [{name: vision, gpu: 16}]
users:
  - {name: sora, role: admin, projects: [vision]}
  - {name: minho, projects: [vision]}
"""
HELMSMAN = [sys.executable, "-c", "from helmsman.cli import main; main()", "mcp"]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.open(SCENARIO)
    await world.settle()
    yield world
    await world.close()


@pytest.fixture
async def environ(world: World, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """Of a person whose settings name the cluster, which listens on a real port."""
    config = uvicorn.Config(world.app, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    home = {f"XDG_{name}_HOME": str(tmp_path / name.lower()) for name in ("DATA", "STATE", "CONFIG")}
    yield {
        **os.environ,
        **home,
        "LC_ALL": "C.UTF-8",
        "HELMSMAN_CLUSTER__URL": f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}",
        "HELMSMAN_CLUSTER__TOKEN": world.core.tokens.passing("sora"),
    }
    server.should_exit = True
    await serving


async def yes(context: Any, params: Any) -> ElicitResult:
    return ElicitResult(action="accept", content={"approve": True})


async def no(context: Any, params: Any) -> ElicitResult:
    return ElicitResult(action="decline")


async def status(world: World) -> NodeStatus:
    return (await world.client().node("a100-02")).status


def over_stdio(environ: dict[str, str]) -> StdioServerParameters:
    return StdioServerParameters(command=HELMSMAN[0], args=HELMSMAN[1:], env=environ)


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_over_stdio_reads_answer_and_changes_wait_for_a_yes(
    world: World, environ: dict[str, str], era: str
) -> None:
    async with McpClient(over_stdio(environ), elicitation_callback=no, mode=era) as mcp:
        assert len((await mcp.list_tools()).tools) > 50
        assert "2 nodes" in (await mcp.call_tool("list_nodes", {})).content[0].text
        assert (await mcp.call_tool("cordon_node", {"node": "a100-02"})).structured_content["status"] == "denied"
    assert await status(world) is NodeStatus.ALIVE
    async with McpClient(over_stdio(environ), elicitation_callback=yes, mode=era) as mcp:
        assert not (await mcp.call_tool("cordon_node", {"node": "a100-02"})).is_error
    assert await status(world) is NodeStatus.CORDONED


async def _process(environ: dict[str, str], *more: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*HELMSMAN, *more, env=environ, stdin=pipe, stdout=pipe, stderr=pipe)


async def test_standard_output_holds_nothing_but_the_protocol_and_sigterm_ends_it(environ: dict[str, str]) -> None:
    process = await _process(environ)
    assert process.stdin is not None
    assert process.stdout is not None
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    for message in ({"id": 1, "method": "initialize", "params": hello}, {"method": "notifications/initialized"}):
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
    process.stdin.write(b"this is no message\n")
    process.stdin.write(json.dumps({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}).encode() + b"\n")
    lines: list[Any] = []
    while not any(line.get("id") == 2 for line in lines):
        lines.append(json.loads(await asyncio.wait_for(process.stdout.readline(), 60)))
    process.send_signal(signal.SIGTERM)  # its input stays open: it must not wait for that
    rest, _ = await asyncio.wait_for(process.communicate(), 60)
    assert all(line["jsonrpc"] == "2.0" for line in [*lines, *map(json.loads, rest.splitlines())])
    assert process.returncode == 0


async def test_a_cluster_that_is_not_configured_is_one_sentence_on_standard_error(environ: dict[str, str]) -> None:
    process = await _process({k: v for k, v in environ.items() if k != "HELMSMAN_CLUSTER__TOKEN"})
    out, said = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out) == (2, b"")
    assert said.decode().startswith("The cluster at http://127.0.0.1")
    assert said.count(b"\n") == 1


# ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def url(environ: dict[str, str]) -> AsyncIterator[str]:
    process = await _process(environ, "--http", "0")
    assert process.stderr is not None
    line = (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
    yield line.split()[-1].rstrip(".")
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0


def bearer(token: str, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **headers}


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_over_http_everybody_acts_as_the_owner_of_their_token(world: World, url: str, era: str) -> None:
    async def cordon(user: str) -> Any:
        token = world.core.tokens.passing(user)
        async with httpx2.AsyncClient(headers=bearer(token)) as http:
            transport = streamable_http_client(url, http_client=http)
            async with McpClient(transport, elicitation_callback=yes, mode=era) as mcp:
                return await mcp.call_tool("cordon_node", {"node": "a100-02"})

    assert (await cordon("minho")).is_error
    assert await status(world) is NodeStatus.ALIVE
    assert not (await cordon("sora")).is_error
    assert await status(world) is NodeStatus.CORDONED


async def test_no_request_gets_in_without_a_good_token_or_from_another_sites_page(world: World, url: str) -> None:
    token = world.core.tokens.passing("sora")
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    accept = {"Accept": "application/json, text/event-stream"}

    async with httpx2.AsyncClient(headers=accept) as http:

        async def code(**headers: str) -> int:
            return (await http.post(url, json=body, headers=headers)).status_code

        assert await code() == 401
        assert await code(**bearer("hm_000000000000_wrong")) == 401
        assert await code(**bearer(token, Origin="https://evil.example")) == 403
        assert await code(**bearer(token, Host="evil.example:80")) == 421
        began = await http.post(url, json=body, headers=bearer(token))
        assert began.status_code == 200
        session = {"Mcp-Session-Id": began.headers["mcp-session-id"], "Mcp-Protocol-Version": "2025-11-25"}
        ask = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
        other = bearer(world.core.tokens.passing("minho"), **session)
        assert (await http.post(url, json=ask, headers=other)).status_code == 404
        assert (await http.post(url, json=ask, headers=bearer(token, **session))).status_code == 200
