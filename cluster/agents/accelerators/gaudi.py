"""Intel Gaudi, by `hl-smi`. Tested on samples of its output only."""

import csv

from cluster.agents.accelerators.reading import figure, scaled, tool
from cluster.models import Device

_COLUMNS = ("index", "module_id", "name", "memory.total", "utilization.aip", "temperature.aip", "power.draw")


def find() -> list[Device]:
    """None where the tool is not installed. Raises OSError or ValueError when it says nothing that can be read."""
    try:
        said = tool("hl-smi", "-Q", ",".join(_COLUMNS), "-f", "csv,noheader,nounits")
    except FileNotFoundError:
        return []
    return parse(said)


def parse(said: str) -> list[Device]:
    """One line a device; memory in MiB."""
    lines = [[cell.strip() for cell in line] for line in csv.reader(said.splitlines()) if line]
    return [_device(dict(zip(_COLUMNS, line, strict=True))) for line in lines]


def _device(row: dict[str, str]) -> Device:
    index = int(row["index"])
    return Device(
        index=index,
        model=row["name"],
        kind="gaudi",
        memory=int(figure(row, "memory.total") or 0) << 20,
        utilization=scaled(figure(row, "utilization.aip"), 0.01),
        temperature=figure(row, "temperature.aip"),
        power=figure(row, "power.draw"),
        ident=row["module_id"],
        files=[f"/dev/accel/accel{index}", f"/dev/accel/accel_controlD{index}"],
    )
