"""The durable benchmark, tiny: twenty agents, and the checks that it makes of what the core did."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cluster.db.tables import EventRow, SessionRow
from cluster.models import Beat, BeatReply, Work, WorkId
from evals.benchmarks import durable
from evals.benchmarks.database import seed, verify
from evals.benchmarks.nodes import Node, Seen
from evals.benchmarks.report import Broken

TINY = durable.Size(nodes=20, sessions=30, over_http=10, clients=8)


async def test_every_session_runs_once_in_process_and_the_database_says_so() -> None:
    found = await durable.measure(TINY, seed=1, over_http=False)
    assert found.sessions == len(found.acknowledged) == len(found.started) == 30
    assert found.rate > 0
    assert found.commits
    assert all(ack >= 0 for ack in found.acknowledged)


@pytest.mark.slow
async def test_over_http_it_is_a_server_of_its_own() -> None:
    found = await durable.measure(TINY, seed=1, over_http=True)
    assert (found.way, found.sessions, found.commits) == ("over HTTP", 10, None)


def test_the_mix_has_gangs_fractions_and_cpu_sessions_and_is_the_same_for_a_seed() -> None:
    mix = durable.requests(400, 3)
    assert mix == durable.requests(400, 3)
    assert mix != durable.requests(400, 4)
    assert {r.node_count for r in mix} == {1, 2, 3, 4}
    assert {0.25, 0.5, 0, 1} <= {r.gpu for r in mix}
    assert len({r.name for r in mix}) == 400


def test_a_part_of_the_benchmark_keeps_its_nodes_until_it_is_very_small() -> None:
    assert durable.Size().times(0.5) == durable.Size(1000, 10_000, 2000, 512)
    assert durable.Size().times(0.001) == durable.Size(100, 20, 20, 51)


# ── the checks would find what is wrong ──────────────────────────────────────────────────────────

NOW = datetime(2026, 3, 2, tzinfo=UTC)


def session(name: str, state: str = "terminated", result: str | None = "success") -> SessionRow:
    return SessionRow(
        id=name,
        name=name,
        user="u00",
        project="p0",
        type="batch",
        state=state,
        result=result,
        state_since=NOW,
        submitted=NOW,
        cpu=1,
        memory=1,
        gpu=0,
        node_count=1,
        priority=10,
        resource_group="gpu",
        mounts=[],
        env={},
        depends_on=[],
        reasons=[],
    )


def end(name: str) -> EventRow:
    return EventRow(at=NOW, kind="session_terminated", severity="info", target=name, message={"text": "", "params": {}})


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("gone", []),
        ("failed", [session("failed", result="failure"), end("failed")]),
        ("running", [session("running", "running", None)]),
        ("twice", [session("twice"), end("twice"), end("twice")]),
    ],
)
async def test_what_is_lost_failed_unended_or_ended_twice_is_found(
    name: str, rows: list[SessionRow | EventRow], tmp_path: Path
) -> None:
    await seed(tmp_path, [session("well"), end("well"), *rows])
    await verify(tmp_path, ["well"])
    with pytest.raises(Broken, match=f"1 acknowledged sessions did not end well, once: .*{name}"):
        await verify(tmp_path, ["well", name])


async def test_a_pretended_agent_runs_what_it_is_told_and_a_second_run_is_seen() -> None:
    seen = Seen({"a": 1, "b": 1})
    attempts = iter([0, 1])
    beats: list[Beat] = []

    async def server(beat: Beat) -> BeatReply:
        beats.append(beat)
        if len(beats) > 6:
            raise Broken("enough")
        if beat.wait == 0:
            return BeatReply()
        attempt = next(attempts)
        ident = WorkId(session="s", attempt=attempt)
        return BeatReply(start=[Work(id=ident, name="a", user="u", command="true", cpu=1, memory=1)])

    with pytest.raises(Broken):
        await Node(server, seen, lambda _: 0.0).live()
    states = [[(r.state, r.id.attempt) for r in b.reports] for b in beats]
    assert states == [[], [("running", 0)], [("exited", 0)], [], [("running", 1)], [("exited", 1)], []]
    assert [len(b.running) for b in beats] == [0, 1, 0, 0, 1, 0, 0]
    assert seen.not_once() == ["a", "b"]
