"""What kills: a daemon in the middle of the load, one that is only just starting, a session's supervisor."""

import asyncio
import contextlib
import random
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from evals.chaos.house import Daemon, House
from evals.chaos.load import Load

LOOK = 0.02
WORK = {"server": 6, "server at its start": 2, "agent": 5, "agent at its start": 2, "supervisor": 3}
"""How often each is struck, in proportion."""
START_COSTS = 1.2
"""CPU seconds that a start takes, about."""


@dataclass
class Adversary:
    """Draws its strikes from `seed`; when it strikes depends on how far the work has come, so on the machine too."""

    house: House
    load: Load
    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    struck: set[str] = field(default_factory=set)
    """Sessions that lost a supervisor."""

    def __post_init__(self) -> None:
        self._draw = random.Random(f"{self.seed}/adversary")

    async def rage(self, kills: int) -> None:
        """At least so many SIGKILLs; each kind once, and supervisors more often, before any comes by chance."""
        first = [*WORK, "supervisor", "supervisor"]
        self._draw.shuffle(first)
        while self.kills.total() < kills:
            await self._strike(first.pop() if first else self._draw.choices([*WORK], [*WORK.values()])[0])

    async def _strike(self, what: str) -> None:
        daemon = self.house.server if what.startswith("server") else self._draw.choice(self.house.agents)
        if what == "supervisor":
            await self._strike_supervisor()
            return
        await self._until_work_was_done()
        self._kill(daemon, daemon is self.house.server)
        if what.endswith("start"):
            await self._while_starting(daemon)
            self._kill(daemon, daemon is self.house.server, " at its start")

    def _kill(self, daemon: Daemon, server: bool, when: str = "") -> None:
        daemon.kill()
        daemon.start()
        self.kills[("server" if server else "agent") + when] += 1

    async def _until_work_was_done(self) -> None:
        """Some requests more were answered by the server that runs now; then the very moment in which it acknowledges
        an operation, or some moment soon after."""
        await until(lambda: self.house.up)
        enough = self.load.told["answered"] + self._draw.randint(1, 60)
        await until(lambda: self.load.told["answered"] >= enough)
        if self._draw.random() < 0.5:
            self.load.acknowledged.clear()
            await self.load.acknowledged.wait()
        else:
            await asyncio.sleep(self._draw.uniform(0, 0.05))

    async def _while_starting(self, daemon: Daemon) -> None:
        enough = self._draw.uniform(0, START_COSTS)
        await until(lambda: daemon.cpu_seconds() >= enough or (daemon is self.house.server and self.house.up))

    async def _strike_supervisor(self) -> None:
        """Of a command that has been launched, or of any work, as it comes."""
        any_will_do = self._draw.random() < 0.3
        await until(lambda: bool(self._supervisors(any_will_do)))
        if found := self._supervisors(any_will_do):  # it may have ended between the two looks
            record, process = self._draw.choice(found)
            self.struck.add(record.name.split(".")[0])
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
                self.kills["supervisor"] += 1

    def _supervisors(self, any_will_do: bool) -> list[tuple[Path, psutil.Process]]:
        found = self.house.supervisors()
        return [(record, process) for record, process in found if any_will_do or (record / "launched").exists()]


async def until(true: Callable[[], bool]) -> None:
    """Whoever calls sets the deadline."""
    while not true():  # noqa: ASYNC110 - processes and files tell nobody
        await asyncio.sleep(LOOK)
