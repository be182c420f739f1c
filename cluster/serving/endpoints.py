"""What endpoints there are, and how they are: rows, the ledger's sessions and what health checks say, put together.

Three things are said of an endpoint, each for itself: its life cycle (kept in its row), the health of its replicas
(follows from them), and traffic: whether a request would be answered right now.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

from sqlalchemy import or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from cluster.db.tables import EndpointRow, ReplicaRow, RevisionRow
from cluster.ledger import Ledger
from cluster.lifecycle import WAITING
from cluster.live import LiveNode, LiveSession
from cluster.models import EndpointHealth, EndpointState, Launch, NodeStatus, SessionState, Traffic
from cluster.models import ReplicaPhase as Phase
from cluster.sentence import S, Sentence
from cluster.serving.health import Health, Target
from cluster.serving.rollout import ASKED_WITHIN, Seen, Wish
from cluster.serving.routes import Route, Routes

REMEMBERED = timedelta(days=1)
"""What has gone is kept in mind for so long: a waiting session that was stopped may be put back."""
LOCAL = "127.0.0.1"
NEXT: Mapping[EndpointState, frozenset[EndpointState]] = {
    EndpointState.ACTIVE: frozenset({EndpointState.DELETING}),
    EndpointState.DELETING: frozenset({EndpointState.DELETED, EndpointState.ACTIVE}),
    EndpointState.DELETED: frozenset({EndpointState.ACTIVE}),
}
"""Life cycle: what may follow. Back to active only by undo."""


def move(row: EndpointRow, to: EndpointState, now: datetime) -> None:
    """The only place where an endpoint's state is set."""
    assert to in NEXT[EndpointState(row.state)], f"{row.state} -> {to}"
    row.state, row.state_since = to.value, now
    row.deleted = now if to is EndpointState.DELETED else None


def forget_failures(row: EndpointRow) -> None:
    """What went wrong before does not count, and is not told, any more."""
    row.failures, row.failed_at, row.reasons = 0, None, []


@dataclass(slots=True)
class Known:
    """An endpoint's rows."""

    row: EndpointRow
    revisions: dict[int, RevisionRow] = field(default_factory=dict)
    replicas: list[ReplicaRow] = field(default_factory=list)
    """Also those that have gone not long ago."""

    def launch(self, revision: int) -> Launch:
        return Launch.model_validate(self.revisions[revision].launch)

    @property
    def wish(self) -> Wish:
        row = self.row
        return Wish(
            state=EndpointState(row.state),
            state_since=row.state_since,
            wanted=row.replicas,
            revision=row.revision,
            former=row.former,
            updating=row.updating,
            failures=row.failures,
            failed_at=row.failed_at,
            ready_within=timedelta(seconds=self.launch(row.revision).ready_within),
        )


async def read(db: AsyncSession, now: datetime, only: int | None = None) -> list[Known]:
    """Those that are not long gone; `only` the one with this id."""
    recent = now - REMEMBERED
    mine = EndpointRow.id == only if only is not None else true()
    lasting = or_(EndpointRow.state != EndpointState.DELETED.value, EndpointRow.deleted > recent)
    rows = (await db.scalars(select(EndpointRow).where(mine, lasting).order_by(EndpointRow.id))).all()
    found = {row.id: Known(row) for row in rows}
    for revision in await db.scalars(select(RevisionRow).where(RevisionRow.endpoint.in_([*found]))):
        found[revision.endpoint].revisions[revision.revision] = revision
    kept = or_(ReplicaRow.gone.is_(None), ReplicaRow.gone > recent)
    for replica in await db.scalars(select(ReplicaRow).where(ReplicaRow.endpoint.in_([*found]), kept)):
        found[replica.endpoint].replicas.append(replica)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Alive:
    """A replica whose session is live."""

    row: ReplicaRow
    session: LiveSession
    node: LiveNode | None
    seen: Seen

    @property
    def serves(self) -> bool:
        return self.seen.phase is Phase.HEALTHY

    @property
    def host(self) -> str:
        """Where the server reaches its node."""
        if self.node is None or self.node.same_host:
            return LOCAL
        return self.node.address or LOCAL


@dataclass(frozen=True, slots=True)
class Picture:
    """An endpoint at one moment."""

    known: Known
    alive: list[Alive]
    ended: list[ReplicaRow]
    """Those whose end nobody has taken note of."""
    back: list[ReplicaRow]
    """Those that are live again, though their end was noted."""

    @property
    def moved(self) -> list[Alive]:
        """Those whose node is being emptied, or not any more, and nobody has taken note of it."""
        return [a for a in self.alive if (a.row.leaving is None) is not (a.seen.leaving is None)]

    @property
    def news(self) -> bool:
        """There is something to be taken note of."""
        return bool(self.ended or self.back or self.moved)

    @property
    def seen(self) -> list[Seen]:
        return [a.seen for a in self.alive]

    def targets(self) -> Iterable[Target]:
        """The running replicas, to be asked how they are."""
        for a in self.alive:
            if a.session.state == SessionState.RUNNING and a.seen.phase is not Phase.AWAY:
                path = self.known.launch(a.row.revision).health
                yield Target(a.session.id, a.session.attempt, a.host, a.row.port, path)

    def route(self, routes: Routes) -> Route:
        row = self.known.row
        backends = [routes.backend(a.session.id, a.host, a.row.port) for a in self.alive if a.serves]
        coming = any(a.seen.phase in (Phase.STARTING, Phase.PREPARING) for a in self.alive) or (
            not row.replicas and row.autoscaling is not None
        )
        why = unreachable(self)
        return Route(row.name, row.owner, row.project, tuple(backends), coming, why or S("It has no replicas."))


