"""Whether a replica can serve: asked over HTTP every few seconds, or, in a simulated cluster, played."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import httpx
import structlog

from cluster.clock import Clock
from cluster.live import LiveSession
from cluster.models import ReplicaPhase as Phase

GOOD, BAD = 2, 3
"""So many answers in a row make a replica healthy; so many without an answer make a healthy one unhealthy."""
EVERY, EAGERLY = 2.0, 0.5
"""Seconds between two looks at all replicas; while one of them is starting."""
TIMEOUT = 2.0
AT_ONCE = 64
"""So many replicas are asked at the same time."""
PLAYED_SICK = "HELMSMAN_SIMULATED_SICK"
"""A simulated replica with this variable does not answer."""
WARM_UP = timedelta(seconds=20)
"""A simulated replica is healthy so long after it began to run."""

log = structlog.get_logger(__name__)
Key = tuple[str, int]
"""A session and its attempt: one that was started anew is another."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a running replica is asked."""

    session: str
    attempt: int
    host: str
    port: int
    path: str

    @property
    def key(self) -> Key:
        return self.session, self.attempt

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{self.path}"


@dataclass(slots=True)
class Verdict:
    """STARTING, HEALTHY or UNHEALTHY, since when; and how many answers in a row were good, or bad."""

    since: datetime
    phase: Phase = Phase.STARTING
    good: int = 0
    bad: int = 0

    def heard(self, answered: bool, now: datetime) -> bool:
        """Take one answer into account. True if the phase changed."""
        self.good, self.bad = (self.good + 1, 0) if answered else (0, self.bad + 1)
        before = self.phase
        if self.good >= GOOD:
            self.phase = Phase.HEALTHY
        elif self.bad >= BAD and self.phase is Phase.HEALTHY:
            self.phase = Phase.UNHEALTHY
        if self.phase is not before:
            self.since = now
        return self.phase is not before


class Health(Protocol):
    """What is known of the health of running replicas."""

    def of(self, session: LiveSession, now: datetime) -> Verdict:
        """Of a running one."""

    def watch(self, targets: Mapping[Key, Target]) -> None:
        """These are the running replicas from now on."""

    def due(self, session: LiveSession, now: datetime) -> datetime | None:
        """When time alone changes what `of` says of a running one."""

    async def close(self) -> None:
        """Stop asking."""


class Probes:
    """Asks them over HTTP, in a background task as long as there are some.

    What it knows is in memory: after a restart every replica is asked anew, and time limits count from then.
    """

    def __init__(self, clock: Clock, changed: Callable[[], None]) -> None:
        self._clock = clock
        self._changed = changed
        self._targets: Mapping[Key, Target] = {}
        self._verdicts: dict[Key, Verdict] = {}
        self._task: asyncio.Task[None] | None = None
        self._new = asyncio.Event()
        self._room = asyncio.Semaphore(AT_ONCE)

    def of(self, session: LiveSession, now: datetime) -> Verdict:
        return self._verdicts.setdefault((session.id, session.attempt), Verdict(now))

    def due(self, session: LiveSession, now: datetime) -> datetime | None:
        return None

    def watch(self, targets: Mapping[Key, Target]) -> None:
        if targets.keys() - self._targets.keys():
            self._new.set()
        self._targets = targets
        for gone in self._verdicts.keys() - targets.keys():
            del self._verdicts[gone]
        if targets and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._ask())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _ask(self) -> None:
        once = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=0)
        async with httpx.AsyncClient(timeout=TIMEOUT, limits=once, trust_env=False) as http:
            while self._targets:
                try:
                    await asyncio.gather(*(self._ask_one(http, target) for target in self._targets.values()))
                except Exception:
                    log.exception("health checks failed")  # a bug; they must go on
                starting = any(self.starting(key) for key in self._targets)
                self._new.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._new.wait(), EAGERLY if starting else EVERY)

    def starting(self, key: Key) -> bool:
        verdict = self._verdicts.get(key)
        return verdict is None or verdict.phase is not Phase.HEALTHY

    async def _ask_one(self, http: httpx.AsyncClient, target: Target) -> None:
        async with self._room:
            answered = await answers(http, target.url)
        now = self._clock.now()
        if target.key in self._targets and self._verdicts.setdefault(target.key, Verdict(now)).heard(answered, now):
            self._changed()


async def answers(http: httpx.AsyncClient, url: str) -> bool:
    """Whether `url` answers 2xx; its body is not read."""
    try:
        async with asyncio.timeout(TIMEOUT), http.stream("GET", url) as reply:
            return reply.is_success
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError):
        return False


class Played:
    """A simulated replica is healthy some seconds after it began to run, and stays so while its node speaks."""

    def __init__(self) -> None:
        self._first_seen: dict[str, datetime] = {}

    def of(self, session: LiveSession, now: datetime) -> Verdict:
        began = session.started or session.state_since
        ready = began + WARM_UP
        if PLAYED_SICK in session.env:
            return Verdict(self._first_seen.setdefault(session.id, now), Phase.UNHEALTHY)
        return Verdict(ready, Phase.HEALTHY) if ready <= now else Verdict(began)

    def watch(self, targets: Mapping[Key, Target]) -> None:
        """Nobody is asked."""

    def due(self, session: LiveSession, now: datetime) -> datetime | None:
        ready = (session.started or session.state_since) + WARM_UP
        return ready if ready > now else None

    async def close(self) -> None:
        """Nothing runs."""
