"""The autoscaler: looks at endpoints that scale themselves, and sets how many replicas they are to have.

pictures, what the proxy measured ──► autoscale.decide ──► one transaction: is the endpoint still what was looked at?
                                                           then its number of replicas and the decision's row, at once

So nothing is decided about an endpoint that is deleted, or has another policy or number by now. The keeper of endpoints
does the rest, in the same pass.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING

from sqlalchemy import delete

from cluster.db.tables import DecisionRow, EndpointRow
from cluster.models import Autoscaling, EndpointState
from cluster.sentence import S
from cluster.serving.autoscale import COMING, Decision, Memory, Seen, decide, logged
from cluster.serving.endpoints import Picture
from cluster.transaction import Transaction

if TYPE_CHECKING:
    from cluster.core import Core

EVERY = timedelta(seconds=15)
"""Between two looks; an endpoint without replicas is looked at as soon as somebody asks for it."""
KEPT = timedelta(days=90)
"""A decision is kept for so long."""


class Autoscaler:
    """A `Keeper`; `core.autoscaler`."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._looked: datetime | None = None
        self._memories: dict[int, tuple[object, Memory]] = {}
        """By endpoint: for which policy and revision, and what the last look left."""
        self._asleep: list[str] = []
        """Endpoints without replicas, which a request wakes."""
        self._busy_until: datetime | None = None
        self._again = True

    def look_again(self) -> None:
        """A policy was set, and that is about to be committed."""
        self._again = True

    async def load(self) -> None:
        """What a crash has forgotten is found out anew: nothing is scaled down before a cool-down is over."""

    async def close(self) -> None:
        """Nothing runs in the background."""

    def due(self) -> datetime | None:
        """While something may still come of it that time passes."""
        if self._again:
            return self._core.clock.now()
        if self._looked is None or self._busy_until is None or self._looked >= self._busy_until:
            return None
        return self._looked + EVERY

    async def step(self) -> bool:
        now = self._core.clock.now()
        lately = self._looked is not None and timedelta(0) <= now - self._looked < EVERY
        if lately and not self._again and not self._wanted():
            return False
        self._looked, self._again = now, False
        pictures = [at for at in await self._core.serving.look() if scales(at)]
        self._memories = {at.known.row.id: self._memories[at.known.row.id] for at in pictures
                          if at.known.row.id in self._memories}  # fmt: skip
        self._asleep = [at.known.row.name for at in pictures if not at.known.row.replicas]
        return any([await self._look_at(at, now) for at in pictures])

    def _wanted(self) -> bool:
        measures, now = self._core.serving.routes.measures, monotonic()
        return any(measures.sample(name, now).in_flight for name in self._asleep)

    async def _look_at(self, at: Picture, now: datetime) -> bool:
        row = at.known.row
        policy = Autoscaling.model_validate(row.autoscaling)
        about = (policy, row.revision)
        known, memory = self._memories.get(row.id, (None, Memory()))
        seen = seen_of(self._core, at, memory if known == about else Memory())
        decided = decide(policy, seen)
        self._memories[row.id] = (about, decided.memory)
        if decided.after != row.replicas or decided.memory.low_since is not None or seen.ready != row.replicas:
            self._busy_until = now + COMING
        return decided.after != row.replicas and await self._set(row.id, policy, seen, decided)

    async def _set(self, ident: int, policy: Autoscaling, seen: Seen, decided: Decision) -> bool:
        """Write it down and do it, if the endpoint is still what was looked at."""

        async def work(tx: Transaction) -> Callable[[], bool]:
            row = await tx.db.get(EndpointRow, ident)
            if row is None or row.state != EndpointState.ACTIVE or row.replicas != seen.wanted:
                return lambda: False
            if row.autoscaling is None or Autoscaling.model_validate(row.autoscaling) != policy:
                return lambda: False
            row.replicas = decided.after
            await _log(tx, row, policy, seen, decided)
            return lambda: True

        return await self._core.writer.alone(self._core.system, work)


def scales(at: Picture) -> bool:
    """Whether it scales itself. Not while it moves to another revision: then its replicas are counted double."""
    row = at.known.row
    return row.state == EndpointState.ACTIVE and row.autoscaling is not None and row.former is None


def seen_of(core: "Core", at: Picture, memory: Memory) -> Seen:
    """All that a decision about it follows from, now."""
    row, now = at.known.row, core.clock.now()
    ready = [a for a in at.alive if a.serves]
    busy = [a.session.utilization for a in ready if a.session.gpu and a.session.utilization is not None]
    steady = (now - max(a.seen.since for a in ready)).total_seconds() if ready else 0.0
    facts = {"at": now, "measured": now, "wanted": row.replicas, "ready": len(ready), "steady": max(0.0, steady),
             "gpu_utilization": sum(busy) / len(busy) if busy else None, "memory": memory}  # fmt: skip
    return Seen.model_validate(facts | (_played(row, bool(ready)) if core.simulated else _measured(core, row.name)))


def _measured(core: "Core", name: str) -> dict[str, float | int | None]:
    """What the proxy saw."""
    sample = core.serving.routes.measures.sample(name, monotonic())
    return {
        "requests_per_second": sample.requests_per_second,
        "latency_p95": sample.latency_p95,
        "in_flight": sample.in_flight,
        "covers": sample.covers,
    }


def _played(row: EndpointRow, reached: bool) -> dict[str, float | int | None]:
    """What the scenario says: requests come whether or not anybody answers them."""
    told = row.measured
    return {
        "requests_per_second": told.get("requests_per_second"),
        "latency_p95": told.get("latency_p95") if reached else None,
        "in_flight": int(told.get("queue_depth") or 0),
    }


async def _log(tx: Transaction, row: EndpointRow, policy: Autoscaling, seen: Seen, decided: Decision) -> None:
    tx.db.add(
        DecisionRow(
            endpoint=row.id,
            at=tx.now,
            seen=logged(policy, seen),
            before=seen.wanted,
            after=decided.after,
            reason=decided.reason.model_dump(mode="json"),
        )
    )
    await tx.db.execute(delete(DecisionRow).where(DecisionRow.endpoint == row.id, DecisionRow.at < tx.now - KEPT))
    said = S("{name} scales itself from {before} to {after} replicas.", name=row.name, before=seen.wanted,
             after=decided.after)  # fmt: skip
    tx.event("endpoint_autoscaled", row.name, said, owner=row.owner, project=row.project)
