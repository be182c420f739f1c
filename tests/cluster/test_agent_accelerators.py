"""Accelerators of several makes, on made-up device files and samples of what vendors' tools print."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from cluster.agents import accelerators
from cluster.agents.accelerators import Accelerators, atom, gaudi, reading, rngd, rocm, visible
from cluster.agents.byhand import files
from cluster.models import Device, NodeInfo, Resources

GIB = 1 << 30


def tool(directory: Path, name: str, prints: str, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> None:
    """A vendor's tool that prints this."""
    (directory / f"{name}.txt").write_text(prints)
    (directory / name).write_text(f"#!/bin/sh\ncat {directory}/{name}.txt\nexit {code}\n")
    (directory / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")


# ── each kind ────────────────────────────────────────────────────────────────────────────────────


def test_amd_gpus_are_read_from_the_kernels_files(tmp_path: Path) -> None:
    nodes, gpu = "class/kfd/kfd/topology/nodes", "class/drm/renderD129/device"
    sys = files(
        tmp_path,
        {
            f"{nodes}/0/properties": "cpu_cores_count 64\nsimd_count 0\ndrm_render_minor 0\n",
            f"{nodes}/1/properties": "simd_count 1216\ngfx_target_version 90402\ndrm_render_minor 129\n",
            f"{nodes}/2/properties": "simd_count 1216\ndrm_render_minor 128\n",
            f"{gpu}/product_name": "AMD Instinct MI300X\n",
            f"{gpu}/mem_info_vram_total": f"{192 * GIB}\n",
            f"{gpu}/gpu_busy_percent": "63\n",
            f"{gpu}/hwmon/hwmon4/temp1_input": "47000\n",
            f"{gpu}/hwmon/hwmon4/power1_average": "512000000\n",
            "class/drm/renderD128/device/device": "0x74a1\n",
        },
    )
    first, second = rocm.find(sys)
    assert (first.model, first.memory, first.kind) == ("AMD Instinct MI300X", 192 * GIB, "rocm")
    assert (first.utilization, first.temperature, first.power) == pytest.approx((0.63, 47, 512))
    assert first.files == ["/dev/kfd", "/dev/dri/renderD129"]
    assert (second.index, second.model, second.power) == (1, "AMD 0x74a1", None)
    assert rocm.find(tmp_path / "nothing") == []


def test_gaudi_is_read_from_hl_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "0, 5, HL-225, 98304, 12, 38, 101\n1, 3, HL-225, 98304, 0, N/A, 95\n"
    tool(tmp_path, "hl-smi", said, monkeypatch)
    first, second = gaudi.find()
    assert (first.model, first.memory, first.utilization, first.temperature, first.power) == (
        "HL-225", 96 * GIB, 0.12, 38, 101,
    )  # fmt: skip
    assert first.files == ["/dev/accel/accel0", "/dev/accel/accel_controlD0"]
    assert (second.index, second.ident, second.temperature) == (1, "3", None)


def test_atom_is_told_by_its_device_files_and_rbln_stat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dev = files(tmp_path / "dev", {"rbln0": "", "rbln10": "", "rbln2": "", "rblnctl": ""})
    said = """{"KMD_version": "1.2", "devices": [{"npu": "0", "name": "RBLN-CA22", "device": "rbln0",
        "temperature": "39C", "card_power": "18.4W", "util": "50.0",
        "memory": {"used": "0", "total": "16877879296"}}]}"""
    tool(tmp_path, "rbln-stat", said, monkeypatch)
    found = atom.find(dev)
    assert [d.index for d in found] == [0, 2, 10]
    assert (found[0].model, found[0].memory, found[0].power) == ("RBLN-CA22", 16877879296, 18.4)
    assert (found[0].temperature, found[0].utilization) == (39, 0.5)
    assert (found[1].model, found[1].power) == ("RBLN", None)
    assert found[2].files[0] == "/dev/rbln10"


@pytest.mark.parametrize(
    "said",
    [
        '[{"arch": "rngd", "dev_name": "npu1", "temperature": "40.98°C", "power": "38.40 W"}]',
        '{"devices": [{"arch": "RNGD", "device": "npu1", "temp": 40.98, "power": 38.4}]}',
    ],
)
def test_rngd_is_told_by_its_device_files_and_furiosa_smi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    names = ("npu0mgmt", "npu0pe0", "npu1mgmt", "npu1pe0", "npu10mgmt")
    dev = files(tmp_path / "dev", dict.fromkeys(names, ""))
    tool(tmp_path, "furiosa-smi", said, monkeypatch)
    zero, one, ten = rngd.find(dev)
    assert (one.model, one.temperature, one.power) == ("RNGD", 40.98, 38.4)
    assert one.files == [f"{dev}/npu1mgmt", f"{dev}/npu1pe0"]
    assert (zero.power, ten.index, ten.files) == (None, 10, [f"{dev}/npu10mgmt"])


def test_without_their_drivers_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gaudi.find() == atom.find(tmp_path) == rngd.find(tmp_path / "rngd") == []


def test_a_tool_that_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, "hl-smi", "driver not loaded", monkeypatch, code=3)
    with pytest.raises(OSError, match="hl-smi ended with 3"):
        gaudi.find()
    with pytest.raises(ValueError, match="no list of devices"):
        reading.rows('{"error": "x"}', "devices")


