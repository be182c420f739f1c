"""The two benchmarks of the scheduler alone, tiny, and the cluster that they make up."""

from cluster.scheduler import SELECTORS
from evals.benchmarks import kernel, latency
from evals.benchmarks.latency import Group, Measured
from evals.benchmarks.report import Options
from evals.benchmarks.synthetic import GPUS, GROUP, Draw, node, snapshot


def test_what_is_made_up_is_the_same_for_a_seed_and_holds_no_device_twice() -> None:
    assert [Draw(1).request() for _ in range(5)] == [Draw(1).request() for _ in range(5)]
    draw = Draw(2)
    runs = [[*draw.runs(i, 0.9)] for i in range(200)]
    devices = [sorted(d for r in there for p in r.placements for d in p.devices) for there in runs]
    assert all(len(taken) == len(set(taken)) for taken in devices)
    assert 0.85 < sum(map(len, devices)) / (200 * GPUS) < 0.95
    views = [node(i, there) for i, there in enumerate(runs)]
    assert all(sum(v.devices) == GPUS - len(taken) for v, taken in zip(views, devices, strict=True))


def test_requests_are_of_many_kinds() -> None:
    draw = Draw(3)
    made = [draw.request() for _ in range(500)]
    assert len({r.id for r in made}) == 500
    assert {r.node_count for r in made} >= {1, 2, 4, 8}
    assert any(0 < r.gpu < 1 for r in made)
    assert any(r.gpu == 0 for r in made)
    assert any(r.time_limit is None for r in made)
    assert snapshot(Group(GROUP), [node(0)], made, []).user_limits


def test_every_selector_has_its_rate_and_its_ratio_to_the_rescan() -> None:
    report = kernel.run(Options(size=0.004))
    assert [row[0] for row in report.rows] == [*SELECTORS, "plain numpy rescan"]
    assert all(isinstance(row[1], float) and row[1] > 0 for row in report.rows[:-1])
    assert {t.what for t in report.targets} == {f"decisions/s, {name}" for name in SELECTORS}
    assert len(report.ratios) == len(SELECTORS)


def test_a_pass_is_timed_for_each_policy_with_and_without_backfill() -> None:
    report = latency.run(Options(size=0.002))
    assert [row[0] for row in report.rows] == [
        *("fifo", "drf", "fair_share"),
        *("fifo, backfill", "drf, backfill", "fair_share, backfill"),
    ]
    assert len(report.targets) == 6


def test_events_are_followed_by_passes_that_start_something() -> None:
    found = latency.measure(latency.Size(nodes=16, pending=300, events=30), Group(GROUP, backfill=True))
    assert isinstance(found, Measured)
    assert len(found.passes) == len(found.planned) == 30
    assert found.started > 16
    assert 0.8 < found.full <= 1
    assert all(plan <= whole for plan, whole in zip(found.planned, found.passes, strict=True))
