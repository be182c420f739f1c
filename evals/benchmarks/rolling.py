"""A rolling update of an endpoint while clients ask it all the time: how many requests fail, and what it costs them.

Real processes: server, agent, replicas. The clients go through the proxy, as fast as they are answered.
"""

import asyncio
import contextlib
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil

from cluster.client import Client
from cluster.clock import WallClock
from cluster.core import Core
from cluster.db.tables import ModelRow
from cluster.errors import Unavailable
from cluster.models import DeployModel, Endpoint, EndpointHealth, Launch, Recipe
from evals.benchmarks.report import Broken, Cell, Figure, Options, Report, Series, Target
from evals.chaos.house import House

ENDPOINT = "chat"
MODELS = ("one", "two")
PATIENCE = 120.0
"""Seconds for a step that takes a few."""


@dataclass(frozen=True)
class Size:
    clients: int = 8
    replicas: int = 3
    updates: int = 4
    quiet: float = 5.0
    """Seconds of load before the first update and after the last."""

    def times(self, share: float) -> "Size":
        return Size(max(2, int(self.clients * share)), self.replicas, max(1, int(self.updates * share)),
                    max(0.5, self.quiet * share))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a client's. Times of the monotonic clock."""

    at: float
    seconds: float
    by: str
    """The model that answered; empty when none did."""
    wrong: str = ""
    """Why it failed."""


@dataclass
class Load:
    """Clients that ask one after the other until `stop` is set."""

    url: str
    headers: dict[str, str]
    asked: list[Asked] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def client(self, number: int) -> None:
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(headers=self.headers, limits=limits, timeout=60, trust_env=False) as http:
            turn = 0
            while not self.stop.is_set():
                turn += 1
                self.asked.append(await self._ask(http, f"{number}/{turn}"))

    async def _ask(self, http: httpx.AsyncClient, said: str) -> Asked:
        began = time.monotonic()
        try:
            reply = await http.post(f"{self.url}/serve/{ENDPOINT}/v1/echo", content=said)
        except httpx.HTTPError as e:
            return Asked(began, time.monotonic() - began, "", type(e).__name__)
        wrong = "" if reply.status_code == 200 and reply.text == said else f"{reply.status_code} {reply.text[:200]}"
        return Asked(began, time.monotonic() - began, reply.headers.get("x-replica", ""), wrong)


@contextlib.asynccontextmanager
async def asking(house: House, clients: int) -> AsyncIterator[Load]:
    """So many clients, as long as the block lasts."""
    client = house.connect()
    http = client._http
    load = Load(str(http.base_url).rstrip("/"), {"Authorization": http.headers["Authorization"]})
    await client.close()
    tasks = [asyncio.create_task(load.client(i)) for i in range(clients)]
    try:
        yield load
    finally:
        load.stop.set()
        await asyncio.gather(*tasks)


# ── the cluster ──────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def housed(folder: Path, commands: dict[str, str] | None = None, agents: int = 1) -> AsyncIterator[House]:
    """Server and agents, with models in the store: `commands` by name."""
    house = House(folder, agents=agents)
    await store(house, commands or {name: command(name) for name in MODELS})
    try:
        house.server.start()
        await until(lambda: _true(house.up))
        for agent in house.agents:
            agent.start()
        yield house
    finally:
        await asyncio.to_thread(house.close)


def command(name: str) -> str:
    return f"exec {shlex.quote(sys.executable)} -m evals.benchmarks.replica --port $PORT --name {name}"


