"""Where requests for endpoints go: all that the proxy knows of the cluster."""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from time import monotonic

from cluster.sentence import S, Sentence
from cluster.serving.measures import Measures

DOUBT = 5.0
"""Seconds."""


@dataclass(eq=False, slots=True)
class Backend:
    """A replica that can be asked, and how many requests it has at the moment."""

    session: str
    host: str
    port: int
    in_flight: int = 0
    served: int = 0
    """The turn in which it was last chosen."""
    doubted: float = 0.0
    """Until then (monotonic) it is the last choice, since it took no connection."""


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint, for the proxy."""

    name: str
    owner: str
    project: str
    backends: tuple[Backend, ...] = ()
    """Those that take requests."""
    coming: bool = False
    """More will take requests soon; it is worth while to wait for them."""
    why: Sentence = field(default_factory=lambda: S("It has no replicas."))
    """Why it can't be reached, when it can't."""


class Routes:
    """By name. `tell` is for who knows the cluster, all else for the proxy."""

    def __init__(self) -> None:
        self._routes: Mapping[str, Route] = {}
        self._backends: dict[tuple[str, str, int], Backend] = {}
        self.measures = Measures()
        self._told = asyncio.Event()
        self._turns = count(1)
        self.waiting: dict[str, int] = {}
        """By endpoint: requests that wait for a replica."""

    # ── what the cluster says ────────────────────────────────────────────────────────────────────

    def backend(self, session: str, host: str, port: int) -> Backend:
        """The one there is, with its count of requests, or a new one."""
        return self._backends.setdefault((session, host, port), Backend(session, host, port))

    def tell(self, routes: Mapping[str, Route], alive: Iterable[str]) -> None:
        """These are all endpoints that take requests; `alive`: sessions of all replicas there are."""
        known = set(alive)
        self._backends = {key: b for key, b in self._backends.items() if b.session in known or b.in_flight}
        self.measures.know({name: len(route.backends) for name, route in routes.items()}, monotonic())
        if routes == self._routes:
            return
        self._routes = routes
        told, self._told = self._told, asyncio.Event()
        told.set()

    def in_flight(self, session: str) -> int:
        """Requests that a replica has."""
        return sum(b.in_flight for b in self._backends.values() if b.session == session)

    # ── what the proxy asks ──────────────────────────────────────────────────────────────────────

    def __getitem__(self, name: str) -> Route:
        """Raises KeyError when there is none, or it does not take requests any more."""
        return self._routes[name]

    def __contains__(self, name: str) -> bool:
        return name in self._routes

    def choose(self, name: str, tried: Collection[Backend] = ()) -> Backend | None:
        """The one with the fewest requests, in turn where several have as few; None when there is none."""
        now = monotonic()
        left = [b for b in self._routes[name].backends if b not in tried]
        return min(left, key=lambda b: (b.doubted > now, b.in_flight, b.served), default=None)

    def doubt(self, backend: Backend) -> None:
        """It took no connection: others go first for a while."""
        backend.doubted = monotonic() + DOUBT

    @contextmanager
    def using(self, backend: Backend) -> Iterator[None]:
        """While a request is with it."""
        backend.in_flight += 1
        backend.served = next(self._turns)
        try:
            yield
        finally:
            backend.in_flight -= 1

    async def news(self, seconds: float) -> None:
        """Until something is told. Raises TimeoutError."""
        told = self._told
        await asyncio.wait_for(told.wait(), seconds)
