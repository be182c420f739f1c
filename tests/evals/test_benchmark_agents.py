"""The benchmark of the agents' routes, tiny."""

import pytest

from evals.benchmarks import agents

TINY = agents.Size(nodes=20, beats=60, orders=5, idle=0.2)


async def test_in_process_everything_is_measured() -> None:
    found = await agents.measure(TINY, over_http=False)
    assert found.way == "in process"
    assert min(found.storm, found.idle_beats, found.sampled_beats) > 0
    assert len(found.orders) == 5
    assert all(seconds > 0 for seconds in found.orders)
    assert 0 <= found.idle_cpu < 2


@pytest.mark.slow
async def test_over_http_everything_is_measured() -> None:
    found = await agents.measure(TINY, over_http=True)
    assert (found.way, len(found.orders)) == ("over HTTP", 5)
    assert min(found.storm, found.idle_beats, found.sampled_beats) > 0


def test_a_part_of_it_is_never_nothing() -> None:
    assert agents.Size().times(0.5) == agents.Size(500, 5000, 100, 15.0)
    assert agents.Size().times(1e-6) == agents.Size(8, 8, 8, 0.5)
