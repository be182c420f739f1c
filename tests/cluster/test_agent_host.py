"""What the agent finds out of its host: limits, GPUs, control groups. On made-up files and a made-up driver."""

import os
from pathlib import Path

import pynvml
import pytest

from cluster.agents import choice, discover, isolation
from cluster.agents.accelerators import Accelerators, cuda
from cluster.agents.byhand import files
from cluster.agents.cgroups import Cgroups1, Cgroups2
from cluster.agents.samples import Holding, Sampler

GIB = 1 << 30


@pytest.mark.parametrize(
    ("content", "cores"),
    [
        ({"cpu.max": "50000 100000"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "75000", "cpu/cpu.cfs_period_us": "100000"}, 0.75),
    ],
)
def test_a_container_has_the_cores_its_control_group_leaves(
    tmp_path: Path, content: dict[str, str], cores: float
) -> None:
    assert discover.cores(files(tmp_path, content)) == cores


@pytest.mark.parametrize("content", [{}, {"cpu.max": "max 100000"}, {"cpu/cpu.cfs_quota_us": "-1"}])
def test_without_a_limit_it_has_the_cores_it_may_run_on(tmp_path: Path, content: dict[str, str]) -> None:
    assert discover.cores(files(tmp_path, content)) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_container_has_the_memory_its_control_group_leaves(tmp_path: Path, name: str) -> None:
    assert discover.memory(files(tmp_path, {name: str(GIB // 4)})) == GIB // 4


def test_no_limit_is_not_taken_for_a_huge_memory(tmp_path: Path) -> None:
    assert discover.memory(files(tmp_path, {"memory/memory.limit_in_bytes": "9223372036854771712"})) < 1 << 50
    assert discover.memory(files(tmp_path, {"memory.max": "max"})) < 1 << 50


class Driver:
    """Two GPUs, the second one without a power meter."""

    class Bytes:
        total = 80 * GIB

    class Rates:
        gpu = 35

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answers = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetName": lambda handle: "NVIDIA A100-SXM4-80GB",
            "nvmlDeviceGetMemoryInfo": lambda handle: self.Bytes,
            "nvmlDeviceGetUtilizationRates": lambda handle: self.Rates,
            "nvmlDeviceGetTemperature": lambda handle, kind: 61,
            "nvmlDeviceGetPowerUsage": self.power,
        }
        for name, answer in answers.items():
            monkeypatch.setattr(pynvml, name, answer)

    def power(self, handle: int) -> int:
        if handle == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return 250_000


def test_gpus_are_found_with_their_live_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver().install(monkeypatch)
    info = discover.node_info("a100-01", Accelerators({"cuda": cuda.find}).find(), "process")
    assert (info.capacity.gpu, info.gpu_model) == (2, "A100-SXM4-80GB")
    first, second = info.devices
    assert (first.memory, first.utilization, first.temperature, first.power) == (80 * GIB, 0.35, 61, 250)
    assert second.power is None


def test_without_a_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert cuda.find() == []


def test_a_sessions_use_is_that_of_its_gpus_where_it_has_some(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver().install(monkeypatch)
    sample = Sampler(cuda.find).take([Holding("s1", os.getpid(), cpu=1, devices=(0, 1))])
    assert sample.sessions == {"s1": 0.35}
    assert sample.temperature == 61
    assert sample.power == 250


V1 = "9:name=systemd:/\n4:memory:/box\n3:cpuset:/\n1:cpu,cpuacct:/\n8:pids:/\n0::/\n"


def test_version_1_groups_hold_memory_cores_and_processes(tmp_path: Path) -> None:
    for name in ("memory/box", "cpu,cpuacct", "pids"):
        (tmp_path / name).mkdir(parents=True)
    groups = Cgroups1("s1.1.0", tmp_path, V1)
    groups.create(memory=GIB, cpu=1.5)
    groups.join(4711)
    assert (tmp_path / "memory/box/helmsman-s1.1.0/memory.limit_in_bytes").read_text() == str(GIB)
    assert (tmp_path / "cpu,cpuacct/helmsman-s1.1.0/cpu.cfs_quota_us").read_text() == "150000"
    assert (tmp_path / "pids/helmsman-s1.1.0/cgroup.procs").read_text() == "4711"
    assert not groups.ran_out()
    (tmp_path / "memory/box/helmsman-s1.1.0/memory.oom_control").write_text(
        "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"
    )
    assert groups.ran_out()


@pytest.mark.parametrize(("delegated", "place"), [("user/agent", "user/agent"), ("user", "user")])
def test_version_2_groups_lie_where_controllers_are_delegated(tmp_path: Path, delegated: str, place: str) -> None:
    (tmp_path / "user/agent").mkdir(parents=True)
    files(tmp_path, {f"{delegated}/cgroup.subtree_control": "cpu memory pids\n"})
    groups = Cgroups2("s1.1.0", tmp_path, "0::/user/agent\n")
    groups.create(memory=GIB, cpu=0.5)
    made = tmp_path / place / "helmsman-s1.1.0"
    assert (made / "memory.max").read_text() == str(GIB)
    assert (made / "cpu.max").read_text() == "50000 100000"
    (made / "memory.events").write_text("low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n")
    assert groups.ran_out()


def test_where_nothing_is_delegated_version_2_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "user").mkdir()
    groups = Cgroups2("s1.1.0", tmp_path, "0::/user\n")
    with pytest.raises(OSError, match="no version 2 memory controller"):
        groups.create(memory=GIB, cpu=1)
    groups.remove()
    assert list((tmp_path / "user").iterdir()) == []


def test_the_best_fence_of_this_host_is_one_that_there_is() -> None:
    assert choice.plain() in isolation.KINDS