async def store(house: House, commands: dict[str, str]) -> None:
    """Models as the store would have them, before the server starts."""
    house.server.folder.mkdir(exist_ok=True)
    where = house.server.folder
    core = await Core.open(house.database, clock=WallClock(), data_dir=where, name="embedded")
    async with core.db.write() as db:
        for name, line in commands.items():
            launch = Launch(command=line, cpu=0.1, memory=2**28, ready_within=60)
            recipe = Recipe(name=name, runtime="command", launch=launch).model_dump(mode="json")
            now = core.clock.now()
            db.add(ModelRow(name=name, owner="", source=name, recipe=recipe, card={}, state="ready",
                            state_since=now, reasons=[], created=now))  # fmt: skip
    await core.close()


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    """Raises TimeoutError after `PATIENCE`."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if await look():
                return
            await asyncio.sleep(0.05)


async def _true(value: bool) -> bool:
    return value


async def settled(client: Client, model: str, replicas: int) -> Endpoint | None:
    """The endpoint, once it is as it should be; None before."""
    try:
        at = await client.endpoint(ENDPOINT)
    except Unavailable:
        return None
    same = at.model == model and at.former is None and {r.model for r in at.replicas} == {model}
    whole = at.health is EndpointHealth.HEALTHY and at.traffic.replicas == len(at.replicas) == replicas
    return at if same and whole else None


async def deploy(client: Client, model: str, replicas: int) -> None:
    """Ask for it; raises `Broken` when it is refused."""
    outcome = await client.execute(DeployModel(model=model, name=ENDPOINT, replicas=replicas))
    if outcome.refused:
        raise Broken(f"The endpoint could not be deployed: {outcome.refused[0].message}")


async def moved(client: Client, model: str, replicas: int) -> float:
    """Deploy, and wait until it has all its replicas; how long it took."""
    began = time.monotonic()
    await deploy(client, model, replicas)

    async def done() -> bool:
        return await settled(client, model, replicas) is not None

    await until(done)
    return time.monotonic() - began


def replica_pids(house: House) -> list[int]:
    """Processes of the replicas."""
    words = [(p.pid, p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    mine = str(house.folder)
    return [pid for pid, line in words if "evals.benchmarks.replica" in line and _belongs(pid, mine)]


def _belongs(pid: int, folder: str) -> bool:
    try:
        return any(value.startswith(folder) for value in psutil.Process(pid).environ().values())
    except psutil.Error:
        return False


# ── measuring ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Measured:
    asked: list[Asked]
    updates: list[tuple[float, float]]
    """When each began, and when it was done."""

    @property
    def failed(self) -> list[Asked]:
        return [a for a in self.asked if a.wrong]

    def when(self, updating: bool) -> list[Asked]:
        """Those asked while an update was under way, or while none was."""
        return [a for a in self.asked if any(b <= a.at <= e for b, e in self.updates) == updating]


async def measure(size: Size) -> Measured:
    """Updates to and fro under load."""
    with tempfile.TemporaryDirectory(prefix="rolling-") as folder:
        async with housed(Path(folder)) as house:
            client = house.connect()
            await until(lambda: _joined(client))
            await moved(client, MODELS[0], size.replicas)
            updates: list[tuple[float, float]] = []
            async with asking(house, size.clients) as load:
                await asyncio.sleep(size.quiet)
                for turn in range(size.updates):
                    began = time.monotonic()
                    await moved(client, MODELS[(turn + 1) % 2], size.replicas)
                    updates.append((began, time.monotonic()))
                await asyncio.sleep(size.quiet)
            await client.close()
    return Measured(load.asked, updates)


async def _joined(client: Client) -> bool:
    return (await client.nodes()).total > 0


def run(options: Options) -> Report:
    size = Size().times(options.size)
    found = asyncio.run(measure(size))
    return Report(
        name="rolling",
        title=f"{size.updates} rolling updates of {size.replicas} replicas under the load of {size.clients} clients",
        columns=["", "requests", "failed", "p50 ms", "p95 ms", "p99 ms", "max ms"],
        rows=[
            _row("between updates", found, updating=False),
            _row("during updates", found, updating=True),
        ],
        targets=[Target(what="failed requests", value=len(found.failed), target=0, better="less")],
        ratios={"p95 during updates / between": _quantile(found.when(True), 95) / _quantile(found.when(False), 95)},
        notes=[
            f"an update took {np.mean([e - b for b, e in found.updates]):.1f} s on average: each replica is a new "
            "process, healthy after two good answers, and the old one is stopped when it has answered.",
            "server, agent, replicas and clients share the machine's cores; the starts of new processes are in the "
            "latencies.",
            *(f"{count} x {why}" for why, count in Counter(a.wrong for a in found.failed).most_common(5)),
        ],
        figures=[_figure(found)],
    )


def _row(what: str, found: Measured, updating: bool) -> list[Cell]:
    asked = found.when(updating)
    failed = sum(bool(a.wrong) for a in asked)
    return [what, len(asked), failed, *(1000 * _quantile(asked, q) for q in (50, 95, 99, 100))]


def _quantile(asked: Sequence[Asked], q: float) -> float:
    return float(np.percentile([a.seconds for a in asked], q)) if asked else float("nan")


def _figure(found: Measured) -> Figure:
    """Who answered, second by second."""
    first = min(a.at for a in found.asked)
    last = int(max(a.at for a in found.asked) - first) + 1
    series = []
    for model in MODELS:
        counts = Counter(int(a.at - first) for a in found.asked if a.by == model)
        series.append(Series(name=model, x=[float(i) for i in range(last)], y=[float(counts[i]) for i in range(last)]))
    return Figure(title="requests answered by each model", y="1/s", x="s", kind="lines", series=series)
