"""A whole simulated cluster in this process: the real core, API and scheduler; simulated agents and clock."""

import asyncio
import contextlib
import shutil
import sqlite3
import tempfile
import time
from collections.abc import AsyncGenerator
from copy import copy
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import httpx
from fastapi import FastAPI
from rapidfuzz import process

from cluster.api.app import create_app, state_of
from cluster.client import Client
from cluster.clock import VirtualClock
from cluster.core import Core
from cluster.errors import NotFound
from cluster.sentence import S
from cluster.simulator.fleet import Fleet
from cluster.simulator.loading import Loaded, load
from cluster.simulator.seed import Seeder
from cluster.simulator.start import start_fleet, write_logs

DEMO = Path(__file__).parent / "scenarios" / "demo.yaml"
"""The scenario of `helmsman --demo`."""

ROUNDS = 50
"""`settle` gives up after this many rounds; a start takes three."""

TICK = 1.0
"""Seconds of real time between two looks of `live`."""

BEAT = 5.0
"""Seconds of virtual time within which the agents beat in `live`."""


class World:
    """Made by `open` or `fork`. Time stands still unless `advance` or `live` moves it."""

    def __init__(self, loaded: Loaded, core: Core, clock: VirtualClock, fleet: Fleet, app: FastAPI, own: bool) -> None:
        self.loaded = loaded
        self.core = core
        self.clock = clock
        self.fleet = fleet
        self.app = app
        self._own_dir = own
        self._moving = asyncio.Lock()

    @classmethod
    async def open(cls, scenario: Path | str, *, data_dir: Path | None = None, seed: int = 0) -> "World":
        """A fresh world as `scenario` (a file, or YAML text) says; `data_dir` is a temporary directory when left out.

        `ScenarioError` with all mistakes when the scenario can't be used.
        """
        loaded = await asyncio.to_thread(load, scenario)
        where = data_dir or Path(tempfile.mkdtemp(prefix="helmsman-world-"))
        clock, fleet = VirtualClock(loaded.scenario.now), start_fleet(loaded, seed)
        core = await _open_core(where, clock, loaded)
        async with core.db.write() as db:
            await Seeder(loaded, fleet.agents).write(db)
        await asyncio.to_thread(write_logs, loaded, seed, where)
        return cls(loaded, core, clock, fleet, create_app(core), own=data_dir is None)

    async def fork(self) -> "World":
        """A copy that goes its own way from here."""
        where = Path(tempfile.mkdtemp(prefix="helmsman-world-"))
        async with self._moving:
            await self.core.save()
            await asyncio.to_thread(_copy, self.core.data_dir, where)
            clock, fleet = VirtualClock(self.clock.now()), self.fleet.copy()
        core = await _open_core(where, clock, self.loaded)
        return World(self.loaded, core, clock, fleet, _twin(self.app, core), own=True)

    async def close(self) -> None:
        """Close the core; a temporary directory goes with it."""
        await self.core.close()
        if self._own_dir:
            await asyncio.to_thread(shutil.rmtree, self.core.data_dir, ignore_errors=True)

    @property
    def timezone(self) -> tzinfo | None:
        """In which the scenario's people speak of times."""
        return self.loaded.scenario.now.tzinfo

    def client(self, user: str | None = None) -> Client:
        """The API in process, as `user` or as the scenario's first admin. `NotFound` when there is no such user."""
        users = self.loaded.scenario.users
        name = user or next(each.name for each in users if each.role == "admin")
        known = [each.name for each in users]
        if name not in known:
            near = [found for found, score, _ in process.extract(name, known, limit=3) if score >= 60]
            raise NotFound(S("There is no user {name} in this scenario.", name=name), near)
        transport = httpx.ASGITransport(self.app)
        return Client(httpx.AsyncClient(transport=transport, base_url="http://simulated", auth=_Auth(self.core, name)))

    # ── time ─────────────────────────────────────────────────────────────────────────────────────

    async def settle(self) -> None:
        """What follows at once: passes of the scheduler, steps of the agents. The clock stands still."""
        async with self._moving:
            await self._settle()

    async def advance(self, by: timedelta) -> None:
        """Move the clock by `by`, from event to event: ends, faults, start times, and what follows from each."""
        async with self._moving:
            await self._advance(self.clock.now() + by)

    async def live(self, speed: float = 1.0) -> None:
        """Move with the wall clock, `speed` times as fast, until cancelled."""
        before, beaten = time.monotonic(), self.clock.now()
        while True:
            news = await self._news(TICK)
            now = time.monotonic()
            target, before = self.clock.now() + timedelta(seconds=(now - before) * speed), now
            async with self._moving:
                due = await self._next_event(self.clock.now(), target) < target
                if due or news or target - beaten >= timedelta(seconds=BEAT):
                    await self._advance(target)
                    beaten = target
                else:
                    self.clock.advance_to(target)

    async def _news(self, seconds: float) -> bool:
        """Wait until somebody did something, or `seconds`. True when somebody did."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.core.wake.wait(), seconds)
        return self.core.wake.is_set()

    async def _settle(self) -> None:
        for _ in range(ROUNDS):
            changed = await self.core.schedule_pass()
            waiting = await self._ordered() | self.fleet.news
            changed = await self.fleet.beat(self.core.agents, self.clock.now(), sorted(waiting)) or changed
            if not changed:
                break
        self.core.wake.clear()

    async def _ordered(self) -> set[str]:
        """Nodes for which the core has something to do."""
        async with self.core.still() as ledger:
            return ledger.with_orders()

    async def _advance(self, target: datetime) -> None:
        while True:
            now = self.clock.advance_to(await self._next_event(self.clock.now(), target))
            await self.fleet.beat(self.core.agents, now)
            touched = self.fleet.happen(now)
            await self.fleet.beat(self.core.agents, now, sorted(touched))
            await self._settle()
            if now >= target:
                return

    async def _next_event(self, now: datetime, target: datetime) -> datetime:
        """The first moment after `now` at which something happens by itself, at most `target`."""
        async with self.core.still() as ledger:
            start = ledger.next_start(now)
        kept = [keeper.due() for keeper in self.core.keepers]
        times = [when for when in (self.fleet.next_event(), start, *kept) if when is not None]
        return min([*times, target], key=lambda when: max(when, now))


class _Auth(httpx.Auth):
    """Gets itself a token of `user` with the first request."""

    def __init__(self, core: Core, user: str) -> None:
        self._core, self._user = core, user
        self._token: str | None = None

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        if self._token is None:
            self._token = self._core.tokens.passing(self._user)
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


async def _open_core(where: Path, clock: VirtualClock, loaded: Loaded) -> Core:
    return await Core.open(_database(where), clock=clock, data_dir=where, name=loaded.scenario.name, simulated=True)


def _twin(app: FastAPI, core: Core) -> FastAPI:
    """The same API for another core: its routes are shared, since making them is most of the cost of a fork."""
    twin = copy(app)
    twin.state, twin.middleware_stack = state_of(core), None
    return twin


def _database(where: Path) -> Path:
    return where / "cluster.db"


def _copy(source: Path, target: Path) -> None:
    """Database and logs. The database is copied by SQLite, whatever is written meanwhile."""
    with (
        contextlib.closing(sqlite3.connect(_database(source))) as old,
        contextlib.closing(sqlite3.connect(_database(target))) as new,
    ):
        old.backup(new)
    shutil.copytree(source / "logs", target / "logs", dirs_exist_ok=True)
