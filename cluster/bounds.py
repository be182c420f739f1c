"""Amounts as far as the scheduler can reckon with them, of rows that were written before anything looked at them.

What is asked for today is bounded where it comes in (`models/`). A row of an older version, or of somebody's own hand,
may hold anything, and one number beyond all measure would stop everybody's rounds: it is cut when it is loaded.
"""

from collections.abc import Mapping
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

import structlog

from cluster.models import StartSession
from cluster.models.agents import MOST_BYTES, MOST_CORES
from cluster.models.base import DAY

log = structlog.get_logger(__name__)


class Bounds(NamedTuple):
    least: int
    most: float


def _asked(field: str, least: int = 0) -> Bounds:
    """As what is asked for today."""
    told = StartSession.model_fields[field].metadata
    return Bounds(least, next(rule.le for rule in told if hasattr(rule, "le")))


SESSION = {
    "cpu": _asked("cpu"),
    "memory": _asked("memory"),
    "gpu": _asked("gpu"),
    "node_count": _asked("node_count", 1),
    "priority": _asked("priority"),
    "time_limit": _asked("time_limit"),
    "grace": Bounds(0, 7 * DAY),
}
RANK = {"cpu": SESSION["cpu"], "memory": SESSION["memory"]}
NODE = {"cpu": Bounds(0, MOST_CORES), "memory": Bounds(0, MOST_BYTES)}


def within(what: str, row: Mapping[Any, Any], bounds: Mapping[str, Bounds]) -> Mapping[Any, Any]:
    """The columns of `row` with every amount cut to its bounds; what was cut is logged. `what`: whose row it is."""
    cut = {name: near for name, (least, most) in bounds.items() if (near := _near(row[name], least, most)) is not None}
    if not cut:
        return row
    _tell(what, ", ".join(cut))
    return {**row, **cut}


@lru_cache(1000)
def _tell(what: str, columns: str) -> None:
    """Once: ended sessions are loaded again and again."""
    log.warning("amounts beyond all measure are cut", of=what, columns=columns)


def _near(amount: float | None, least: int, most: float) -> float | None:
    """The bound that `amount` is beyond, None when it is within; what is no number counts as nothing."""
    if amount is None or least <= amount <= most:
        return None
    return most if isfinite(amount) and amount > most else least
