"""People at work: they submit, stop and wait, each operation under a key, asked again until it is answered."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from cluster.client import Client
from cluster.errors import Unavailable
from cluster.lifecycle import ENDED
from cluster.models import Event, Operation, Outcome, Session, SessionType, StartSession, TerminateSessions
from evals.chaos.house import House

T = TypeVar("T")
LOOK = 0.1
"""Seconds between two looks, and between two tries."""
BEGIN = 'echo "$HELMSMAN_ATTEMPT $HELMSMAN_RANK" >> "$CHAOS_RUNS/$HELMSMAN_SESSION"'
"""Each rank's first act; `>>` is O_APPEND."""


@dataclass(frozen=True)
class Kind:
    """What a session does, and how it ends when nobody interferes."""

    then: str
    weight: int
    exit_code: int | None = 0
    nodes: int = 1
    stops: float = 0.15
    """How likely its person stops it."""


KINDS = {
    "short": Kind("true", 4),
    "failing": Kind("exit 3", 2, exit_code=3),
    "napping": Kind("sleep 0.4", 4),
    "gang": Kind("sleep 0.2", 3, nodes=2),
    "endless": Kind("sleep 3600", 2, exit_code=None, stops=1),
    "endless gang": Kind("sleep 3600", 1, exit_code=None, nodes=2, stops=1),
}


@dataclass
class Promise:
    """What the server has acknowledged about one session."""

    key: str
    kind: Kind
    id: str = ""
    journal: dict[str, str] = field(default_factory=dict)
    """Its operations, by their number there."""
    stopped: bool = False
    """So was its termination."""


class Load:
    """`people` of them, until `over` is set; then each finishes what it has begun."""

    def __init__(self, house: House, people: int, seed: int) -> None:
        self.house = house
        self.over = asyncio.Event()
        self.acknowledged = asyncio.Event()
        """Set whenever an operation was answered just now; whoever waits for it clears it before."""
        self.promises: list[Promise] = []
        self.seen: dict[int, Event] = {}
        """Events that somebody was shown, by number."""
        self.wrong: list[str] = []
        self.told = Counter[str]()
        """answered, tried again, asked twice."""
        self.results = Counter[str]()
        self._draws = [random.Random(f"{seed}/{n}") for n in range(people)]
        self.cpu = 1.0
        """Cores of one rank."""

    async def work(self) -> None:
        """Everybody's work, and somebody who follows the events."""
        following = asyncio.create_task(self._follow())
        try:
            await asyncio.gather(*(self._person(n, draw) for n, draw in enumerate(self._draws)))
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _person(self, number: int, draw: random.Random) -> None:
        count = 0
        async with Talk(self.house, self.told) as talk:
            while not self.over.is_set():
                count += 1
                kind = draw.choices([*KINDS.values()], [k.weight for k in KINDS.values()])[0]
                promise = Promise(f"{number}-{count}", kind)
                self.promises.append(promise)
                await self._session(talk, promise, draw)

    async def _session(self, talk: "Talk", promise: Promise, draw: random.Random) -> None:
        """From its submission to its end."""
        outcome = await self._ask(talk, promise, self._operation(promise), "start", twice=draw.random() < 0.2)
        if outcome.session is None:
            self.wrong.append(f"{promise.key} was refused: {[str(r.message) for r in outcome.refused]}")
            return
        promise.id = outcome.session.id
        if draw.random() < promise.kind.stops:
            await self._stop(talk, promise, draw)
        ended = await self._until(talk, promise, lambda s: s.state in ENDED)
        self.results[str(ended.result)] += 1

    async def _stop(self, talk: "Talk", promise: Promise, draw: random.Random) -> None:
        """At once, or when it runs."""
        if draw.random() < 0.5:
            await self._until(talk, promise, lambda s: s.state == "running" or s.state in ENDED)
        operation = TerminateSessions(sessions=[promise.id], force=draw.random() < 0.3)
        outcome = await self._ask(talk, promise, operation, "stop", twice=draw.random() < 0.2)
        promise.stopped = not outcome.refused

    async def _ask(self, talk: "Talk", promise: Promise, operation: Operation, what: str, twice: bool) -> Outcome:
        """Under the promise's key; a hasty one asks `twice` at the same time."""
        key = f"{promise.key}/{what}"
        async with Talk(self.house, self.told) as other:
            talks = [talk, other] if twice else [talk]
            outcomes = await asyncio.gather(*(t.until_answered(lambda c: c.execute(operation, key=key)) for t in talks))
        self.acknowledged.set()
        self.told["asked twice"] += twice
        done = [outcome for outcome in outcomes if outcome.audit_id is not None]
        if any(outcome != done[0] for outcome in done):
            self.wrong.append(f"{key} was done in two ways: {done}")
        promise.journal |= {str(outcome.audit_id): operation.op for outcome in done}
        return done[0] if done else outcomes[0]

    def _operation(self, promise: Promise) -> StartSession:
        return StartSession(
            type=SessionType.BATCH,
            command=f"{BEGIN}; {promise.kind.then}",
            cpu=self.cpu * promise.kind.nodes,
            node_count=promise.kind.nodes,
            env={"CHAOS_RUNS": str(self.house.runs), "CHAOS_KEY": promise.key},
        )

    async def _until(self, talk: "Talk", promise: Promise, true: Callable[[Session], bool]) -> Session:
        session = await talk.until_answered(lambda c: c.session(promise.id))
        while not true(session):
            await asyncio.sleep(LOOK)
            session = await talk.until_answered(lambda c: c.session(promise.id))
        return session

    async def _follow(self) -> None:
        """Read the events as they come, from where it stopped."""
        after = 0
        async with Talk(self.house, self.told) as talk:
            while True:
                for event in await self._events(talk, after):
                    self.seen[event.seq] = event
                    after = event.seq
                await asyncio.sleep(LOOK)

    async def _events(self, talk: "Talk", after: int) -> list[Event]:
        return (await talk.until_answered(lambda client: client.events(after))).items


class Talk:
    """A person's connection, made anew whenever it breaks."""

    def __init__(self, house: House, told: Counter[str]) -> None:
        self._house = house
        self._told = told
        self._client: Client | None = None

    async def __aenter__(self) -> "Talk":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def until_answered(self, ask: Callable[[Client], Awaitable[T]]) -> T:
        """Ask again and again; any error but a server that is away is raised."""
        while True:
            try:
                client = self._client = self._client or self._house.connect()
                answer = await ask(client)
            except Unavailable:
                self._told["tried again"] += 1
                await self._close()
                await asyncio.sleep(LOOK)
            else:
                self._told["answered"] += 1
                return answer

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()