def picture(known: Known, ledger: Ledger, health: Health, routes: Routes, now: datetime) -> Picture:
    """Between two commits, or in a transaction."""
    live = [(row, ledger.sessions[row.session]) for row in known.replicas if row.session in ledger.sessions]
    alive = [_alive(row, session, ledger, health, routes, now) for row, session in live]
    here = {row.session for row, _ in live}
    return Picture(
        known,
        sorted(alive, key=lambda a: (a.session.submitted, a.session.id)),
        ended=[row for row in known.replicas if row.gone is None and row.session not in here],
        back=[row for row, _ in live if row.gone is not None],
    )


def _alive(
    row: ReplicaRow, session: LiveSession, ledger: Ledger, health: Health, routes: Routes, now: datetime
) -> Alive:
    node = ledger.nodes.get(session.ranks[0].node) if session.ranks else None
    phase, since = _phase(row, session, node, health, now)
    leaving = (row.leaving or now) if node is not None and node.status == NodeStatus.DRAINING else None
    before = session.started is not None and since - session.started > ASKED_WITHIN
    seen = Seen(session.id, row.revision, phase, since, routes.in_flight(session.id), leaving, before)
    return Alive(row, session, node, seen)


def _phase(
    row: ReplicaRow, session: LiveSession, node: LiveNode | None, health: Health, now: datetime
) -> tuple[Phase, datetime]:
    if session.state == SessionState.TERMINATING:
        return Phase.STOPPING, session.state_since
    if row.draining is not None:
        return Phase.DRAINING, row.draining
    if session.state in WAITING:
        return Phase.WAITING, session.state_since
    if node is None or node.status == NodeStatus.LOST:
        return Phase.AWAY, session.state_since
    if session.state != SessionState.RUNNING:
        return Phase.PREPARING, session.state_since
    verdict = health.of(session, now)
    return verdict.phase, verdict.since


# ── what is said of it ───────────────────────────────────────────────────────────────────────────


def health_of(at: Picture) -> EndpointHealth:
    """Of its replicas, together."""
    wanted = at.known.row.replicas
    healthy = sum(a.serves for a in at.alive)
    if healthy:
        return EndpointHealth.HEALTHY if healthy >= wanted else EndpointHealth.DEGRADED
    if not wanted or at.known.row.state != EndpointState.ACTIVE:
        return EndpointHealth.STOPPED
    sick = any(a.seen.phase in (Phase.UNHEALTHY, Phase.AWAY) for a in at.alive)
    return EndpointHealth.UNHEALTHY if sick or at.known.row.failures else EndpointHealth.STARTING


def traffic(at: Picture) -> Traffic:
    """Whether a request would be answered right now."""
    taking = sum(a.serves for a in at.alive) if at.known.row.state == EndpointState.ACTIVE else 0
    return Traffic(reachable=taking > 0, replicas=taking, reason=unreachable(at) if not taking else None)


def unreachable(at: Picture) -> Sentence | None:
    """Why no request would be answered; None when one would be."""
    row, phases = at.known.row, [a.seen.phase for a in at.alive]
    if row.state != EndpointState.ACTIVE:
        return S("It is being deleted; it takes no requests.")
    if Phase.HEALTHY in phases:
        return None
    if not row.replicas:
        return S("It is scaled to no replicas.")
    counts = {phase: len([*group]) for phase, group in groupby(sorted(phases))}
    for phase in (Phase.UNHEALTHY, Phase.STARTING, Phase.PREPARING, Phase.AWAY, Phase.WAITING):
        if phase in counts:
            return _WHY[phase].model_copy(update={"params": {"count": counts[phase]}})
    if row.failures:
        return S("Its replicas end by themselves ({count} in a row); the next one is started soon.", count=row.failures)
    return S("Its replicas are not there yet.")


_WHY: Mapping[Phase, Sentence] = {
    Phase.UNHEALTHY: Sentence(text="Its replicas ({count}) do not answer their health checks."),
    Phase.STARTING: Sentence(text="Its replicas ({count}) run, but are not ready yet."),
    Phase.PREPARING: Sentence(text="Its replicas ({count}) are being set up on their nodes."),
    Phase.AWAY: Sentence(text="The nodes of its replicas ({count}) do not answer."),
    Phase.WAITING: Sentence(text="Its replicas ({count}) wait for room."),
}
