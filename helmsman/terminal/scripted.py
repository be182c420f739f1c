"""A conversation and a host that follow a script: for tests, and to look at the screen without a cluster.

`python -m helmsman.terminal.play` is a small play on it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cluster.models import AuditEntry, ClusterStatus, LogPage, Names, Page
from cluster.sentence import Sentence
from helmsman.conversation import ThreadInfo
from helmsman.errors import Busy, HelmsmanError, Stale
from helmsman.events import Asked, Decided, Decision, Event, Happening, PlanShown, TurnEnded, UserSaid
from helmsman.terminal.host import Approval, ModelChoice

WHEN = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)

Script = Callable[["ScriptedConversation", str], Awaitable[None]]
"""Plays one turn for a line: `emit`s events, may `ask` and go on with the decision."""


def _plain(text: str) -> Sentence:
    """A sentence of the script's; it isn't for the translators."""
    return Sentence(text=text)


@dataclass
class ScriptedConversation:
    """Behaves like `helmsman.session.Session`, with a script in the place of model and cluster."""

    script: Script
    thread: str = "t-1"
    known: Names = field(default_factory=Names)
    past: list[ThreadInfo] = field(default_factory=list)
    happened: list[Event] = field(default_factory=list)
    decided: list[Decided] = field(default_factory=list)
    edited: dict[str, dict[str, Any]] | None = None
    done: list[str] = field(default_factory=list)
    """What a stopped turn says had already happened."""
    pace: float = 1.0
    """Of the pauses between events; 0 for none."""

    def __post_init__(self) -> None:
        self._news = asyncio.Condition()
        self._turn: asyncio.Task[None] | None = None
        self._open: PlanShown | Asked | None = None
        self._reply: asyncio.Future[Decided | str] | None = None
        self._question = asyncio.Event()

    async def emit(self, body: Happening) -> None:
        """Add an event to the stream."""
        self.happened.append(Event(seq=len(self.happened) + 1, at=WHEN, thread=self.thread, body=body))
        async with self._news:
            self._news.notify_all()

    async def pause(self, seconds: float) -> None:
        """As if something took so long."""
        await asyncio.sleep(seconds * self.pace)

    async def ask(self, question: PlanShown | Asked) -> Decided | str:
        """Raise a question; the decision, or the line that came instead."""
        await self.emit(question)
        self._reply = asyncio.get_running_loop().create_future()
        self._open = question
        self._question.set()
        return await self._reply

    # ── helmsman.conversation.Conversation ───────────────────────────────────────────────────────

    async def send(self, text: str, face: str) -> None:
        if self._turn and not self._open:
            raise Busy(_plain("Another turn is running."))
        await self.emit(UserSaid(text=text, face=face))
        if self._open:
            self._answer(text)
        else:
            self.done = []
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
        if not isinstance(self._open, PlanShown) or (question, digest) != (self._open.question, self._open.digest):
            raise Stale(_plain("That question has been answered already."))
        decided = Decided(question=question, decision=decision, comment=comment, face=face)
        self.decided.append(decided)
        self.edited = edited
        await self.emit(decided)
        self._answer(decided)
        await self._until_quiet()

    async def stop(self) -> None:
        if self._turn:
            self._turn.cancel()

    async def events(self, after: int = 0, follow: bool = True) -> AsyncIterator[Event]:
        while True:
            for event in self.happened[after:]:
                after = event.seq
                yield event
            if not follow:
                return
            async with self._news:
                while len(self.happened) <= after:
                    await self._news.wait()

    async def names(self) -> Names:
        return self.known

    async def threads(self) -> list[ThreadInfo]:
        return self.past

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    async def _play(self, text: str) -> None:
        try:
            await self.script(self, text)
        except asyncio.CancelledError:
            await self.emit(TurnEnded(outcome="stopped", done=self.done))
        else:
            await self.emit(TurnEnded(outcome="done"))
        finally:
            self._turn = self._open = None

    def _answer(self, reply: Decided | str) -> None:
        self._open = None
        self._question.clear()
        if self._reply:
            self._reply.set_result(reply)

    async def _until_quiet(self) -> None:
        """Until the turn has ended or asks something."""
        if turn := self._turn:
            asked = asyncio.create_task(self._question.wait())
            await asyncio.wait([turn, asked], return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            if turn.done():
                turn.result()


@dataclass
class ScriptedCluster:
    """`ClusterReads` of fixed answers. `output` grows by what a test appends to it."""

    state: ClusterStatus
    entries: list[AuditEntry] = field(default_factory=list)
    output: dict[str, bytes] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)

    async def status(self) -> ClusterStatus:
        return self.state

    async def logs(self, ref: str, tail: int | None = 100, offset: int | None = None) -> LogPage:
        data = self.output.get(ref)
        if data is None:
            raise HelmsmanError(_plain(f"There is no session {ref}."))
        piece = data[offset:] if offset is not None else b"\n".join(data.split(b"\n")[-(tail or 0) - 1 :])
        text = piece.decode(errors="replace")
        return LogPage(session=ref, text=text, next_offset=len(data), finished=ref in self.ended)

    async def audit(self, *, user: str | None = None, limit: int | None = None) -> Page[AuditEntry]:
        return Page[AuditEntry](items=self.entries[:limit], total=len(self.entries))


@dataclass
class ScriptedHost:
    """`Host` of fixed answers."""

    cluster: ScriptedCluster
    opens: Callable[[str | None], ScriptedConversation]
    user: str = "minho"
    model: str = "g"
    allowed: list[Approval] = field(default_factory=list)

    async def models(self) -> list[ModelChoice]:
        known = {"g": "in this process", "gpt-5": "https://api.example.com/v1"}
        return [ModelChoice(name, about, name == self.model) for name, about in known.items()]

    async def use_model(self, name: str) -> None:
        self.model = name

    async def approvals(self) -> list[Approval]:
        return list(self.allowed)

    async def allow(self, tool: str, pattern: str | None) -> Approval:
        if tool == "terminate_sessions":
            raise HelmsmanError(_plain(f"{tool} destroys work, so it always asks."))
        self.allowed.append(Approval(f"p-{len(self.allowed) + 1}", tool, pattern))
        return self.allowed[-1]

    async def revoke(self, approval: str) -> None:
        self.allowed = [each for each in self.allowed if each.id != approval]

    async def open(self, thread: str | None) -> ScriptedConversation:
        return self.opens(thread)
