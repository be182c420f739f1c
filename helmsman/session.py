"""One conversation, held by any number of faces in any number of processes.

send, decide, stop ──► Session ──► graph (helmsman/graph.py) ──► events ──► store ──► every face
                          │                  ▲
                          └── lease ─────────┘  only its holder runs the thread's turn
"""

import asyncio
import contextlib
import logging
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from langgraph.types import Command

from cluster.errors import ClusterError
from cluster.models import Names, S, Sentence
from helmsman import questions, replies
from helmsman.checkpoints import prune
from helmsman.conversation import ThreadInfo
from helmsman.errors import Busy, HelmsmanError, Stale, unkept
from helmsman.events import Answered, Decision, Event, TurnEnded, UserSaid
from helmsman.kit import Kit, Opened
from helmsman.turn import Asking, Exchange, Given, Language, Picked, Step, Turn
from tools.words import say

if TYPE_CHECKING:
    from helmsman.desk import Desk

log = logging.getLogger(__name__)

BEAT = 2.0
"""Seconds between two beats of the lease."""
FRESH = 900.0
"""Seconds after which an approved call that was broken off is not carried out any more by itself."""
PATIENCE = 5.0
"""Seconds that a decision waits for the process that asked to let go of the turn."""
NAMES_FOR = 3.0
"""Seconds that names are kept for completion."""


