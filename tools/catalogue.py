"""The contract table `tool-catalogue.md` as typed data: the one source for the model's grammar and its training.

The table speaks of every tool, those that are built and those that are not yet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

Kind = Literal[
    "name", "text", "integer", "number", "size", "duration", "time", "quantity", "bool", "enum", "list", "map"
]
Risk = Literal["R", "W", "D"]

_ROW = re.compile(r"^\| `(\w+)` \| (.*) \| ([RWD]) \|$", re.MULTILINE)
_BRACKETED = re.compile(r"\[([^\]]*)\]")
_CHOICES = re.compile(r"\w+(, \w+)+")
_INTEGERS = {"limit", "tail", "priority", "replicas", "min_replicas", "max_replicas", "node_count"}
_NUMBERS = {"cpu", "gpu", "cpu_per_node", "gpu_per_node", "requests_per_second"}
_SIZES = {"memory", "memory_per_node", "storage", "quota"}
_DURATIONS = {"period", "grace", "deadline", "time_limit"}
_TIMES = {"since", "start_at"}
_QUANTITIES = {"model_parameters", "tokens", "budget", "power_limit"}
_TEXTS = {"reason", "goal", "command"}
_BOUNDS: dict[str, tuple[int, int]] = {"priority": (0, 100)}


@dataclass(frozen=True)
class Argument:
    """One argument of a tool: what it is called, whether it must be there, and what its values look like.

    `quantity` is a number with a unit that is no size and no duration ("20b", "60kW", "$2M").
    `minimum` and `maximum` bound integers and numbers, both included.
    """

    name: str
    required: bool
    kind: Kind
    choices: tuple[str, ...] = ()
    default: str | None = None
    minimum: int = 0
    maximum: int = 1_000_000


@dataclass(frozen=True)
class CatalogueTool:
    """One row of the table."""

    name: str
    risk: Risk
    arguments: tuple[Argument, ...]

    def argument(self, name: str) -> Argument | None:
        """The argument of that name, or None."""
        return next((a for a in self.arguments if a.name == name), None)


@cache
def catalogue() -> dict[str, CatalogueTool]:
    """Every tool of the contract by name, in the order of the table."""
    table = files("tools").joinpath("tool-catalogue.md").read_text(encoding="utf-8")
    return {name: CatalogueTool(name, risk, _arguments(name, cell)) for name, cell, risk in _rows(table)}


def _rows(table: str) -> list[tuple[str, str, Risk]]:
    return [(m[1], m[2], m[3]) for m in _ROW.finditer(table)]  # type: ignore[misc]


def _arguments(tool: str, cell: str) -> tuple[Argument, ...]:
    if cell.strip() == "none":
        return ()
    required = [part for part in re.split(r"[,;]\s*", _without_choices(_BRACKETED.sub("", cell))) if part.strip()]
    found = [_argument(tool, _choices_of(part, cell), True) for part in required]
    return tuple(found + [_argument(tool, part, False) for part in _BRACKETED.findall(cell)])


def _without_choices(cell: str) -> str:
    """`metric: a, b; target` and `folder (goes to …)` as a plain list of names: choices and remarks cut away."""
    bare = re.sub(r"\([^)]*\)", "", cell)
    return re.sub(r"(\w+): [^;\[]+?(?=;|$)", r"\1", bare.strip()) if ":" in bare else bare


def _choices_of(part: str, cell: str) -> str:
    match = re.search(rf"\b{part.strip()}: ([^;\[]+)", cell)
    return f"{part.strip()}: {match[1].strip()}" if match else part.strip()


def _argument(tool: str, spec: str, required: bool) -> Argument:
    head, _, tail = spec.partition(":")
    name, _, default = (s.strip() for s in head.partition("="))
    kind, choices = _kind(tool, name, tail.strip(), default)
    low, high = _BOUNDS.get(name, (0, 1_000_000))
    return Argument(name, required, kind, choices, default or None, low, high)


def _kind(tool: str, name: str, remark: str, default: str) -> tuple[Kind, tuple[str, ...]]:
    by_remark: dict[str, Kind] = {"bool": "bool", "map": "map", "list": "list", "list of folders": "list"}
    if remark in by_remark:
        return by_remark[remark], ()
    if default == "false":
        return "bool", ()
    if (known := _known_choices(tool, name, remark)) is not None:
        return "enum", known
    return _kind_by_name(tool, name), ()


def _known_choices(tool: str, name: str, remark: str) -> tuple[str, ...] | None:
    shared = {
        "order": "asc, desc",
        "type": "interactive, batch, inference, system",
        "role": "user, project_admin, admin",
        "goal": "train, serve" if tool == "design_cluster" else "",
    }
    words = shared.get(name) or (remark if _CHOICES.fullmatch(remark) else "")
    return tuple(re.findall(r"\w+", words)) if words else None


def _kind_by_name(tool: str, name: str) -> Kind:
    if (tool, name) == ("set_quota", "sessions"):
        return "integer"
    if (tool, name) == ("set_autoscaling", "target"):
        return "number"
    groups: list[tuple[set[str], Kind]] = [
        (_INTEGERS, "integer"), (_NUMBERS, "number"), (_SIZES, "size"), (_DURATIONS, "duration"),
        (_TIMES, "time"), (_QUANTITIES, "quantity"), (_TEXTS, "text"),
    ]  # fmt: skip
    return next((kind for names, kind in groups if name in names), "name")
