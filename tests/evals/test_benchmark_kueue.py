"""Kueue's generators: how the file is read, and a tiny one against the real core."""

from pathlib import Path

import pytest

from evals.benchmarks import kueue
from evals.benchmarks.generator import amount, read
from evals.benchmarks.report import Options, Wrong

MINI = """
cohorts:
  - className: cohort
    count: 2
    queuesSets:
    - className: cq
      count: 2
      nominalQuota: 4
      borrowingLimit: 4
      reclaimWithinCohort: Any
      withinClusterQueue: LowerPriority
      workloadsSets:
      - count: 4
        creationIntervalMs: 5
        workloads:
        - {className: small, runtimeMs: 10, priority: 50, request: 1}
      - count: 2
        creationIntervalMs: 10
        workloads:
        - {className: large, runtimeMs: 20, priority: 200, request: 4}
"""
TAS = """
topology:
  levels:
    - {name: block, count: 1}
    - {name: rack, count: 3}
    - {name: node, count: 5, capacity: {cpu: "96", memory: 256Gi}}
cohorts:
  - className: c
    count: 1
    queuesSets:
    - className: q
      count: 1
      nominalQuota: "20"
      workloadsSets:
      - count: 10
        creationIntervalMs: 100
        workloads:
        - {className: a, runtimeMs: 200, priority: 50, request: 500m, podCount: 2, tasConstraint: required}
        - {className: b, runtimeMs: 200, priority: 50, request: 1250m, podCount: 4, tasConstraint: balanced}
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "kueue").mkdir()
    (tmp_path / "kueue" / "mini-generator.yaml").write_text(MINI)
    (tmp_path / "kueue" / "tas-generator.yaml").write_text(TAS)
    (tmp_path / "kueue" / "broken-generator.yaml").write_text("cohorts: 3")
    return tmp_path


def test_a_generator_is_queues_with_quotas_and_workloads_in_time(data: Path) -> None:
    mini = read(data / "kueue" / "mini-generator.yaml")
    assert len(mini.queues) == 4
    assert (mini.queues[3].cohort, mini.queues[3].quota, mini.queues[3].borrow) == ("cohort-1", 4, 4)
    assert mini.queues[0].preempts
    assert len(mini.workloads) == len({w.name for w in mini.workloads}) == 4 * 6
    larges = [w for w in mini.workloads if w.queue == "cohort-1-cq-0" and w.kind == "large"]
    assert [(w.at, w.seconds, w.cpu, w.priority) for w in larges] == [(0.0, 0.02, 4.0, 200), (0.01, 0.02, 4.0, 200)]
    assert [len(each) for each in mini.sets()] == [4, 2] * 4
    assert mini.levels() == {50: 0, 200: 100}


def test_no_scheduler_can_be_faster_than_the_bound(data: Path) -> None:
    mini = read(data / "kueue" / "mini-generator.yaml")
    assert mini.bound() == pytest.approx(2 * (4 * 0.01 * 1 + 2 * 0.02 * 4) / 8)


def test_pods_are_a_gang_on_the_nodes_of_the_file(data: Path) -> None:
    tas = read(data / "kueue" / "tas-generator.yaml")
    assert (tas.racks, tas.nodes_a_rack, tas.node_cpu) == (3, 5, 96.0)
    assert {(w.kind, w.pods, w.cpu, w.rack) for w in tas.workloads} == {
        ("a", 2, 1.0, "required"),
        ("b", 4, 5.0, "preferred"),
    }
    assert not tas.queues[0].preempts
    assert len(kueue.nodes(tas)) == 15


def test_a_part_has_fewer_of_each_set_but_never_none(data: Path) -> None:
    assert len(read(data / "kueue" / "mini-generator.yaml", 0.01).workloads) == 4 * 2


@pytest.mark.parametrize(("text", "number"), [(20, 20), ("500m", 0.5), ("2Gi", 2 * 2**30), ("1.5", 1.5)])
def test_amounts_are_kubernetes_own(text: str | int, number: float) -> None:
    assert amount(text) == number
    with pytest.raises(ValueError, match="not an amount"):
        amount(f"{text}?")


def test_what_is_no_generator_is_one_sentence(data: Path) -> None:
    with pytest.raises(Wrong, match=r"broken-generator\.yaml is not one of Kueue's generators"):
        read(data / "kueue" / "broken-generator.yaml")


def test_every_workload_runs_once_and_the_queues_borrow_of_each_other(data: Path) -> None:
    report = kueue.run(Options(data, lists=("mini",)))
    (row,) = report.rows
    assert row[:2] == ["mini", 24]
    assert isinstance(row[3], float)
    assert row[3] >= 0.05
    assert report.targets == []
    assert "small" in report.notes[0]
