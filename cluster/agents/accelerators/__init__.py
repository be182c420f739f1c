"""The accelerators of this machine, of every make: found by one function for each kind, numbered once.

A kind more without touching this: a package with an entry point in the group `helmsman.accelerators`, a function that
returns `list[Device]`: `kind`, `model`, `memory`, `ident` (what its driver calls it), `files` (the device files that a
session needs), and the live figures. `index` is given here.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points

import structlog

from cluster.agents.accelerators import atom, cuda, gaudi, rngd, rocm
from cluster.models import Device

log = structlog.get_logger("accelerators")

Find = Callable[[], list[Device]]

GROUP = "helmsman.accelerators"
BUILT_IN: dict[str, Find] = {
    "cuda": cuda.find,
    "rocm": rocm.find,
    "gaudi": gaudi.find,
    "atom": atom.find,
    "rngd": rngd.find,
}
"""Each returns an empty list where there is none of its kind."""


@dataclass(frozen=True)
class Visibility:
    """How a driver is told which devices to use. `count`: where only some can be opened, it numbers those from 0."""

    variables: tuple[str, ...]
    prefix: str = ""
    """Before each number."""
    counts: bool = False


VISIBILITY = {
    "cuda": Visibility(("CUDA_VISIBLE_DEVICES",), counts=True),
    "rocm": Visibility(("ROCR_VISIBLE_DEVICES",), counts=True),
    "gaudi": Visibility(("HABANA_VISIBLE_MODULES",)),
    "atom": Visibility(("RBLN_DEVICES",)),
    "rngd": Visibility(("FURIOSA_DEVICES",), prefix="npu:"),
}
"""ROCR's alone: HIP_VISIBLE_DEVICES would count a second time among what ROCR leaves. Others: KIND_VISIBLE_DEVICES."""


@dataclass
class Accelerators:
    """All of this machine. A device keeps the number that it got when it was first seen."""

    finders: dict[str, Find] = field(default_factory=lambda: {**BUILT_IN, **plugins()})
    _numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    _broken: set[str] = field(default_factory=set)

    def find(self) -> list[Device]:
        """Now, with live figures. Takes milliseconds, with a vendor's tool up to seconds. One kind that fails leaves
        the others alone, and is said once."""
        found = [device for name, find in self.finders.items() for device in self._try(name, find)]
        return [device.model_copy(update={"index": self._number(device)}) for device in found]

    def _try(self, name: str, find: Find) -> Iterable[Device]:
        try:
            return find()
        except Exception as e:
            if name not in self._broken:
                log.warning("accelerators cannot be looked for", kind=name, why=f"{type(e).__name__}: {e}")
            self._broken.add(name)
            return []

    def _number(self, device: Device) -> int:
        """As its driver numbers it, where that is free."""
        key = (device.kind, device.ident or str(device.index))
        if key not in self._numbers:
            taken = set(self._numbers.values())
            after = max(taken, default=-1) + 1
            self._numbers[key] = device.index if device.index not in taken else after
        return self._numbers[key]


def plugins() -> dict[str, Find]:
    """Those of installed packages; one that cannot be loaded is said and left out."""
    found: dict[str, Find] = {}
    for point in entry_points(group=GROUP):
        try:
            found[point.name] = point.load()
        except Exception as e:
            log.warning("accelerator plugin cannot be loaded", name=point.name, why=f"{type(e).__name__}: {e}")
    return found


def visible(devices: Sequence[Device], *, fenced: bool = False) -> dict[str, str]:
    """The variables that let a process use `devices` and no others. `fenced`: the others cannot be opened anyway."""
    variables = {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void"}
    for kind in dict.fromkeys(d.kind for d in devices):
        mine = [d for d in devices if d.kind == kind]
        how = VISIBILITY.get(kind) or Visibility((f"{kind.upper().replace('-', '_')}_VISIBLE_DEVICES",))
        numbers = [str(n) for n in range(len(mine))] if fenced and how.counts else [_ident(d) for d in mine]
        variables |= dict.fromkeys(how.variables, ",".join(f"{how.prefix}{n}" for n in numbers))
        if kind == "cuda":
            variables["NVIDIA_VISIBLE_DEVICES"] = ",".join(_ident(d) for d in mine)
    return variables


def _ident(device: Device) -> str:
    return device.ident or str(device.index)
