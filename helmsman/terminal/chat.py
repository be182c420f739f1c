"""The chat without its terminal: what a typed line, Ctrl+C and an event do.

Enter ─► submit ─┬─ /command ───────────────► commands.py
                 ├─ an edit ────────────────► decide(edit)
                 ├─ a plan stands open ─────► answers.py ─► decide, or send
                 └─ else ───────────────────► send           (one at a time; further lines wait)
events ─► Story.take ─► text ─► Screen.show
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine
from typing import Protocol

from cluster.errors import ClusterError
from cluster.sentence import S, Sentence
from helmsman.conversation import Conversation
from helmsman.errors import Busy, HelmsmanError
from helmsman.events import Asked, CallEnded, Event, PlanShown
from helmsman.render import Look, clean
from helmsman.terminal import answers, commands, edit
from helmsman.terminal.follow import Follower, wants_to_follow
from helmsman.terminal.host import Host, Opened, Opener
from helmsman.terminal.replay import replay
from helmsman.terminal.story import Story
from helmsman.terminal.welcome import welcome

log = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds that leaving waits for a running turn to stop."""


class Screen(Protocol):
    """What the chat draws on: a prompt-toolkit application, or lines."""

    can_edit: bool
    """Whether text can be put into the input."""

    def show(self, text: str) -> None:
        """Print above the prompt, in the order of the calls."""

    def refresh(self) -> None:
        """The live area or the question has changed."""

    def put(self, text: str) -> None:
        """Put `text` into the input for the person to go on with."""

    def set_aside(self) -> None:
        """Empty the input, since a question came up while something was being typed; `bring_back` restores it."""

    def bring_back(self) -> None: ...

    def leave(self) -> None:
        """End the application."""


