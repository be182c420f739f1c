"""What keeps endpoints as they were asked for, pass after pass; and `Serving`, all that serves in one place.

rows, ledger, health ──► pictures ──► rollout.next_steps ──► steps.take, one transaction an endpoint
                             └──────► routes, for the proxy;  targets, for the health checks
"""

from collections.abc import Callable, Collection
from datetime import datetime
from typing import TYPE_CHECKING

import structlog

from cluster.db.tables import EndpointRow, ReplicaRow, RevisionRow
from cluster.errors import ClusterError
from cluster.ledger import Ledger
from cluster.live import LiveSession
from cluster.models import EndpointState, SessionState
from cluster.serving import rollout, steps
from cluster.serving.endpoints import Known, Picture, picture, read
from cluster.serving.health import Health, Played, Probes
from cluster.serving.proxy import Proxy
from cluster.serving.reads import Endpoints
from cluster.serving.routes import Routes
from cluster.transaction import Refused, Transaction

if TYPE_CHECKING:
    from cluster.core import Core

TABLES = {EndpointRow, RevisionRow, ReplicaRow}
log = structlog.get_logger(__name__)


class Serving:
    """The endpoints of a core: pictures of them, the way to them, and the keeper."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self.routes = Routes()
        self.health: Health = Played() if core.simulated else Probes(core.clock, core.wake.set)
        self.keeper = EndpointKeeper(core, self)
        self.endpoints = Endpoints(core)
        self.proxy = Proxy(self.routes)
        core.metrics.add(self.routes.measures)
        self._known: list[Known] = []
        self._replicas: dict[str, tuple[Known, ReplicaRow]] = {}
        self._stale = True

    def note(self, touched: Collection[type]) -> None:
        """The ORM has changed rows of these classes."""
        self._stale = self._stale or bool(TABLES & set(touched))

    @property
    def idle(self) -> bool:
        """There are no endpoints, and nothing has been changed since that was found."""
        return not self._known and not self._stale and not TABLES & self._core.db.touched

    def endpoint_of(self, session: LiveSession) -> Known | None:
        """The active endpoint that `session` is to serve on; from memory, as of the last look."""
        known, row = self._replicas.get(session.id, (None, None))
        wanted = row is not None and row.draining is None and session.state != SessionState.TERMINATING
        return known if wanted and known and known.row.state == EndpointState.ACTIVE else None

    def serving(self, name: str) -> set[str]:
        """The sessions that take the endpoint's requests, as of the last look."""
        return {backend.session for backend in self.routes[name].backends} if name in self.routes else set()

    async def look(self) -> list[Picture]:
        """All endpoints as they are now; the proxy and the health checks are told on the way."""
        async with self._core.still() as ledger:
            if self._stale:
                async with self._core.db.read() as db:
                    self._known = await read(db, self._core.clock.now())
                self._replicas = {row.session: (known, row) for known in self._known for row in known.replicas}
                self._stale = False
            pictures = [self.picture(known, ledger) for known in self._known]
            self._tell(pictures)
        return pictures

    def picture(self, known: Known, ledger: Ledger) -> Picture:
        return picture(known, ledger, self.health, self.routes, self._core.clock.now())

    def _tell(self, pictures: list[Picture]) -> None:
        active = [at for at in pictures if at.known.row.state == EndpointState.ACTIVE]
        routes = {at.known.row.name: at.route(self.routes) for at in active}
        self.routes.tell(routes, (a.session.id for at in pictures for a in at.alive))
        self.health.watch({target.key: target for at in pictures for target in at.targets()})

    async def close(self) -> None:
        await self.health.close()
        await self.proxy.close()


class EndpointKeeper:
    """A `Keeper`."""

    def __init__(self, core: "Core", serving: Serving) -> None:
        self._core = core
        self._serving = serving
        self._due: datetime | None = None

    async def load(self) -> None:
        await self._serving.look()

    async def step(self) -> bool:
        if self._serving.idle:  # so that it costs nothing at the passes of a cluster that serves nothing
            self._due = None
            return False
        pictures = await self._serving.look()
        now = self._core.clock.now()
        changed = False
        for at in pictures:
            if at.news or rollout.next_steps(at.known.wish, at.seen, now):
                changed = await self._keep(at.known.row.id, at.known.row.name) or changed
        if changed:
            pictures = await self._serving.look()
        self._due = min((when for at in pictures if (when := self._due_of(at, now))), default=None)
        return changed

    async def _keep(self, ident: int, name: str) -> bool:
        """One endpoint, in a transaction of its own: what is wrong with one is no other's matter."""

        async def work(tx: Transaction) -> Callable[[], bool]:
            changed = await self._take(tx, ident)
            return lambda: changed

        try:
            return await self._core.writer.alone(self._core.system, work)
        except ClusterError as e:
            log.error("endpoint not kept", endpoint=name, why=str(e))
        except Exception:
            log.exception("endpoint not kept", endpoint=name)  # a bug; the others must be kept
        return False

    async def _take(self, tx: Transaction, ident: int) -> bool:
        """From the rows as they are now; what was seen before the transaction may have changed."""
        for known in await read(tx.db, tx.now, ident):
            try:
                return (await steps.take(tx, self._serving.picture(known, tx.ledger))).changed
            except (Refused, ClusterError) as e:
                steps.refused(tx, known.row, e)
                return True
        return False

    def due(self) -> datetime | None:
        return self._due

    def _due_of(self, at: Picture, now: datetime) -> datetime | None:
        running = [a.session for a in at.alive if a.session.state == SessionState.RUNNING]
        moments = [self._serving.health.due(session, now) for session in running]
        moments.append(rollout.due(at.known.wish, at.seen, now))
        return min((m for m in moments if m is not None), default=None)

    async def close(self) -> None:
        await self._serving.close()
