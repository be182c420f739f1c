"""What can be asked of endpoints."""

from time import monotonic
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select

from cluster import access, consequences
from cluster.db.tables import DecisionRow
from cluster.errors import NotFound
from cluster.lifecycle import WAITING
from cluster.models import (
    Autoscaling,
    Endpoint,
    EndpointMetrics,
    EndpointState,
    Page,
    Reason,
    Replica,
    ScalingDecision,
    Sentence,
    User,
)
from cluster.sentence import S
from cluster.serving.endpoints import Alive, Picture, health_of, traffic
from cluster.tenancy.veil import seen_from, veiled
from cluster.transaction import nearest

if TYPE_CHECKING:
    from cluster.core import Core

DECISIONS = 10
"""So many of the autoscaler's last decisions are told with an endpoint."""


class EndpointQuery(BaseModel):
    """Filters of GET /v1/endpoints."""

    model_config = ConfigDict(extra="forbid")

    project: str | None = None
    limit: int = Field(default=50, ge=1, le=1000)


class Endpoints:
    """Those that are not deleted, filtered by what the asking person may see."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    async def all(self, user: User, query: EndpointQuery) -> Page[Endpoint]:
        """By name."""
        seen = [at for at in await self._seen(user) if query.project in (None, at.known.row.project)]
        seen.sort(key=lambda at: at.known.row.name)
        return Page(items=[self._shown(at) for at in seen[: query.limit]], total=len(seen))

    async def one(self, user: User, name: str) -> Endpoint:
        """With why its waiting replicas wait, and the autoscaler's last decisions. Raises `NotFound`."""
        at = await self._one(user, name)
        shown = self._shown(at)
        shown.decisions = await self.decisions(at.known.row.id, DECISIONS)
        for replica in shown.replicas:
            replica.reasons = await self._why(replica.session)
        return shown

    async def names(self, user: User) -> list[str]:
        return sorted(at.known.row.name for at in await self._seen(user))

    async def decisions_of(self, user: User, name: str, limit: int) -> Page[ScalingDecision]:
        """The autoscaler's about this one, newest first. Raises `NotFound`."""
        ident = (await self._one(user, name)).known.row.id
        mine = select(func.count()).select_from(DecisionRow).where(DecisionRow.endpoint == ident)
        async with self._core.db.read() as db:
            total = await db.scalar(mine) or 0
        return Page(items=await self.decisions(ident, limit), total=total)

    async def decisions(self, endpoint: int, limit: int) -> list[ScalingDecision]:
        """The autoscaler's, newest first."""
        mine = select(DecisionRow).where(DecisionRow.endpoint == endpoint).order_by(DecisionRow.id.desc())
        async with self._core.db.read() as db:
            rows = (await db.scalars(mine.limit(limit))).all()
        return [
            ScalingDecision(
                at=row.at, before=row.before, after=row.after, reason=Sentence.model_validate(row.reason), seen=row.seen
            )
            for row in rows
        ]

    async def _one(self, user: User, name: str) -> Picture:
        seen = await self._seen(user)
        at = next((at for at in seen if at.known.row.name == name), None)
        if at is None:
            known = [at.known.row.name for at in seen]
            raise NotFound(S("There is no endpoint {name}.", name=name), nearest(name, known))
        return at

    async def _seen(self, user: User) -> list[Picture]:
        there = [at for at in await self._core.serving.look() if at.known.row.state != EndpointState.DELETED]
        return [at for at in there if access.sees(user, at.known.row.owner, at.known.row.project)]

    async def _why(self, session: str) -> list[Reason]:
        """Why a replica's session waits."""
        async with self._core.still() as ledger:
            live = ledger.sessions.get(session)
            if live is None or live.state not in WAITING:
                return []
            decided = self._core.outlook.plan(self._core.clock.now())
            return veiled(ledger, live, consequences.why(live, decided), seen_from(live))

    def _shown(self, at: Picture) -> Endpoint:
        row, launch = at.known.row, at.known.launch(at.known.row.revision)
        return Endpoint(
            name=row.name,
            project=row.project,
            owner=row.owner,
            model=at.known.revisions[row.revision].model,
            revision=row.revision,
            former=row.former,
            state=EndpointState(row.state),
            state_since=row.state_since,
            health=health_of(at),
            traffic=traffic(at),
            url=f"/serve/{row.name}",
            wanted=row.replicas,
            replicas=[self._replica(at, a) for a in at.alive],
            gpu=launch.gpu,
            gpu_model=launch.gpu_model,
            resource_group=row.resource_group,
            metrics=self._metrics(at),
            autoscaling=Autoscaling.model_validate(row.autoscaling) if row.autoscaling else None,
            reasons=[Reason.model_validate(reason) for reason in row.reasons],
            created=row.created,
        )

    def _replica(self, at: Picture, a: Alive) -> Replica:
        return Replica(
            session=a.session.id,
            name=a.session.name,
            revision=a.row.revision,
            model=at.known.revisions[a.row.revision].model,
            phase=a.seen.phase,
            since=a.seen.since,
            node=a.node.name if a.node else None,
            port=a.row.port,
            in_flight=a.seen.in_flight,
            gpu_utilization=a.session.utilization if a.session.gpu else None,
        )

    def _metrics(self, at: Picture) -> EndpointMetrics:
        """As the proxy saw it; in a simulated cluster as its scenario says, while it can be reached."""
        row, routes = at.known.row, self._core.serving.routes
        busy = [a.session.utilization for a in at.alive if a.session.gpu and a.session.utilization is not None]
        gpu = sum(busy) / len(busy) if busy else None
        if self._core.simulated:
            played = row.measured if traffic(at).reachable else {}
            return EndpointMetrics(**{"gpu_utilization": gpu, **played})
        now = monotonic()
        sample = routes.measures.sample(row.name, now)
        return EndpointMetrics(
            requests_per_second=sample.requests_per_second,
            latency_p95=sample.latency_p95,
            in_flight=sample.in_flight,
            queue_depth=sample.queue_depth,
            errors_per_second=sample.errors_per_second,
            gpu_utilization=gpu,
        )
