"""FuriosaAI RNGD: the device files say what there is, `furiosa-smi` how it does. Tested on samples only."""

from pathlib import Path

from cluster.agents.accelerators.reading import figure, numbered, rows, tool
from cluster.models import Device

MEMORY = 48 << 30
"""Bytes on each card; the tool does not say."""


def find(dev: Path = Path("/dev/rngd")) -> list[Device]:
    """None without the driver. Without the tool there are no figures."""
    numbers = numbered(dev, r"npu(\d+)mgmt")
    if not numbers:
        return []
    try:
        said = tool("furiosa-smi", "info", "--format", "json")
    except FileNotFoundError:
        said = "[]"
    return [d.model_copy(update={"files": _files(dev, d.index)}) for d in parse(said, numbers)]


def parse(said: str, numbers: list[int]) -> list[Device]:
    """The devices with these numbers, with what the tool said of each."""
    told = {int(figure(row, "device", "dev_name", "index") or 0): row for row in rows(said, "devices")}
    return [_device(n, told.get(n, {})) for n in numbers]


def _device(n: int, row: dict[str, object]) -> Device:
    return Device(
        index=n,
        model=str(row.get("arch") or "RNGD").upper(),
        kind="rngd",
        memory=MEMORY,
        temperature=figure(row, "temperature", "temp"),
        power=figure(row, "power"),
        ident=str(n),
    )


def _files(dev: Path, n: int) -> list[str]:
    """All that belong to one card: its cores, its memory, its management."""
    return sorted(str(path) for path in dev.glob(f"npu{n}*") if path.name.removeprefix(f"npu{n}")[:1].isalpha())
