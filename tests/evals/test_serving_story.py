"""The whole way of a model, for real: installed by its recipe, deployed, asleep, woken by a request of `openai`'s."""

from pathlib import Path

import openai
import pytest

from cluster.models import DeployModel, InstallModel, Outcome, SetAutoscaling
from evals.benchmarks.rolling import _joined, housed, until
from helmsman.models.g import SHIPPED

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SHIPPED / "onnx").is_dir(), reason="the model that ships (weights/g) is not here"),
]


def done(outcome: Outcome) -> Outcome:
    assert outcome.refused == [], outcome.refused
    return outcome


async def test_a_request_wakes_an_endpoint_that_sleeps_and_is_answered_by_g(tmp_path: Path) -> None:
    async with housed(tmp_path / "house") as house:
        client = house.connect()
        await until(lambda: _joined(client))
        done(await client.execute(InstallModel(recipe="g")))
        done(await client.execute(DeployModel(model="g", name="pilot", replicas=0)))
        done(
            await client.execute(
                SetAutoscaling(endpoint="pilot", metric="requests_per_second", target=5, min_replicas=0, max_replicas=2)
            )
        )
        asleep = await client.endpoint("pilot")
        assert (asleep.wanted, asleep.traffic.reachable) == (0, False)
        http = client._http
        base = f"{str(http.base_url).rstrip('/')}/serve/pilot/v1"
        token = http.headers["Authorization"].removeprefix("Bearer ")
        async with openai.AsyncOpenAI(base_url=base, api_key=token, max_retries=4, timeout=120) as asked:
            reply = await asked.chat.completions.create(model="g", messages=[{"role": "user", "content": "list nodes"}])
        assert reply.choices[0].message.content == "list_nodes()"
        awake = await client.endpoint("pilot")
        assert (awake.wanted, awake.traffic.reachable) == (1, True)
        page = await client.decisions("pilot")
        assert [(d.before, d.after) for d in page.items] == [(0, 1)]
        assert "there is no replica" in str(page.items[0].reason)
        assert awake.replicas[0].model == "g"
        await client.close()
