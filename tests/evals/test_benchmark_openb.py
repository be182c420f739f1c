"""The GPU trace filled to 130 %: how it is read and played, on a small fleet made up here."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evals.benchmarks import openb
from evals.benchmarks.openb import GROUP, MIB, Fgd, Outcome, Workload, at_random, best_fit, fgd, helmsman
from evals.benchmarks.report import Options, Wrong

NODES = """sn,cpu_milli,memory_mib,gpu,model
n-3,96000,393216,8,G2
n-1,64000,262144,2,P100
n-2,96000,393216,8,G2
n-4,32000,131072,4,V100M16
"""
PODS = [(8000, 1, 1000, ""), (4000, 1, 470, ""), (4000, 1, 530, ""), (3000, 1, 810, "P100|V100M16"), (2000, 0, 0, "")]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "openb"
    folder.mkdir()
    (folder / "openb_node_list_gpu_node.csv").write_text(NODES)
    columns = "name,cpu_milli,memory_mib,num_gpu,gpu_milli"
    rows = [(f"pod-{i:03}", PODS[i % len(PODS)]) for i in range(30)]
    plain = [f"{name},{cpu},4096,{gpus},{milli}" for name, (cpu, gpus, milli, _) in rows]
    named = [f"{name},{cpu},4096,{gpus},{milli},{spec}" for name, (cpu, gpus, milli, spec) in reversed(rows)]
    (folder / "openb_pod_list_default.csv").write_text("\n".join([columns, *plain]))
    (folder / "openb_pod_list_unheard.csv").write_text("\n".join([f"{columns},gpu_spec", *named]))
    return tmp_path


def workload(data: Path, name: str) -> Workload:
    folder = data / "openb"
    pods = openb.read_pods(folder / f"openb_pod_list_{name}.csv")
    return Workload(openb.read_nodes(folder / "openb_node_list_gpu_node.csv"), pods)


def test_a_list_is_read_by_name_with_the_models_that_will_do(data: Path) -> None:
    work = workload(data, "unheard")
    assert [(pod.cpu, pod.gpu, pod.gpu_model) for pod in work.pods[:5]] == [
        (8, 1, None), (4, 0.47, None), (4, 0.53, None), (3, 0.81, "P100|V100M16"), (2, 0, None),
    ]  # fmt: skip
    assert {pod.memory for pod in work.pods} == {4096 * MIB}
    assert work.gpus == 22


def test_the_pods_come_in_the_order_of_the_seed_until_they_ask_for_130_percent(data: Path) -> None:
    work = workload(data, "default")
    pods = work.arrivals(7)
    assert pods == work.arrivals(7) != work.arrivals(8)
    assert Counter(pods[:30]) == Counter(work.pods)
    asked = [sum(pod.gpu for pod in pods[:count]) for count in (-1, None)]
    assert asked[0] < 1.3 * 22 <= asked[1]


@pytest.mark.parametrize("way", [helmsman, fgd, best_fit, at_random])
def test_nothing_more_is_allocated_than_there_is_and_models_are_kept(
    data: Path, way: Callable[[Workload, int], Outcome]
) -> None:
    outcome = way(workload(data, "unheard"), 0)
    assert 80 < outcome.gpus <= 100
    picky = Workload(workload(data, "unheard").nodes, [openb.Need(GROUP, 1, MIB, 1, "P100")] * 3)
    assert way(picky, 0) == Outcome(pytest.approx(100 * 2 / 22), 2)


def test_helmsman_leaves_less_idle_than_the_plain_peers(data: Path) -> None:
    work = workload(data, "default")
    ours, tight, random = (sum(way(work, s).gpus for s in range(4)) for way in (helmsman, best_fit, at_random))
    assert ours > tight
    assert ours > random


def test_fgd_counts_what_the_next_pod_could_not_use(data: Path) -> None:
    """By hand: half of the pods want a whole device, half 0.4 of one and 60 cores."""
    node = openb.read_nodes(data / "openb" / "openb_node_list_gpu_node.csv")[1]
    work = Workload([node], [openb.Need(GROUP, 1, MIB, 1), openb.Need(GROUP, 60, MIB, 0.4)])
    peer, unit = Fgd(work), openb.UNIT
    free = np.array([[[unit, unit // 2], [unit, 3 * unit // 10]]])
    cpu, memory = np.array([64 * unit]), np.array([MIB])
    useless = peer._useless(np.array([0]), cpu, memory, free)
    assert useless[0].tolist() == pytest.approx([0.5 * 0.5, 0.5 * 0.3 + 0.5 * 0.3])
    few = peer._useless(np.array([0]), cpu // 2, memory, free)
    assert few[0].tolist() == pytest.approx([0.5 * 0.5 + 0.5 * 1.5, 0.5 * 0.3 + 0.5 * 1.3])


def test_the_report_has_all_lists_and_is_kept(data: Path) -> None:
    report = openb.run(Options(data=data, seeds=1))
    assert [row[0] for row in report.rows] == ["default", "unheard"]
    assert [row[3] for row in report.rows] == [95.39, None]
    assert [t.what for t in report.targets][:2] == ["default: GPUs allocated", "default: pods placed"]
    assert report.targets[0].value == round(helmsman(workload(data, "default"), 0).gpus, 3)
    assert json.loads(report.model_dump_json())["figures"][0]["series"][1]["name"] == "FGD published"


def test_a_part_of_the_fleet_is_not_compared_with_published_figures(data: Path) -> None:
    report = openb.run(Options(data=data, lists=("default",), seeds=1, size=0.5))
    assert not any("published" in t.what or t.what.startswith("default") for t in report.targets)
    assert len(report.targets) == 2


def test_a_list_without_gpus_is_refused_since_it_would_never_fill_them(data: Path) -> None:
    (data / "openb" / "openb_pod_list_cpus.csv").write_text("name,cpu_milli,memory_mib,num_gpu,gpu_milli\np,1,1,0,0\n")
    with pytest.raises(Wrong, match=r"No pod of the list cpus asks for a GPU\."):
        openb.run(Options(data=data, lists=("cpus",), seeds=1))
