"""Rebellions ATOM: the device files say what there is, `rbln-stat -j` how it does. Tested on samples only."""

from pathlib import Path

from cluster.agents.accelerators.reading import figure, numbered, rows, scaled, tool
from cluster.models import Device


def find(dev: Path = Path("/dev")) -> list[Device]:
    """None without the driver. Without the tool there are no figures."""
    numbers = numbered(dev, r"rbln(\d+)")
    if not numbers:
        return []
    try:
        said = tool("rbln-stat", "-j")
    except FileNotFoundError:
        said = "[]"
    return parse(said, numbers)


def parse(said: str, numbers: list[int]) -> list[Device]:
    """The devices with these numbers, with what the tool said of each; memory in bytes."""
    told = {int(figure(row, "npu", "device") or 0): row for row in rows(said, "devices")}
    return [_device(n, told.get(n, {})) for n in numbers]


def _device(n: int, row: dict[str, object]) -> Device:
    memory = row.get("memory")
    return Device(
        index=n,
        model=str(row.get("name") or "RBLN"),
        kind="atom",
        memory=int(figure(memory, "total") or 0) if isinstance(memory, dict) else 0,
        utilization=scaled(figure(row, "util"), 0.01),
        temperature=figure(row, "temperature"),
        power=figure(row, "card_power"),
        ident=str(n),
        files=[f"/dev/rbln{n}", *(["/dev/rsdo"] if Path("/dev/rsdo").exists() else [])],
    )
