"""Endpoints for real: server, agent and replicas as processes; updated under load, killed, and asked with `openai`."""

import asyncio
import os
import shlex
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from cluster.client import Client
from cluster.errors import Unavailable
from cluster.models import DeleteEndpoint, DrainNode, EndpointHealth, Undo
from evals.benchmarks import rolling
from evals.benchmarks.rolling import ENDPOINT, asking, housed, moved, replica_pids, settled, until
from evals.chaos.house import House

pytestmark = pytest.mark.slow


async def joined(house: House) -> Client:
    client = house.connect()
    await until(lambda: rolling._joined(client))
    return client


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with housed(tmp_path / "house") as house:
        yield house


async def test_no_request_fails_while_an_endpoint_is_updated(house: House) -> None:
    client = await joined(house)
    await moved(client, "one", 2)
    async with asking(house, 4) as load:
        await until(lambda: _answered(load, "one"))
        await moved(client, "two", 2)
        await until(lambda: _answered(load, "two"))
    assert Counter(a.wrong for a in load.asked if a.wrong) == {}
    assert {a.by for a in load.asked} == {"one", "two"}
    await client.close()


async def test_no_request_fails_while_the_node_of_its_replicas_is_emptied(tmp_path: Path) -> None:
    async with housed(tmp_path / "house", agents=2) as house:
        client = await joined(house)
        await until(lambda: _nodes(client, 2))
        await moved(client, "one", 2)
        async with asking(house, 4) as load:
            await until(lambda: _answered(load, "one"))
            node = (await client.endpoint(ENDPOINT)).replicas[0].node or ""
            assert (await client.execute(DrainNode(node=node))).refused == []
            await until(lambda: _elsewhere(client, node))
        assert Counter(a.wrong for a in load.asked if a.wrong) == {}
        await client.close()


async def _nodes(client: Client, count: int) -> bool:
    return (await client.nodes(status="alive")).total == count


async def _elsewhere(client: Client, node: str) -> bool:
    """The endpoint is whole again, without the node."""
    at = await settled(client, "one", 2)
    return at is not None and node not in [r.node for r in at.replicas]


async def _answered(load: rolling.Load, by: str) -> bool:
    return any(a.by == by for a in load.asked)


async def test_a_killed_replica_costs_only_what_it_had_and_is_replaced(house: House) -> None:
    client = await joined(house)
    await moved(client, "one", 2)
    async with asking(house, 4) as load:
        await until(lambda: _answered(load, "one"))
        before = {r.session for r in (await client.endpoint(ENDPOINT)).replicas}
        os.kill(replica_pids(house)[0], signal.SIGKILL)

        async def replaced() -> bool:
            at = await settled(client, "one", 2)
            return at is not None and len({r.session for r in at.replicas} & before) == 1

        await until(replaced)
    wrong = [a for a in load.asked if a.wrong]
    assert len(wrong) <= 4, wrong  # each client had one request under way at most
    assert all(a.wrong.startswith("502") for a in wrong)
    await client.close()


async def test_a_server_killed_in_the_middle_of_an_update_goes_on_with_it(house: House) -> None:
    client = await joined(house)
    await moved(client, "one", 3)
    await rolling.deploy(client, "two", 3)

    async def under_way() -> bool:
        at = await client.endpoint(ENDPOINT)
        return {r.model for r in at.replicas if r.phase.value == "healthy"} == {"one", "two"}

    await until(under_way)
    house.server.kill()
    assert len(replica_pids(house)) >= 3, "the replicas go on without the server"
    with pytest.raises(Unavailable):
        await client.endpoint(ENDPOINT)
    await client.close()
    house.server.start()
    await until(lambda: rolling._true(house.up))
    client = house.connect()

    async def done() -> bool:
        return await settled(client, "two", 3) is not None

    await until(done)
    await until(lambda: _count(house, 3))
    assert len((await client.sessions(type="inference")).items) == 3
    await client.close()


async def _count(house: House, wanted: int) -> bool:
    return len(replica_pids(house)) == wanted


async def test_a_deleted_endpoint_leaves_no_process_and_comes_back_by_undo(house: House) -> None:
    client = await joined(house)
    await moved(client, "one", 2)
    assert (await client.execute(DeleteEndpoint(endpoint=ENDPOINT))).refused == []
    await until(lambda: _count(house, 0))
    assert (await client.execute(Undo())).refused == []

    async def back() -> bool:
        return await settled(client, "one", 2) is not None

    await until(back)
    await client.close()


async def test_g_is_served_and_asked_with_the_openai_package(tmp_path: Path) -> None:
    """The model that ships, behind the proxy; plain and streamed."""
    weights = Path(__file__).parents[2] / "weights" / "g"
    if not any(weights.glob("*.onnx*")) and not any(weights.glob("*.safetensors")):
        pytest.skip("the weights of G are not here")
    line = f"exec {shlex.quote(sys.executable)} -m helmsman.serving --port $PORT"
    async with housed(tmp_path / "house", {"g": line}) as house:
        client = await joined(house)
        await moved(client, "g", 1)
        http = client._http
        base = f"{str(http.base_url).rstrip('/')}/serve/{ENDPOINT}/v1"
        token = http.headers["Authorization"].removeprefix("Bearer ")
        async with openai.AsyncOpenAI(base_url=base, api_key=token, max_retries=0, timeout=60) as asked:
            names = [model.id async for model in await asked.models.list()]
            said = await asked.chat.completions.create(
                model=names[0], messages=[{"role": "user", "content": "list the nodes"}]
            )
            assert said.choices[0].message.content or said.choices[0].message.tool_calls
            stream = await asked.chat.completions.create(
                model=names[0], messages=[{"role": "user", "content": "list the nodes"}], stream=True
            )
            pieces = [piece async for piece in stream]
            assert pieces[-1].choices == [] or pieces[-1].choices[0].finish_reason is not None
            with pytest.raises(openai.AuthenticationError):
                await asked.with_options(api_key="wrong").models.list()
        at = await client.endpoint(ENDPOINT)
        assert at.health is EndpointHealth.HEALTHY
        assert (at.metrics.requests_per_second or 0) > 0
        await client.close()


async def test_the_benchmark_counts_and_reports() -> None:
    size = rolling.Size(clients=2, replicas=1, updates=1, quiet=0.2)
    found = await asyncio.wait_for(rolling.measure(size), 180)
    assert found.failed == []
    assert len(found.updates) == 1
    assert len(found.when(True)) + len(found.when(False)) == len(found.asked) > 0
