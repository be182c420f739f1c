"""Conversations from a script, behind the real interface: for tests, and to look at the page without a cluster."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from cluster.errors import NotFound
from cluster.models import Names
from cluster.sentence import S
from helmsman.conversation import Conversation, ThreadInfo
from helmsman.errors import Busy, HelmsmanError, Stale
from helmsman.events import Asked, Decided, Decision, Event, Happening, PlanShown, TurnEnded, UserSaid

Scene = Callable[["Scripted", str], Awaitable[None]]
"""What happens after a line: `say` events, `decision` for a plan. It ends the turn by returning."""


class Scripted:
    """One thread whose turns are played by a `Scene`. Everything lives in memory."""

    def __init__(self, thread: str, scene: Scene) -> None:
        self.thread = thread
        self._scene = scene
        self._events: list[Event] = []
        self._changed = asyncio.Condition()
        self._plan: tuple[PlanShown, asyncio.Future[Decided]] | None = None
        self._turn: asyncio.Task[None] | None = None
        self._failure: HelmsmanError | None = None

    # ── for the scene ──

    async def say(self, body: Happening) -> None:
        """Append an event."""
        async with self._changed:
            seq = len(self._events) + 1
            self._events.append(Event(seq=seq, at=datetime.now(UTC), thread=self.thread, body=body))
            self._changed.notify_all()

    async def decision(self, plan: PlanShown) -> Decided:
        """Show a plan and wait for what a person decides, in whichever face."""
        self._plan = plan, asyncio.get_running_loop().create_future()
        await self.say(plan)
        return await self._plan[1]

    # ── the conversation ──

    async def send(self, text: str, face: str) -> None:
        """As `Conversation.send`; a line while a plan is open rejects it."""
        if self._plan is not None:
            plan = self._plan[0]
            await self.decide(plan.question, plan.digest, "no", face, comment=text)
            return
        if self._turn is not None and not self._turn.done():
            raise Busy(S("Another turn of this conversation is running. Wait for its end, or stop it."))
        await self.say(UserSaid(text=text, face=face))
        self._turn = asyncio.create_task(self._play(text))
        await self._until_quiet()

    async def decide(
        self,
        question: str,
        digest: str,
        decision: Decision,
        face: str,
        comment: str | None = None,
        edited: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        """As `Conversation.decide`."""
        if self._plan is None or (self._plan[0].question, self._plan[0].digest) != (question, digest):
            raise Stale(S("This plan is no longer the open one. Look at the latest plan."))
        decided = Decided(question=question, decision=decision, comment=comment, face=face)
        waiting, self._plan = self._plan[1], None
        await self.say(decided)
        waiting.set_result(decided)
        await self._until_quiet()

    async def stop(self) -> None:
        """As `Conversation.stop`."""
        if self._turn is not None and not self._turn.done():
            self._turn.cancel()
            await self._until_quiet()

    async def events(self, after: int = 0, follow: bool = True) -> AsyncIterator[Event]:
        """As `Conversation.events`."""
        while True:
            for event in self._events[after:]:
                after = event.seq
                yield event
            if not follow:
                return
            await self._longer_than(after)

    async def names(self) -> Names:
        """As `Conversation.names`."""
        return Names()

    async def threads(self) -> list[ThreadInfo]:
        """As `Conversation.threads`: this one."""
        return [self.info()]

    def info(self) -> ThreadInfo:
        """How it looks in a list."""
        lines = [event.body.text for event in self._events if isinstance(event.body, UserSaid)]
        at = self._events[-1].at if self._events else datetime.now(UTC)
        return ThreadInfo(self.thread, lines[0] if lines else "", at.isoformat(), len(lines))

    async def _play(self, text: str) -> None:
        try:
            await self._scene(self, text)
            await self.say(TurnEnded(outcome="asked" if isinstance(self._events[-1].body, Asked) else "done"))
        except asyncio.CancelledError:
            self._plan = None
            await self.say(TurnEnded(outcome="stopped"))
        except HelmsmanError as failure:
            self._failure = failure
            await self.say(TurnEnded(outcome="failed"))

    async def _until_quiet(self) -> None:
        """Return when the turn has ended or a plan is open; raise what the scene raised."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._plan is not None or self._ended())
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def _longer_than(self, count: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._events) > count)

    def _ended(self) -> bool:
        return isinstance(self._events[-1].body, TurnEnded)


class ScriptedConversations:
    """As `helmsman.web.conversations.Conversations`, every thread with the same scene."""

    kind: type[Scripted] = Scripted

    def __init__(self, scene: Scene, names: Names | None = None) -> None:
        self._scene = scene
        self._names = names or Names()
        self._threads: dict[str, Scripted] = {}

    async def open(self, thread: str | None = None) -> Conversation:
        """The thread, or a new one."""
        if thread is None:
            thread = f"t{len(self._threads) + 1}"
            self._threads[thread] = self.kind(thread, self._scene)
        if thread not in self._threads:
            raise NotFound(S("There is no conversation {thread}. Choose one from the list.", thread=thread))
        return self._threads[thread]

    async def threads(self) -> list[ThreadInfo]:
        """All of them, newest first."""
        return [conversation.info() for conversation in reversed(self._threads.values())]

    async def names(self) -> Names:
        """Those given."""
        return self._names