class Session:
    """One thread; see `helmsman.conversation.Conversation` for what each method promises."""

    def __init__(self, desk: "Desk", thread: str) -> None:
        self.thread = thread
        self._desk = desk
        self._store = desk.store
        self._kit: Kit = desk.kit(thread)
        self._recovering = asyncio.Lock()
        self._names: tuple[float, Names] | None = None

    # ── what a face can do ───────────────────────────────────────────────────────────────────────

    async def send(self, text: str, face: str) -> None:
        """Take a line: an answer while a question is open, else a new request."""
        await self.recover()
        question = await self._store.question(self.thread)
        if question is None:
            await self._request(text, face)
        elif question.asking is not None:
            await self._answer_asked(question, text, face)
        else:
            await self._answer_plan(question, text, face)

    async def decide(
        self,
        question: str,
        digest: str,
        decision: Decision,
        face: str,
        comment: str | None = None,
        edited: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        """Answer a plan card; a no with a comment is followed by the comment as a new request."""
        given = Given(question=question, digest=digest, decision=decision, comment=comment, edited=edited, face=face)
        await self.recover()
        await self._decide(given)
        if decision == "no" and comment and comment.strip():
            await self._request(comment, face, heard=True)

    async def stop(self) -> None:
        """End the turn, whichever process runs it; an open plan is answered with no."""
        question = await self._store.question(self.thread)
        if question is not None and question.asking is None:
            with contextlib.suppress(Stale):
                await self._decide(Given(question=question.id, digest=question.digest, decision="no", face="stop"))
            return
        self._kit.stopping.set()
        await self._store.ask_to_stop(self.thread)

    async def events(self, after: int = 0, follow: bool = True) -> AsyncIterator[Event]:
        """What is stored, then what comes."""
        async with self._store.changes() as changed:
            while True:
                changed.clear()
                for event in await self._store.events(self.thread, after):
                    after = event.seq
                    yield event
                if not follow:
                    return
                await changed.wait()

    async def names(self) -> Names:
        """What exists; at most three seconds old."""
        if self._names is None or time.monotonic() - self._names[0] > NAMES_FOR:
            self._names = (time.monotonic(), await self._kit.client.names())
        return self._names[1]

    async def threads(self) -> list[ThreadInfo]:
        return await self._desk.threads()

    # ── lines ────────────────────────────────────────────────────────────────────────────────────

    async def _request(self, text: str, face: str, heard: bool = False, answers: Asking | None = None) -> None:
        """Begin a turn. It `answers` a question back; `heard`: the line stands in the stream already."""
        turn = Turn(
            id=f"{self.thread}.{secrets.token_hex(3)}", language=self._desk.language(text), exchange=Exchange(user=text)
        )
        if answers is not None:
            _answer(turn, answers)
        said = None if heard else UserSaid(text=text, face=face)
        await self._store.begin(self.thread, self._desk.owner, turn.id, said, " ".join(text.split())[:80])
        await self._drive({"turn": turn.model_dump(mode="json")})

    async def _answer_plan(self, question: Opened, text: str, face: str) -> None:
        reply = replies.yes_or_no(text)
        if question.type_word:
            if replies.normal(text) == replies.normal(question.type_word):
                reply = "yes"
            elif reply == "yes":
                await self._ask_for_word(text, question.type_word, face)
                return
        await self._store.append(self.thread, UserSaid(text=text, face=face))
        given = Given(question=question.id, digest=question.digest, decision=reply or "no", face=face)
        if reply is None:
            given.comment = text
        await self._decide(given)
        if reply is None:
            await self._request(text, face, heard=True)

    async def _ask_for_word(self, text: str, word: str, face: str) -> None:
        sentence = S("This needs more than a yes: type {word} to go on, or no.", word=word)
        await self._store.append(self.thread, UserSaid(text=text, face=face))
        await self._store.append(self.thread, Answered(text=say(sentence, self._desk.language(text))))

    async def _answer_asked(self, question: Opened, text: str, face: str) -> None:
        """A line that picks completes the waiting call; any other goes to the model, which knows what was asked."""
        asking = question.asking
        assert asking is not None
        picked = replies.pick(text, asking.choices)
        said_no = replies.yes_or_no(text) == "no" or (asking.confirm and picked == asking.choices[1])
        await (self._leave(text, face) if said_no else self._request(text, face, answers=asking))

    async def _leave(self, text: str, face: str) -> None:
        """The question back was answered with a no: nothing is done."""
        turn = f"{self.thread}.{secrets.token_hex(3)}"
        await self._store.begin(self.thread, self._desk.owner, turn, UserSaid(text=text, face=face), text[:80])
        left = say(S("All right, nothing was changed."), self._desk.language(text))
        await self._store.append(self.thread, Answered(text=left))
        await self._store.release(self.thread, TurnEnded(outcome="denied"), turn)

    # ── the turn ─────────────────────────────────────────────────────────────────────────────────

    async def _decide(self, given: Given) -> None:
        await self._when_free(lambda: self._store.decide(self.thread, given))
        await self._drive(Command(resume=given.model_dump(mode="json")))

    async def _when_free(self, take: Callable[[], Awaitable[None]]) -> None:
        """`take` the turn; the process that asked may need a moment to let go of it."""
        deadline = time.monotonic() + PATIENCE
        async with self._store.changes() as changed:
            while True:
                changed.clear()
                try:
                    return await take()
                except Busy:
                    if time.monotonic() > deadline:
                        raise
                await _wait(changed, 0.5)

    async def _drive(self, given: Any) -> None:
        """Run the graph until the turn has ended or a question is open. The lease is held."""
        started = time.monotonic()
        self._kit.stopping.clear()
        running = asyncio.ensure_future(
            self._desk.agent.ainvoke(given, self._config, context=self._kit, durability="sync")
        )
        beating = asyncio.create_task(self._beat(running))
        try:
            state = await running
        except (HelmsmanError, ClusterError) as e:
            await self._break_off(e.sentence, started)
        except sqlite3.Error as e:
            await self._break_off(unkept(self._store.path, e).sentence, started)
        except asyncio.CancelledError:
            running.cancel()
            await asyncio.shield(self._store.release(self.thread))
            raise
        except Exception as e:
            log.exception("the turn broke")
            await self._break_off(
                S("Helmsman itself failed here ({why}); its log has the details.", why=_short(e)), started
            )
        else:
            await self._let_go(state, started)
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def _let_go(self, state: dict[str, Any], started: float) -> None:
        turn = Turn.model_validate(state["turn"])
        if "__interrupt__" in state:
            await self._store.release(self.thread)
            return
        await prune(self._desk.saver, self.thread)
        await self._store.release(self.thread, _ended(turn, started), turn.id)

    async def _break_off(self, sentence: Sentence, started: float) -> None:
        """The turn cannot go on: say why, and what had happened."""
        turn_id = (await self._store.state(self.thread)).turn or ""
        turn = await self._turn(turn_id)
        answer = Answered(text=say(sentence, turn.language if turn else "en"))
        ended = TurnEnded(outcome="failed", latency_ms=_since(started))
        if turn is not None:
            turn.outcome = "failed"
            ended = _ended(turn, started)
        await self._store.append(self.thread, answer, f"{turn_id}.answered")
        await self._store.release(self.thread, ended, turn_id)

    async def _beat(self, running: "asyncio.Future[Any]") -> None:
        """Keep the lease, and listen for a stop from any face. A lost lease ends the run: somebody else goes on."""
        async with self._store.changes() as changed:
            last = 0.0
            while True:
                changed.clear()
                if time.monotonic() - last >= BEAT:
                    last = time.monotonic()
                    held, _ = await self._store.beat(self.thread)
                    if not held:
                        running.cancel()
                if await self._store.wants_stop(self.thread):
                    self._kit.stopping.set()
                await _wait(changed, BEAT)

    # ── after a crash ────────────────────────────────────────────────────────────────────────────

    async def recover(self) -> None:
        """Go on with a turn whose process died: an open question stays open, a decided one is carried out (each call's
        key makes a second run harmless), and what was approved too long ago is not done any more but said."""
        async with self._recovering:
            await self._recover()

    async def _recover(self) -> None:
        state = await self._store.state(self.thread)
        if not state.broken or state.turn is None:
            return
        await self._store.take(self.thread)
        snapshot = await self._desk.agent.aget_state(self._config)
        turn = await self._turn(state.turn)
        if turn is None:
            await self._abandon(state.turn, "en")
        elif snapshot.interrupts:
            await self._recover_question(turn)
        elif not snapshot.next:
            await self._store.release(self.thread, _ended(turn, time.monotonic()), turn.id)
        elif turn.given is not None and turn.given.decision == "yes" and await self._is_old(turn):
            await self._abandon(turn.id, turn.language, turn)
        else:
            await self._drive(None)

    async def _recover_question(self, turn: Turn) -> None:
        decided = await self._store.given(turn.question.id) if turn.question else None
        if decided is None:
            await self._store.release(self.thread)
        elif decided[1] > FRESH and decided[0].decision == "yes":
            await self._abandon(turn.id, turn.language, turn)
        else:
            await self._drive(Command(resume=decided[0].model_dump(mode="json")))

    async def _is_old(self, turn: Turn) -> bool:
        decided = await self._store.given(turn.question.id) if turn.question else None
        return decided is not None and decided[1] > FRESH

    async def _abandon(self, turn_id: str, language: Language, turn: Turn | None = None) -> None:
        sentence = S("The last request was broken off, perhaps before it was done. The audit log shows what was.")
        await self._store.append(self.thread, Answered(text=say(sentence, language)), f"{turn_id}.answered")
        done = _done(turn) if turn else []
        await self._store.release(self.thread, TurnEnded(outcome="stopped", done=done), turn_id)

    # ── plumbing ─────────────────────────────────────────────────────────────────────────────────

    @property
    def _config(self) -> Any:
        return {"configurable": {"thread_id": self.thread}, "recursion_limit": 200}

    async def _turn(self, turn_id: str) -> Turn | None:
        """As the checkpointer has it; None when it broke before it was written down."""
        snapshot = await self._desk.agent.aget_state(self._config)
        turn = Turn.model_validate(snapshot.values["turn"]) if snapshot.values else None
        return turn if turn is not None and turn.id == turn_id else None


async def _wait(changed: asyncio.Event, seconds: float) -> None:
    # asyncio.wait_for of Python 3.11 loses a cancellation that comes together with the event
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await changed.wait()


def _answer(turn: Turn, asking: Asking) -> None:
    """Put what the line says to `asking` into the turn; a line that picks nothing is a request like any other."""
    text = turn.exchange.user
    picked = replies.pick(text, asking.choices)
    if asking.confirm:
        calls = asking.calls if replies.yes_or_no(text) == "yes" or picked == asking.choices[0] else []
    elif picked is not None and asking.calls:
        calls = questions.complete(asking, picked)
    else:
        calls = []
        if picked is not None:
            turn.picked = Picked(tool=asking.tool, argument=asking.argument, value=picked)
            turn.exchange.user = picked
    if calls:
        fresh = [c.model_copy(update={"id": f"{turn.id}.{i}", "ready": False}) for i, c in enumerate(calls, 1)]
        turn.exchange.steps.append(Step(calls=fresh))
    if calls or picked:
        turn.preset, turn.language = bool(calls), asking.language


def _ended(turn: Turn, started: float) -> TurnEnded:
    return TurnEnded(outcome=turn.outcome or "done", done=_done(turn), latency_ms=_since(started))


def _since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)


def _done(turn: Turn) -> list[str]:
    """What had happened, for a turn that did not come to its end."""
    if turn.outcome not in ("stopped", "failed"):
        return []
    return [c.answer for c in turn.all_calls if c.status == "done" and c.risk != "R"]


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
