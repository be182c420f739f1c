"""What an endpoint needs next: the judgement, without any I/O.

    next_steps(wish, replicas, now) -> steps          what to do now, from what is written and seen
    due(wish, replicas, now) -> when                  when time alone would make it say something else

It knows nothing of what it said before, so that a crash between two steps leaves nothing to be remembered.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from cluster.models import EndpointState
from cluster.models import ReplicaPhase as Phase

DRAIN_LIMIT = timedelta(minutes=5)
"""A draining replica has so long to answer what it was asked."""
SICK_LIMIT = timedelta(minutes=1)
"""A replica that stays unhealthy for so long is replaced."""
ROOM_PATIENCE = timedelta(seconds=20)
"""In an update, a new replica that waits so long for room gets an old one's."""
ROOM_LIMIT = timedelta(hours=1)
"""An update with a replica that finds no room for so long is given up."""
MOVE_LIMIT = timedelta(minutes=5)
"""A replica on a node that is emptied is let go so long after a stand-in should have been ready, healthy or not."""
ASKED_WITHIN = timedelta(seconds=15)
"""After a restart of the server nobody has asked a replica yet: for so long it may be healthy all the same."""
MOST_TRIES = 3
"""An update is given up after so many failures of its replicas."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=2), timedelta(minutes=5)
"""After a failure, doubled with each one in a row."""
FORGIVEN_AFTER = timedelta(minutes=15)
"""A failure that is so long ago is not in a row with the next."""
DELETE_LIMIT = DRAIN_LIMIT + timedelta(minutes=15)
"""An endpoint that is being deleted is gone after that, whatever became of its replicas."""

GONE = (Phase.DRAINING, Phase.STOPPING)


@dataclass(frozen=True, slots=True)
class Wish:
    """What an endpoint is to be, from its row."""

    state: EndpointState
    state_since: datetime
    wanted: int
    revision: int
    former: int | None = None
    updating: datetime | None = None
    failures: int = 0
    failed_at: datetime | None = None
    ready_within: timedelta = timedelta(minutes=10)

    @property
    def moves_within(self) -> timedelta:
        """A replica on a node that is emptied serves on for so long at most."""
        return self.ready_within + MOVE_LIMIT

    @property
    def next_try(self) -> datetime | None:
        """Before then nothing is started anew, after a failure."""
        return None if self.failed_at is None or not self.failures else self.failed_at + pause(self.failures)


@dataclass(frozen=True, slots=True)
class Seen:
    """A replica as it is. `phase` since `since`."""

    session: str
    revision: int
    phase: Phase
    since: datetime
    in_flight: int = 0
    leaving: datetime | None = None
    """Since when its node is being emptied: it serves on until it is replaced."""
    ran_before: bool = False
    """It ran long before it was asked for the first time: the server is new, the replica is not."""


@dataclass(frozen=True, slots=True)
class Start:
    """`count` replicas of the endpoint's revision."""

    count: int


@dataclass(frozen=True, slots=True)
class Drain:
    """No new requests for it; it is stopped when it has answered."""

    session: str


