"""AMD GPUs, by the kernel's own files: `kfd` says which of them compute and in which order ROCm counts them.

Tested on made-up files only.
"""

from pathlib import Path

from cluster.agents.accelerators.reading import number, numbered, scaled, text
from cluster.models import Device


def find(sys: Path = Path("/sys")) -> list[Device]:
    """None without the amdgpu driver. A graphics chip in a processor counts too, if ROCm counts it."""
    nodes = sys / "class/kfd/kfd/topology/nodes"
    minors = [m for n in numbered(nodes, r"(\d+)") if (m := _render_minor(nodes / str(n))) is not None]
    return [_device(sys, index, minor) for index, minor in enumerate(minors)]


def _render_minor(node: Path) -> int | None:
    """Of a node that has compute units; processors have none."""
    lines = (line.split() for line in text(node / "properties").splitlines())
    properties = {line[0]: line[1] for line in lines if len(line) == 2}
    minor = int(properties.get("drm_render_minor", "0"))
    return minor if int(properties.get("simd_count", "0")) > 0 and minor > 0 else None


def _device(sys: Path, index: int, minor: int) -> Device:
    here = sys / f"class/drm/renderD{minor}/device"
    hwmon = next(iter(sorted(here.glob("hwmon/hwmon*"))), here)
    power = number(hwmon / "power1_average") or number(hwmon / "power1_input")
    return Device(
        index=index,
        model=text(here / "product_name") or f"AMD {text(here / 'device') or 'GPU'}",
        kind="rocm",
        memory=int(number(here / "mem_info_vram_total") or 0),
        utilization=scaled(number(here / "gpu_busy_percent"), 0.01),
        temperature=scaled(number(hwmon / "temp1_input"), 0.001),
        power=scaled(power, 1e-6),
        ident=str(index),
        files=["/dev/kfd", f"/dev/dri/renderD{minor}"],
    )