class Chat:
    """One person at one terminal. Not thread-safe; everything happens in one event loop."""

    def __init__(self, screen: Screen, look: Look, face: str = "terminal", echo: bool = True) -> None:
        self.screen, self.face = screen, face
        self.story = Story(look, face, echo)
        self.host: Host | None = None
        self.conversation: Conversation | None = None
        self.follower: Follower | None = None
        self.editing: PlanShown | None = None
        self.waiting: list[str] = []
        """Lines typed while a turn ran."""
        self.picks: list[str] = []
        """Threads of a /resume list; the next line may be a number."""
        self.exit_code = 0
        self.since = time.monotonic()
        self._turn: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._others: set[asyncio.Task[None]] = set()
        self._stopping = False

    # ── life ─────────────────────────────────────────────────────────────────────────────────────

    def start(self, opener: Opener) -> None:
        """Open in the background; what is typed meanwhile is sent afterwards."""
        self._run_turn(self._open(opener), S("opening"))

    async def _open(self, opener: Opener) -> None:
        try:
            await self.attach(await opener())
        except (HelmsmanError, ClusterError) as e:
            self._give_up(e.sentence, getattr(e, "exit_code", 5))
        except Exception as e:
            log.exception("opening failed")
            self._give_up(_bug(e), 5)

    def _give_up(self, sentence: Sentence, code: int) -> None:
        """There is nothing to talk to: say why, and leave."""
        self.tell(sentence, "bad")
        self.exit_code = code
        self.waiting.clear()
        self.screen.leave()

    async def attach(self, opened: Opened, greet: bool = True) -> None:
        """Go on with this conversation: greet, tell what was said before, and follow its events from there."""
        await self._detach()
        self.conversation, self.host = opened.conversation, opened.host
        if greet:
            self.screen.show(await welcome(opened.host, self.look))
        self.story = Story(self.look, self.face, self.story.echo)
        self.screen.show(await replay(opened.conversation, self.story))
        self._reader = asyncio.create_task(self._read(opened.conversation))

    async def _detach(self) -> None:
        if self._reader:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    async def close(self) -> None:
        """Stop what runs and say what it had done."""
        if self.follower:
            self.follower.cancel()
        if self._turn and not self._turn.done():
            await self._stop()
            await asyncio.wait([self._turn], timeout=PATIENCE)
        tasks = [task for task in (self._turn, self._reader, *self._others) if task and not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def idle(self) -> None:
        """Return when no turn, command or waiting line is left."""
        while tasks := [task for task in (self._turn, *self._others) if task and not task.done()]:
            await asyncio.wait(tasks)

    # ── what the screen asks ─────────────────────────────────────────────────────────────────────

    @property
    def look(self) -> Look:
        return self.story.look

    @look.setter
    def look(self, look: Look) -> None:
        self.story.look = look

    @property
    def running(self) -> bool:
        """Whether a turn of this face is under way."""
        return self._turn is not None and not self._turn.done()

    @property
    def doing(self) -> str | None:
        """For the spinner line."""
        if self._stopping:
            return self.look.say(S("stopping"))
        return self.story.label

    # ── what the person does ─────────────────────────────────────────────────────────────────────

    def submit(self, line: str) -> None:
        """Enter was pressed."""
        if not line.strip():
            return
        if self.editing:
            self._finish_edit(line)
        elif commands.is_command(line):
            self._echo(line)
            self._spawn(commands.run(self, line))
        elif self.picks and line.strip().isdigit():
            self._spawn(commands.run(self, f"/resume {line.strip()}"))
        elif self.running or not self.conversation:
            self.waiting.append(line)
            self.screen.refresh()
        else:
            self.picks = []
            self._take(line, self.conversation)

    def interrupt(self, has_text: bool) -> bool:
        """Ctrl+C was pressed. True when the screen should empty its input."""
        if self.follower:
            self.follower.cancel()
        elif self.editing:
            self.editing = None
            self.tell(S("The edit was dropped; the plan still waits for a yes or no."), "muted")
            return True
        elif self.conversation is None:
            self.exit_code = 130
            self.leave()
        elif self.running:
            self._interrupt_turn()
        elif has_text:
            return True
        elif isinstance(self.story.question, PlanShown):
            self._take("n", self.conversation)
        else:
            self.tell(S("Ctrl+D or /quit leaves; sessions go on running."), "muted")
        return False

    def leave(self) -> None:
        """Ctrl+D or /quit."""
        self.screen.leave()

    def _take(self, line: str, conversation: Conversation | None) -> None:
        """A line that is no command, while nothing runs."""
        if conversation is None:
            return
        question = self.story.question
        if isinstance(question, PlanShown):
            self._answer(answers.read_answer(line, question), line, question, conversation)
            return
        text = answers.read_choice(line, question) if isinstance(question, Asked) else line
        self._run_turn(self._send(conversation, text), S("thinking"))

    async def _send(self, conversation: Conversation, text: str) -> None:
        """Send; a line that came while another face's turn ran is given back."""
        try:
            await conversation.send(text, self.face)
        except Busy:
            self.screen.put(text)
            raise

    def _answer(self, answer: answers.Answer, line: str, question: PlanShown, conversation: Conversation) -> None:
        if answer.kind == "word_wanted":
            self.tell(S("This one wants the word {word} typed, or n for no.", word=answer.word or ""), "warn")
        elif answer.kind == "edit":
            self._begin_edit(question)
        elif answer.kind == "say":
            self._run_turn(self._send(conversation, line), S("thinking"))
        else:
            decide = conversation.decide(question.question, question.digest, answer.kind, self.face, answer.comment)
            self._run_turn(decide, S("working"))

    # ── editing a plan ───────────────────────────────────────────────────────────────────────────

    def _begin_edit(self, question: PlanShown) -> None:
        lines = edit.as_lines(question.calls)
        if not self.screen.can_edit:
            self.screen.show(self.story.line(clean(lines)))
            self.tell(S("There is no editing in this terminal: say what should be different, like: n, with 2 cores"))
            return
        self.editing = question
        hint = S("Enter shows the new plan · Alt+Enter new line · Ctrl+X Ctrl+E in your editor · Ctrl+C drops the edit")
        self.tell(hint, "muted")
        self.screen.put(lines)

    def _finish_edit(self, text: str) -> None:
        question, conversation = self.editing, self.conversation
        if question is None or conversation is None:
            return
        try:
            edited = edit.from_lines(text, question.calls)
        except edit.BadEdit as e:
            self.tell(e.sentence, "bad")
            self.screen.put(text)
            return
        self.editing = None
        if not edited:
            self.tell(S("Nothing was changed; the plan still waits for a yes or no."), "muted")
            return
        decide = conversation.decide(question.question, question.digest, "edit", self.face, edited=edited)
        self._run_turn(decide, S("looking at the new plan"))

    # ── turns ────────────────────────────────────────────────────────────────────────────────────

    def _run_turn(self, work: Coroutine[object, object, None], label: Sentence) -> None:
        self.story.label, self.since, self._stopping = self.look.say(label), time.monotonic(), False
        self._turn = asyncio.create_task(self._guarded(work))
        self._turn.add_done_callback(self._turn_done)
        self.screen.refresh()

    async def _guarded(self, work: Coroutine[object, object, None]) -> None:
        """Run it; whatever goes wrong is one sentence. Then read what it left in the stream."""
        try:
            await work
        except (HelmsmanError, ClusterError) as e:
            self.tell(e.sentence, "bad")
        except asyncio.CancelledError:
            self.tell(S("Given up waiting for it to stop. /history shows what was done."), "warn")
            raise
        except Exception as e:
            log.exception("a turn failed")
            self.tell(_bug(e), "bad")
        await self._catch_up()

    def _turn_done(self, task: asyncio.Task[None]) -> None:
        self._stopping = False
        if task is self._turn:
            self.story.label = None
        if not task.cancelled() and (problem := task.exception()):
            log.error("a turn failed", exc_info=problem)
        self._next_waiting()
        self.screen.refresh()

    def _next_waiting(self) -> None:
        """Send the next waiting line. One typed before a question was seen never answers it: back to the input."""
        if not self.waiting or self.conversation is None:
            return
        if self.story.question is None:
            self._take(self.waiting.pop(0), self.conversation)
            return
        lines, self.waiting = "\n".join(self.waiting), []
        self.tell(S("What you typed meanwhile is back in the input; the question comes first."), "muted")
        self.screen.put(lines)

    def _interrupt_turn(self) -> None:
        """The first Ctrl+C asks the turn to stop, a second one stops waiting for it."""
        if self.waiting:
            self.screen.put("\n".join(self.waiting))
            self.waiting.clear()
        if self._stopping and self._turn:
            self._turn.cancel()
        else:
            self._spawn(self._stop())

    async def _stop(self) -> None:
        self._stopping = True
        self.screen.refresh()
        if self.conversation:
            await self.conversation.stop()

    # ── events ───────────────────────────────────────────────────────────────────────────────────

    async def _read(self, conversation: Conversation) -> None:
        """Follow the thread's events, whichever face or process makes them."""
        try:
            async for event in conversation.events(after=self.story.seq, follow=True):
                self._happened(event)
        except (HelmsmanError, ClusterError) as e:
            self.tell(e.sentence, "bad")
        except Exception as e:
            log.exception("the event stream broke")
            self.tell(_bug(e), "bad")

    async def _catch_up(self) -> None:
        """Take what is stored already, so that a question is on the screen before the next line is looked at."""
        if self.conversation:
            async for event in self.conversation.events(after=self.story.seq, follow=False):
                self._happened(event)

    def _happened(self, event: Event) -> None:
        new = event.seq > self.story.seq
        was = self.story.question
        self.screen.show(self.story.take(event))
        if self.story.question is not was:
            self._question_changed()
        if new and isinstance(event.body, CallEnded):
            self._maybe_follow(event.body)
        self.screen.refresh()

    def _question_changed(self) -> None:
        self.editing = None
        if self.story.question:
            self.screen.set_aside()
        else:
            self.screen.bring_back()

    def _maybe_follow(self, ended: CallEnded) -> None:
        """ "Follow the log" is a look at the log that goes on."""
        call = self.story.calls.get(ended.id)
        if ended.tool == "get_session_logs" and ended.status == "done" and call and wants_to_follow(self.story.said):
            self.follow(str(call.arguments.get("session", "")), from_now=True)

    def follow(self, session: str, from_now: bool = False) -> None:
        """Print the session's output as it comes, until it ends or Ctrl+C."""
        if self.host is None:
            return
        self.follower = Follower(self.host.cluster, session, self.story, self.screen.show)
        self._spawn(self._following(self.follower, from_now))

    async def _following(self, follower: Follower, from_now: bool) -> None:
        try:
            await follower.run(from_now)
        finally:
            self.follower = None
            self.screen.refresh()

    # ── small things ─────────────────────────────────────────────────────────────────────────────

    def tell(self, sentence: Sentence, style: str = "plain") -> None:
        """Print a sentence of the terminal's own."""
        self.screen.show(self.story.tell(sentence, style))

    def _echo(self, line: str) -> None:
        if self.story.echo:
            self.screen.show("\n" + self.story.line(f"› {line.strip()}", "muted"))

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        """Run something beside the turn."""
        task = asyncio.create_task(self._beside(work))
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    async def _beside(self, work: Coroutine[object, object, None]) -> None:
        try:
            await work
        except (HelmsmanError, ClusterError) as e:
            self.tell(e.sentence, "bad")
        except Exception as e:
            log.exception("a command failed")
            self.tell(_bug(e), "bad")
        self.screen.refresh()


def _bug(error: Exception) -> Sentence:
    """For what nobody foresaw."""
    return S(
        "Helmsman itself failed at this ({kind}: {what}); nothing more was done. Its log has the details.",
        kind=type(error).__name__,
        what=str(error),
    )
