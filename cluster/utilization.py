"""How much is used: now, from the ledger; over time, from samples of the last day. A keeper, and what is read from it.

One sample a minute at most, whenever there is a pass. In memory only: measurements are no promise, and after a restart
of the server the history begins anew; answers say since when there are samples. 29 kB a node, 23 kB a user or project.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select

from cluster import access
from cluster.db.tables import FolderRow
from cluster.errors import Invalid
from cluster.ledger import Ledger
from cluster.live import LiveNode
from cluster.models import User, Utilization, UtilizationItem
from cluster.sentence import S

if TYPE_CHECKING:
    from cluster.core import Core

Floats = NDArray[np.float32]
Values = Mapping[str, Sequence[float]]
"""Name -> one value for each column; NaN where nothing is known."""

EVERY = timedelta(minutes=1)
KEPT = 24 * 60
MOST = 100
NODE = ("gpu", "cpu", "memory", "power", "temperature")
HELD = ("gpu", "cpu", "memory", "busy")
"""Amounts; busy: devices, each counted by how busy it is."""
UNITS: Mapping[str, Literal["share", "bytes", "watts", "celsius"]] = {
    "power": "watts", "temperature": "celsius", "storage": "bytes",
}  # fmt: skip


class UtilizationQuery(BaseModel):
    """Filters of GET /v1/utilization."""

    model_config = ConfigDict(extra="forbid")

    resource: Literal["gpu", "cpu", "memory", "storage", "power", "temperature"]
    group_by: Literal["node", "project", "user", "resource_group"] | None = None
    period: float | None = Field(default=None, gt=0, le=366 * 24 * 3600)
    """Seconds back from now; left out: how it is now."""


class Ring:
    """The last `KEPT` samples of any number of series with the same columns."""

    def __init__(self, columns: int) -> None:
        self._columns, self._count = columns, 0
        self._at = np.full(KEPT, np.nan)
        self._series: dict[str, Floats] = {}

    def add(self, at: float, values: Values) -> None:
        """A sample of all that is there at `at` (seconds since 1970); series that are not named have none."""
        slot = self._count % KEPT
        self._at[slot], self._count = at, self._count + 1
        for series in self._series.values():
            series[slot] = np.nan
        for name, row in values.items():
            if name not in self._series:
                self._series[name] = np.full((KEPT, self._columns), np.nan, np.float32)
            self._series[name][slot] = row
        if slot == 0:
            self._series = {name: s for name, s in self._series.items() if not np.isnan(s).all()}

    def since(self, start: float) -> tuple[NDArray[np.float64], dict[str, Floats]]:
        """When the samples from `start` on were taken, and each series' values then (one row a sample)."""
        rows = self._at >= start
        return self._at[rows], {name: series[rows] for name, series in self._series.items()}


