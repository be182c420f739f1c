"""The ITP traces: how they are read and replayed, on a small trace made up here."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from evals.benchmarks import itp, told
from evals.benchmarks.itp import RESUMING, Found, Replay, Trace, nodes_for
from evals.benchmarks.report import Options, Wrong
from evals.benchmarks.told import Job, easy, fit, oracle, strict

HEAD = "job_id,submission_time,duration,num_gpu"


def bursts(count: int, seed: int = 2) -> list[tuple[float, float, int]]:
    """(submitted, seconds, GPUs): sweeps of equal jobs, some short, some long, some gangs. Load 0.85 on four nodes."""
    draw, at, made = random.Random(seed), 0.0, list[tuple[float, float, int]]()
    while len(made) < count:
        gpus, seconds = draw.choice((1, 1, 1, 2, 4, 8, 16)), draw.choice((900, 900, 3000, 40_000))
        for _ in range(draw.randint(3, 15)):
            made.append((round(at), seconds + draw.randint(0, 99), gpus))
            at += draw.randint(0, 90)
        at += draw.randint(0, 40_000)
    return made[:count]


def trace(rows: list[tuple[float, float, int]], nodes: int = 4) -> Trace:
    return Trace("made", tuple(Job(i, *row) for i, row in enumerate(rows)), nodes)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "itp").mkdir()
    rows = [f"j{i},{s:g},{d:g},{g}" for i, (s, d, g) in enumerate(reversed(bursts(300)))]
    (tmp_path / "itp" / "cluster99.csv").write_text("\n".join([HEAD, *rows]))
    return tmp_path


# ── the peers ────────────────────────────────────────────────────────────────────────────────────


def test_peers_on_a_queue_that_can_be_reckoned_by_hand() -> None:
    """One node: 4 GPUs for 100 s; then the whole node for 10; 4 GPUs for 50, over in time; for 200, too long."""
    jobs = [Job(0, 0, 100, 4), Job(1, 1, 10, 8), Job(2, 2, 50, 4), Job(3, 3, 200, 4)]
    assert strict(jobs, 1) == [100, 110, 160, 310]
    assert easy(jobs, 1) == [100, 110, 52, 310]
    assert oracle(jobs, 1) == [100, 110, 52, 310]
    shorter = [*jobs[:3], Job(3, 3, 5, 4)]
    assert oracle(shorter, 1) == [100, 110, 52, 57], "of two that the head does not feel, the one that was there"


def test_two_that_stay_beyond_the_reservation_do_not_take_its_room_together() -> None:
    """4 of 8 GPUs are free until 100 s; the first in line takes 5 then, so that 3 are left beside it."""
    jobs = [Job(0, 0, 100, 4), Job(1, 1, 10, 5), Job(2, 2, 500, 2), Job(3, 2, 500, 2)]
    assert easy(jobs, 1) == [100, 110, 502, 610]


def test_a_gang_takes_whole_nodes_and_one_remainder() -> None:
    assert fit([8, 3, 8, 5], 20) == [(0, 8), (2, 8), (3, 5 - 1)]
    assert fit([8, 3, 7, 5], 16) is None
    assert fit([8, 3, 7, 5], 4) == [(3, 4)]


# ── the replay ───────────────────────────────────────────────────────────────────────────────────


def test_a_replay_never_holds_more_than_there_is_and_every_job_runs_its_time() -> None:
    made = trace(bursts(300))
    replay = Replay(made)
    took: list[float] = []
    step = replay._pass

    def watched(now: float) -> None:
        step(now)
        took.append(sum(sum(p.devices.values()) for r in replay.board.running.values() for p in r.placements))

    replay._pass = watched  # type: ignore[method-assign]
    replay.run()
    assert max(took) == 32
    assert replay.stops
    assert all(end >= job.submitted + job.seconds for job, end in zip(made.jobs, replay.ends, strict=True))


def test_a_stopped_job_resumes_where_it_was_a_minute_late() -> None:
    """A long one has the only node; the short ones before it have taught what another short one is worth."""
    short = [(700.0 * i, 600.0, 8) for i in range(20)]
    replay = Replay(trace([*short, (14_000.0, 50_000.0, 8), (30_000.0, 600.0, 8)], nodes=1))
    replay.run()
    assert replay.ends[-1] == 30_000 + 600
    assert replay.stops == 1
    assert replay.ends[-2] == 14_000 + 50_000 + 600 + RESUMING
    taught = replay.learner.run_times.expect(8, np.array([7000.0]), np.array([0.0]), np.array([0]))
    assert 500 < taught[0] < 700


def test_nobody_is_stopped_who_may_not_be() -> None:
    replay = Replay(trace(bursts(200)), stoppable=0.0)
    replay.run()
    assert replay.stops == 0
    half = Replay(trace(bursts(200)), stoppable=0.5)
    assert sum(run.request.preemptible for run in half.runs.values()) == 100


def test_it_is_near_the_oracle_without_being_told_and_the_same_every_time() -> None:
    made = trace(bursts(300))
    first, again = Replay(made), Replay(made)
    first.run()
    again.run()
    assert first.ends == again.ends
    ours, known, first_come = (
        Found.of(made.jobs, ends) for ends in (first.ends, oracle(made.jobs, 4), easy(made.jobs, 4))
    )
    assert ours.completion < 1.1 * known.completion
    assert ours.completion < 0.7 * first_come.completion
    assert ours.gangs is not None
    assert first_come.gangs is not None
    assert ours.gangs < first_come.gangs


def test_what_a_job_will_take_changes_nothing_before_it_ends() -> None:
    """Those that wait longest, each in two lengths: whatever ends before it does, ends at the same moments."""
    rows = bursts(150)
    usual = Replay(trace(rows))
    usual.run()
    waits = [end - at - seconds for end, (at, seconds, _) in zip(usual.ends, rows, strict=True)]
    for changed in sorted(range(150), key=lambda i: -waits[i])[:4]:
        at, seconds, gpus = rows[changed]
        other = Replay(trace([*rows[:changed], (at, seconds + 50_000, gpus), *rows[changed + 1 :]]))
        other.run()
        until = min(usual.ends[changed], other.ends[changed])
        before = [[end for end in each if end < until] for each in (usual.ends, other.ends)]
        assert before[0] == before[1]
        assert waits[changed] > 0
        assert len(before[0]) > 20


# ── reading and reporting ────────────────────────────────────────────────────────────────────────


def test_the_number_of_nodes_gives_the_load_and_holds_the_largest_job() -> None:
    rows = [(float(i * 100), 720.0, 8) for i in range(101)]
    assert nodes_for(rows) == 8
    assert nodes_for([*rows, (10_000.0, 1.0, 100)]) == 13


def test_the_report_has_all_policies_of_a_cluster_that_nobody_has_heard_of(data: Path) -> None:
    report = itp.run(Options(data=data))
    assert [str(row[0]).removeprefix("cluster99, ") for row in report.rows] == [*itp.PEERS, *itp.SHARES]
    by_name = {str(row[0]): row for row in report.rows}
    assert by_name["cluster99, SJF+EASY"][-1] == 1.0
    assert report.targets[0].value == by_name["cluster99, short_first"][-1]
    assert [t.what for t in report.targets] == [
        "cluster99, completion / SJF+EASY that knows run times; stopped sessions resume",
        "cluster99, gangs' wait / EASY's",
    ]


def test_a_part_of_a_trace_is_its_beginning_on_as_many_nodes(data: Path) -> None:
    whole, part = (Trace.read("cluster99", data / "itp" / "cluster99.csv", size) for size in (1.0, 0.1))
    assert part.jobs == whole.jobs[:30]
    assert part.nodes == whole.nodes
    assert all(a.submitted <= b.submitted for a, b in pairwise(whole.jobs))


def test_another_file_is_refused_in_a_sentence(data: Path) -> None:
    other = data / "itp" / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(Wrong, match="is no ITP trace"):
        itp.run(Options(data=data, lists=("other",)))
    other.write_text(HEAD)
    with pytest.raises(Wrong, match="has no jobs"):
        Trace.read("other", other)


def test_a_job_larger_than_the_cluster_is_an_error_not_a_loop() -> None:
    with pytest.raises(AssertionError, match="larger than the cluster"):
        told.easy([Job(0, 0, 10, 16)], 1)