@dataclass(frozen=True, slots=True)
class Stop:
    """`why` is `drained`; or it counts as a failure: `late` (not ready in time), `sick` (unhealthy for too long)."""

    session: str
    why: Literal["drained", "late", "sick"]


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Back to the former revision."""

    why: Literal["room", "late", "failed"]


@dataclass(frozen=True, slots=True)
class Updated:
    """All replicas have the new revision."""


@dataclass(frozen=True, slots=True)
class Forgiven:
    """What has failed is long ago, and all is well."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """It has no replicas any more."""


Step = Start | Drain | Stop | GiveUp | Updated | Forgiven | Deleted


def pause(failures: int) -> timedelta:
    """How long to wait after so many failures in a row."""
    doubled: int = 2 ** min(failures - 1, 20)
    return min(LONGEST_PAUSE, FIRST_PAUSE * doubled)


def failed_again(failures: int, failed_at: datetime | None, now: datetime) -> int:
    """How many failures in a row there are with one more."""
    return failures + 1 if failed_at is not None and now - failed_at < FORGIVEN_AFTER else 1


def next_steps(wish: Wish, replicas: Sequence[Seen], now: datetime) -> list[Step]:
    """What is to be done now. Doing it, and asking again, comes to an end when nothing else happens."""
    stops: list[Step] = [Stop(r.session, "drained") for r in replicas if _drained(r, now)]
    if wish.state is not EndpointState.ACTIVE:
        over = not replicas or now - wish.state_since >= DELETE_LIMIT
        end = [Deleted()] if over and wish.state is EndpointState.DELETING else []
        return [*_drains(_staying(replicas)), *stops, *end]
    if hopeless := _hopeless(wish, replicas, now):
        return [*stops, GiveUp(hopeless)]
    if bad := [Stop(r.session, why) for r in replicas if (why := _fault(wish, r, now))]:
        return [*stops, *bad]  # whether there is to be a pause is seen when they have been counted
    old = [r for r in _staying(replicas) if r.revision != wish.revision or r.leaving is not None]
    current = [r for r in _staying(replicas) if r not in old]
    if old:
        return [*stops, *_update(wish, old, current, replicas, now)]
    return [*stops, *_good_news(wish, current, now), *_hold(wish, current, now)]


def _good_news(wish: Wish, current: Sequence[Seen], now: datetime) -> list[Step]:
    """When as many are healthy as are wanted."""
    if sum(r.phase is Phase.HEALTHY for r in current) < wish.wanted:
        return []
    if wish.former is not None:
        return [Updated()]
    old = wish.failed_at is not None and now - wish.failed_at >= FORGIVEN_AFTER
    return [Forgiven()] if wish.failures and old else []


def _hold(wish: Wish, current: Sequence[Seen], now: datetime) -> list[Step]:
    """As many as are wanted, of one revision. One whose node is lost may come back, but is not waited for."""
    here = [r for r in current if r.phase is not Phase.AWAY]
    missing = wish.wanted - len(here)
    if missing > 0:
        return _starts(wish, missing, now)
    spare = sorted(here, key=_worth)[: max(0, -missing)]
    return [*_drains(spare)]


def _update(
    wish: Wish, old: Sequence[Seen], current: Sequence[Seen], every: Sequence[Seen], now: datetime
) -> list[Step]:
    """One more of the new revision, and when it is healthy one fewer of the old: never fewer healthy than wanted.

    Where there is no room for one more, an old one makes it: then one fewer than wanted, but never none. Replicas that
    have to leave their node are old as well; where all are such, their stand-ins come at the same time.
    """
    here = [r for r in current if r.phase is not Phase.AWAY]
    healthy = sum(r.phase is Phase.HEALTHY for r in (*old, *here))
    coming = [r for r in here if r.phase is not Phase.HEALTHY]
    steps: list[Step] = [*_drains(r for r in old if not _may_serve(r, now) or _overdue(wish, r, now))]
    good = [r for r in old if r.phase is Phase.HEALTHY and not _overdue(wish, r, now)]
    spare = max(0, healthy - wish.wanted)
    if not spare and _short_of_room(coming, now) and not _leaving(every):
        spare = 1 if healthy == wish.wanted > 1 else 0
    steps += _drains(sorted(good, key=_worth)[:spare])
    at_once = wish.wanted if all(r.leaving is not None for r in old) else 1
    if (missing := min(at_once - len(coming), wish.wanted - len(here))) > 0:
        steps += _starts(wish, missing, now)
    return [*steps, *_drains(sorted(here, key=_worth)[: max(0, len(here) - wish.wanted)])]


def _starts(wish: Wish, count: int, now: datetime) -> list[Step]:
    """After a failure a pause, and then one at a time."""
    if wish.next_try is None:
        return [Start(count)]
    return [Start(1)] if now >= wish.next_try else []


def _hopeless(wish: Wish, replicas: Sequence[Seen], now: datetime) -> Literal["room", "late", "failed"] | None:
    """Why an update is to be given up, while the former revision still answers."""
    healthy = [r for r in replicas if r.phase is Phase.HEALTHY]
    if wish.former is None or not any(r.revision == wish.former for r in healthy):
        return None
    if wish.failures >= MOST_TRIES:
        return "failed"
    new = [r for r in replicas if r.revision == wish.revision]
    if any(r.phase is Phase.STARTING and now - r.since >= wish.ready_within for r in new):
        return "late"
    return "room" if any(r.phase is Phase.WAITING and now - r.since >= ROOM_LIMIT for r in new) else None


def _fault(wish: Wish, replica: Seen, now: datetime) -> Literal["late", "sick"] | None:
    """Why a replica is to be replaced."""
    if replica.phase is Phase.STARTING and now - replica.since >= wish.ready_within:
        return "late"
    return "sick" if replica.phase is Phase.UNHEALTHY and now - replica.since >= SICK_LIMIT else None


def _drained(replica: Seen, now: datetime) -> bool:
    return replica.phase is Phase.DRAINING and (not replica.in_flight or now - replica.since >= DRAIN_LIMIT)


def _may_serve(replica: Seen, now: datetime) -> bool:
    """It is healthy, or may be and has only not been asked yet."""
    unasked = replica.phase is Phase.STARTING and replica.ran_before and now - replica.since < ASKED_WITHIN
    return replica.phase is Phase.HEALTHY or unasked


def _overdue(wish: Wish, replica: Seen, now: datetime) -> bool:
    """Its node is to be empty, and a stand-in had all the time that it may need."""
    return replica.leaving is not None and now - replica.leaving >= wish.moves_within


def _short_of_room(coming: Sequence[Seen], now: datetime) -> bool:
    """All that are coming wait, and one has for long. What is being set up is waited for instead."""
    waits = [r.phase is Phase.WAITING for r in coming]
    return all(waits) and any(now - r.since >= ROOM_PATIENCE for r in coming)


def _staying(replicas: Iterable[Seen]) -> list[Seen]:
    return [r for r in replicas if r.phase not in GONE]


def _leaving(replicas: Iterable[Seen]) -> bool:
    return any(r.phase in GONE for r in replicas)


def _drains(replicas: Iterable[Seen]) -> list[Step]:
    return [Drain(r.session) for r in replicas]


_ORDER = (Phase.AWAY, Phase.UNHEALTHY, Phase.WAITING, Phase.PREPARING, Phase.STARTING, Phase.HEALTHY)


def _worth(replica: Seen) -> tuple[int, bool, float, str]:
    """The least worth keeping first: what does not serve, what must go anyway, what has served the shortest."""
    stays = replica.leaving is None
    return _ORDER.index(replica.phase), stays, -replica.since.timestamp(), replica.session


def due(wish: Wish, replicas: Sequence[Seen], now: datetime) -> datetime | None:
    """The next moment after `now` at which `next_steps` may say something else though nothing happened."""
    moments = [wish.next_try]
    if wish.failures and wish.failed_at is not None:
        moments.append(wish.failed_at + FORGIVEN_AFTER)
    if wish.state is EndpointState.DELETING:
        moments.append(wish.state_since + DELETE_LIMIT)
    for replica in replicas:
        moments += [replica.since + limit for limit in _limits(wish, replica.phase)]
        moments.append(replica.leaving + wish.moves_within if replica.leaving else None)
    return min((m for m in moments if m is not None and m > now), default=None)


def _limits(wish: Wish, phase: Phase) -> list[timedelta]:
    match phase:
        case Phase.DRAINING:
            return [DRAIN_LIMIT]
        case Phase.UNHEALTHY:
            return [SICK_LIMIT]
        case Phase.STARTING:
            return [ASKED_WITHIN, wish.ready_within]
        case Phase.WAITING if wish.former is not None:
            return [ROOM_PATIENCE, ROOM_LIMIT]
        case _:
            return []