class History:
    """The keeper of samples (`core.history`), and what is asked of them."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._nodes, self._users, self._projects = Ring(len(NODE)), Ring(len(HELD)), Ring(len(HELD))
        self._last: datetime | None = None

    async def load(self) -> None:
        """There is none at the start."""

    async def step(self) -> bool:
        now = self._core.clock.now()
        if self._last is not None and timedelta(0) <= now - self._last < EVERY:
            return False
        self._last = now
        async with self._core.still() as ledger:
            at = now.timestamp()
            self._nodes.add(at, measured(ledger))
            self._users.add(at, held(ledger, "user"))
            self._projects.add(at, held(ledger, "project"))
        return False

    def due(self) -> datetime | None:
        """Never: samples are taken when there is a pass anyway."""
        return None

    async def close(self) -> None:
        """It runs nothing in the background."""

    # ── asked ────────────────────────────────────────────────────────────────────────────────────

    async def utilization(self, user: User, query: UtilizationQuery) -> Utilization:
        """Raises `Invalid` for what is nobody's to have: a user's temperature, a node's folders."""
        people = query.group_by in ("user", "project")
        if query.resource == "storage":
            return await self._storage(user, query)
        if people and query.resource in ("power", "temperature"):
            raise Invalid(S("Power and temperature are measured of nodes; ask for them by node or resource group."))
        if not people:
            return await self._of_nodes(query)
        return await self._of_people(user, query)

    async def _of_nodes(self, query: UtilizationQuery) -> Utilization:
        async with self._core.still() as ledger:
            times, series = self._samples(self._nodes, query, measured(ledger))
            nodes = dict(ledger.nodes)
            column = NODE.index(query.resource)
            frames = {name: series[name][:, column] for name in nodes if name in series}
            found = together(query.resource, query.group_by, nodes, frames)
        items = [item for name, values in found.items() if (item := _item(name, values))]
        return _answer(query, times, items)

    async def _of_people(self, user: User, query: UtilizationQuery) -> Utilization:
        by: Literal["user", "project"] = "user" if query.group_by == "user" else "project"
        async with self._core.still() as ledger:
            ring = self._users if by == "user" else self._projects
            times, series = self._samples(ring, query, held(ledger, by))
            whole = {"gpu": sum(len(n.devices) for n in ledger.nodes.values()),
                     "cpu": sum(n.cpu for n in ledger.nodes.values()),
                     "memory": sum(n.memory for n in ledger.nodes.values())}[query.resource]  # fmt: skip
        seen = {name for name in series if self._may_see(user, by, name)}
        rows = {name: np.nan_to_num(series[name]) for name in series}
        hidden = sum((rows[name] for name in sorted(rows.keys() - seen)), np.zeros((len(times) or 1, len(HELD))))
        shares = {name: _holds(query.resource, name, rows[name], whole) for name in sorted(seen)}
        items = [item for item in shares.values() if item is not None]
        return _answer(query, times, items, _holds(query.resource, None, hidden, whole))

    def _may_see(self, user: User, by: Literal["user", "project"], name: str) -> bool:
        if by == "project":
            return access.sees_project(user, name)
        known = self._core.directory.users.get(name)
        return access.sees_usage(user, name, known.projects if known else ())

    def _samples(self, ring: Ring, query: UtilizationQuery, now: Values) -> tuple[list[float], dict[str, Floats]]:
        """Of the period; else, or when there is none yet, one sample: how it is now. Times are empty then."""
        if query.period is not None:
            times, series = ring.since(self._core.clock.now().timestamp() - query.period)
            if len(times):
                return times.tolist(), series
        return [], {name: np.array([row], np.float32) for name, row in now.items()}

    async def _storage(self, user: User, query: UtilizationQuery) -> Utilization:
        """What folders hold, those in the trash too; of storage no history is kept."""
        if query.group_by in ("node", "resource_group"):
            raise Invalid(S("Storage belongs to projects and users; ask for it by project or user."))
        by: Literal["user", "project"] = "user" if query.group_by == "user" else "project"
        column = FolderRow.owner if by == "user" else FolderRow.project
        async with self._core.db.read() as db:
            rows = (await db.execute(select(column, func.sum(FolderRow.size)).group_by(column))).all()
        sizes = {str(name): float(size or 0) for name, size in rows}
        if query.group_by is None:
            return _answer(query, [], [_one(None, sum(sizes.values()))])
        seen = {name for name in sizes if self._may_see(user, by, name)}
        rest = sum(size for name, size in sizes.items() if name not in seen)
        return _answer(query, [], [_one(name, sizes[name]) for name in seen], _one(None, rest) if rest else None)


# ── samples ──────────────────────────────────────────────────────────────────────────────────────


def measured(ledger: Ledger) -> dict[str, list[float]]:
    """What is measured of each node just now, in the order of `NODE`."""
    return {node.name: _node(node) for node in ledger.nodes.values()}


