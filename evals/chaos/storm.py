"""The whole story: a cluster comes up, people work while it is struck, all is let finish, and then looked at."""

import asyncio
import contextlib
import time
from pathlib import Path

from pydantic import BaseModel
from sqlalchemy import URL

from evals.chaos import checks
from evals.chaos.adversary import Adversary, until
from evals.chaos.house import House
from evals.chaos.load import LOOK, Load, Talk

PATIENCE = 120.0
"""Seconds for the start and for the end, each; and for all kills, with `A_KILL` for every one."""
A_KILL = 15.0


class Report(BaseModel):
    """What was done, and what was `wrong`."""

    command: str = ""
    seed: int
    kills: dict[str, int]
    sessions: int
    """All acknowledged, all ended."""
    gangs: int
    results: dict[str, int]
    stopped: int
    """By their person."""
    supervisors_lost: int
    """Sessions that lost a supervisor."""
    told: dict[str, int]
    """How often the people's requests were answered, tried again after no answer, asked twice at the same time."""
    events: int
    """Seen by somebody while it went on."""
    seconds: float
    wrong: list[str]


async def storm(
    folder: Path, kills: int, seed: int, agents: int = 3, people: int = 8, database: URL | None = None
) -> Report:
    """`kills` SIGKILLs or a few more on a cluster in `folder`, and what became of it. Nothing runs on afterwards."""
    began = time.monotonic()
    house = House(folder, agents, database)
    load = Load(house, people, seed)
    adversary = Adversary(house, load, seed)
    try:
        await _come_up(house, load)
        await _work(load, adversary, kills)
        wrong = await _look(house, load, adversary)
    finally:
        house.close()
    wrong += [fell for daemon in house.daemons for fell in daemon.fell]
    return _report(load, adversary, time.monotonic() - began, wrong)


async def _come_up(house: House, load: Load) -> None:
    """All nodes are there; a rank takes half of one."""
    for daemon in house.daemons:
        daemon.start()
    async with Talk(house, load.told) as talk, asyncio.timeout(PATIENCE):
        nodes = (await talk.until_answered(lambda c: c.nodes())).items
        while len(nodes) < len(house.agents):
            await asyncio.sleep(LOOK)
            nodes = (await talk.until_answered(lambda c: c.nodes())).items
    load.cpu = nodes[0].capacity.cpu / 2


async def _work(load: Load, adversary: Adversary, kills: int) -> None:
    """Until everybody is done. What is unfinished when a daemon falls, or at the deadline, is told as wrong."""
    working = asyncio.create_task(load.work())
    raging = asyncio.create_task(adversary.rage(kills))
    falling = asyncio.create_task(until(lambda: any(d.process.poll() is not None for d in load.house.daemons)))
    deadline = PATIENCE + kills * A_KILL
    await asyncio.wait([working, raging, falling], timeout=deadline, return_when=asyncio.FIRST_COMPLETED)
    load.over.set()
    await asyncio.wait([working, falling], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    for task, what in ((raging, "the adversary"), (working, "the people")):
        if not task.done():
            load.wrong.append(f"{what} did not come to an end")
    for task in (working, raging, falling):
        task.cancel()
    for said in await asyncio.gather(working, raging, return_exceptions=True):
        if isinstance(said, Exception):
            load.wrong.append(f"{type(said).__name__}: {said}")


async def _look(house: House, load: Load, adversary: Adversary) -> list[str]:
    """After a last kill of the server, and a last look at the processes when nothing is to run any more."""
    house.server.kill()
    house.server.start()
    adversary.kills["server"] += 1
    try:
        async with Talk(house, load.told) as talk, asyncio.timeout(PATIENCE + len(load.promises)):
            wrong = await talk.until_answered(lambda c: checks.through_the_api(c, load, adversary))
    except TimeoutError:
        return [*load.wrong, "the server did not answer any more"]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            await until(lambda: not house.leftovers())
    return wrong + await checks.in_the_database(house, load.promises) + house.leftovers()


def _report(load: Load, adversary: Adversary, seconds: float, wrong: list[str]) -> Report:
    return Report(
        seed=adversary.seed,
        kills=dict(adversary.kills),
        sessions=len(load.promises),
        gangs=sum(p.kind.nodes > 1 for p in load.promises),
        results=dict(load.results),
        stopped=sum(p.stopped for p in load.promises),
        supervisors_lost=len(adversary.struck),
        told=dict(load.told),
        events=len(load.seen),
        seconds=round(seconds, 1),
        wrong=wrong,
    )