# ── all of them together ─────────────────────────────────────────────────────────────────────────


def card(kind: str, ident: str, **more: object) -> Device:
    return Device.model_validate({"index": int(ident), "model": kind, "kind": kind, "ident": ident, **more})


def test_devices_of_several_makes_have_a_number_each_and_keep_it() -> None:
    cuda, atoms = [card("cuda", "0"), card("cuda", "1")], [card("atom", "0"), card("atom", "1")]
    there = Accelerators({"cuda": lambda: list(cuda), "atom": lambda: list(atoms)})
    assert [(d.index, d.kind, d.ident) for d in there.find()] == [
        (0, "cuda", "0"), (1, "cuda", "1"), (2, "atom", "0"), (3, "atom", "1"),
    ]  # fmt: skip
    cuda.clear()
    assert [d.index for d in there.find()] == [2, 3], "a number moved when another device went away"


def test_one_kind_that_fails_leaves_the_others_and_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> list[Device]:
        raise RuntimeError("no driver")

    there = Accelerators({"bad": broken, "cuda": lambda: [card("cuda", "0")]})
    assert [d.kind for d in there.find()] == [d.kind for d in there.find()] == ["cuda"]
    assert capsys.readouterr().out.count("no driver") == 1


def test_an_installed_package_can_bring_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("good", f"{__name__}:a_new_kind", accelerators.GROUP),
        EntryPoint("bad", "no_such_module:find", accelerators.GROUP),
    ]
    monkeypatch.setattr(accelerators, "entry_points", lambda group: points if group == accelerators.GROUP else [])
    monkeypatch.setattr(EntryPoint, "load", lambda self: a_new_kind if self.name == "good" else 1 / 0)
    there = Accelerators()
    assert ("new-chip", "7") in [(d.kind, d.ident) for d in there.find()]
    assert "bad" not in there.finders


def a_new_kind() -> list[Device]:
    return [card("new-chip", "7")]


@pytest.mark.parametrize(
    ("kind", "fenced", "told"),
    [
        ("cuda", False, {"CUDA_VISIBLE_DEVICES": "1,3", "NVIDIA_VISIBLE_DEVICES": "1,3"}),
        ("cuda", True, {"CUDA_VISIBLE_DEVICES": "0,1", "NVIDIA_VISIBLE_DEVICES": "1,3"}),
        ("rocm", False, {"ROCR_VISIBLE_DEVICES": "1,3"}),
        ("rocm", True, {"ROCR_VISIBLE_DEVICES": "0,1"}),
        ("gaudi", True, {"HABANA_VISIBLE_MODULES": "1,3"}),
        ("atom", False, {"RBLN_DEVICES": "1,3"}),
        ("rngd", False, {"FURIOSA_DEVICES": "npu:1,npu:3"}),
        ("new-chip", False, {"NEW_CHIP_VISIBLE_DEVICES": "1,3"}),
    ],
)
def test_each_kind_is_told_by_its_own_variable_what_it_may_use(kind: str, fenced: bool, told: dict[str, str]) -> None:
    none = {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void"}
    assert visible([card(kind, "1"), card(kind, "3")], fenced=fenced) == none | told


def test_how_a_device_is_reached_stays_with_the_agent() -> None:
    info = NodeInfo(name="n", capacity=Resources(), devices=[card("cuda", "0", files=["/dev/nvidia0"])])
    assert not {"ident", "files"} & info.model_dump()["devices"][0].keys()