def _node(node: LiveNode) -> list[float]:
    known = [d["utilization"] for d in node.devices if d.get("utilization") is not None]
    names = ("cpu_utilization", "memory_utilization", "power", "temperature")
    rest = [math.nan if (value := node.sample.get(name)) is None else float(value) for name in names]
    return [sum(known) / len(known) if known else math.nan, *rest]


def held(ledger: Ledger, by: Literal["user", "project"]) -> dict[str, list[float]]:
    """What the sessions of each hold just now, in the order of `HELD`."""
    found: defaultdict[str, list[float]] = defaultdict(lambda: [0.0] * len(HELD))
    for session in ledger.holding.values():
        sums = found[session.user if by == "user" else session.project]
        for rank in session.ranks:
            devices = sum(rank.devices.values())
            for place, amount in enumerate((devices, rank.cpu, rank.memory, devices * (session.utilization or 0.0))):
                sums[place] += amount
    return dict(found)


# ── judgement ────────────────────────────────────────────────────────────────────────────────────


def together(
    resource: str, group_by: str | None, nodes: Mapping[str, LiveNode], frames: Mapping[str, Floats]
) -> dict[str | None, Floats]:
    """One series for each node, group, or for all: shares weighted by size, watts added, the hottest temperature."""
    members: defaultdict[str | None, list[str]] = defaultdict(list)
    for name in sorted(frames):
        members[{"node": name, "resource_group": nodes[name].resource_group}.get(group_by or "")].append(name)
    return {
        group: _joined(resource, np.stack([frames[n] for n in names]), [_size(resource, nodes[n]) for n in names])
        for group, names in members.items()
    }


def _size(resource: str, node: LiveNode) -> float:
    return float({"gpu": len(node.devices), "cpu": node.cpu, "memory": node.memory}.get(resource, 1))


def _joined(resource: str, values: Floats, sizes: Sequence[float]) -> Floats:
    """`values`: a row a node, a column a sample. A sample that no node has is NaN."""
    known = ~np.isnan(values)
    none = ~known.any(axis=0)
    if resource == "temperature":
        joined = np.where(known, values, -np.inf).max(axis=0)
    elif resource == "power":
        joined = np.where(known, values, 0).sum(axis=0)
    else:
        weights = known * np.array(sizes)[:, None]
        joined = (np.where(known, values, 0) * weights).sum(axis=0) / np.maximum(weights.sum(axis=0), 1e-9)
    return np.where(none, np.nan, joined).astype(np.float32)


def _item(name: str | None, values: Floats) -> UtilizationItem | None:
    """None when nothing is known."""
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    return UtilizationItem(name=name, value=float(known.mean()), peak=float(known.max()))


def _holds(resource: str, name: str | None, rows: NDArray[np.floating], whole: float) -> UtilizationItem | None:
    """The share of the cluster that they hold; None when they hold nothing of it."""
    amounts = rows[:, HELD.index(resource)]
    if not whole or not amounts.any():
        return None
    devices, busy = rows[:, HELD.index("gpu")].sum(), rows[:, HELD.index("busy")].sum()
    shown = float(busy / devices) if resource == "gpu" and devices else None
    return UtilizationItem(
        name=name, value=float(amounts.mean() / whole), peak=float(amounts.max() / whole), busy=shown
    )


def _one(name: str | None, value: float) -> UtilizationItem:
    return UtilizationItem(name=name, value=value, peak=value)


def _answer(
    query: UtilizationQuery,
    times: Sequence[float],
    items: Iterable[UtilizationItem],
    hidden: UtilizationItem | None = None,
) -> Utilization:
    highest = sorted(items, key=lambda item: (-item.value, item.name or ""))
    return Utilization(
        resource=query.resource,
        group_by=query.group_by,
        unit=UNITS.get(query.resource, "share"),
        since=datetime.fromtimestamp(min(times), UTC) if times else None,
        samples=len(times) or 1,
        items=[*highest[:MOST], *([hidden] if hidden else [])],
        total=len(highest),
    )
