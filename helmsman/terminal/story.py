"""What the event stream means to this face: lines to print, and what stands open. No terminal in here."""

from dataclasses import dataclass, field
from typing import assert_never

from rich.text import Text as Styled

from cluster.sentence import S, Sentence
from helmsman.events import (
    Answered,
    Asked,
    CallEnded,
    CallStarted,
    Decided,
    Event,
    Happening,
    PlanShown,
    TurnEnded,
    UserSaid,
    Words,
    Working,
)
from helmsman.render import Look, card, clean, one_line, render
from tools.views import Text, View

MOST_LINES = 40
"""A result longer than this is cut on the screen; /show prints all of it."""


@dataclass
class Story:
    """Folds events, in order of their `seq`; `take` gives what to print."""

    look: Look
    face: str = "terminal"
    echo: bool = True
    """Print what was typed here (off where the terminal shows it anyway)."""
    seq: int = 0
    question: PlanShown | Asked | None = None
    label: str | None = None
    """What is being done, for the spinner; None when nothing runs."""
    live: str = ""
    """The words that have come so far."""
    said: str = ""
    """The last request."""
    results: list[View] = field(default_factory=list)
    """Of the last request, for /show."""
    calls: dict[str, CallStarted] = field(default_factory=dict)

    def take(self, event: Event) -> str:
        """Text to print for `event` ("" for none). An event that was taken before is nothing."""
        if event.seq <= self.seq:
            return ""
        self.seq = event.seq
        return self._tell(event.body)

    def _tell(self, body: Happening) -> str:
        match body:
            case UserSaid():
                return self._said(body)
            case Working():
                self.label = one_line(body.label)
                return ""
            case Words():
                self.live += body.delta
                return ""
            case PlanShown():
                return self._plan(body)
            case Asked():
                return self._asked(body)
            case Decided():
                return self._decided(body)
            case CallStarted():
                self.calls[body.id] = body
                return ""
            case CallEnded():
                return self._result(body)
            case Answered():
                return self._answer(body)
            case TurnEnded():
                return self._end(body)
            case _:
                assert_never(body)

    # ── what is said ─────────────────────────────────────────────────────────────────────────────

    def _said(self, body: UserSaid) -> str:
        if self.question is None:
            self.results, self.calls = [], {}
        self.question = self.question if isinstance(self.question, PlanShown) else None
        self.said, self.live = body.text, ""
        self.label = self.look.say(S("thinking"))
        here = body.face == self.face
        if here and not self.echo:
            return ""
        where = "" if here else f"  ({one_line(body.face)})"
        return "\n" + self.line(quoted(body.text, self.look), "title", where)

    def _answer(self, body: Answered) -> str:
        self.live, text = "", clean(body.text).strip()
        if not text or (self.results and text.rstrip(".") in _said_by(self.results[-1])):
            return ""
        return self.line(text, "warn" if body.refused else "plain")

    def _end(self, body: TurnEnded) -> str:
        self.label, self.live = None, ""
        if body.outcome == "asked":
            return ""
        self.question = None
        return self._stopped(body.done) if body.outcome == "stopped" else ""

    def _stopped(self, done: list[str]) -> str:
        if not done:
            return self.tell(S("Stopped. Nothing had been changed."), "warn")
        what = "".join(self.line(f"  • {one_line(each)}") for each in done)
        return self.tell(S("Stopped. This had already happened:"), "warn") + what

    # ── questions ────────────────────────────────────────────────────────────────────────────────

    def _plan(self, body: PlanShown) -> str:
        self.question, self.label, self.live = body, None, ""
        return card([call.plan for call in body.calls], self.look, moved=body.moved, keys=True)

    def _asked(self, body: Asked) -> str:
        self.question, self.label, self.live = body, None, ""
        width = len(str(len(body.choices)))
        choices = (f"  {number:>{width}}  {one_line(each)}" for number, each in enumerate(body.choices, 1))
        return self.line(clean(body.text).strip(), "accent") + "".join(self.line(each) for each in choices)

    def _decided(self, body: Decided) -> str:
        self.question = None
        self.label = self.look.say(S("working"))
        if body.automatic:
            return self.tell(S("Allowed by your standing approval (/approvals)."), "muted")
        what = self.look.say(DECISIONS[body.decision]) + (f": {clean(body.comment)}" if body.comment else "")
        if body.face != self.face:
            where = S("answered in {face}: {what}", face=one_line(body.face), what=what)
            return self.tell(where, "accent")
        return self.line(f"→ {what}", "muted") if self.echo else ""

    # ── results ──────────────────────────────────────────────────────────────────────────────────

    def _result(self, body: CallEnded) -> str:
        if body.status == "denied":
            return ""
        self.results.append(body.view)
        return render(body.view, self.look, limit=max(self.look.height - 4, MOST_LINES))

    def everything(self) -> str:
        """All results of the last request, uncut."""
        return "\n".join(render(view, self.look) for view in self.results)

    # ── drawing ──────────────────────────────────────────────────────────────────────────────────

    def tell(self, sentence: Sentence, style: str = "plain") -> str:
        """A sentence of the terminal's own, in the reader's language."""
        return self.line(self.look.say(sentence), style)

    def line(self, text: str, style: str = "plain", after: str = "") -> str:
        """`text`, wrapped, and `after` in a paler tone."""
        words = Styled(text, style=style)
        words.append(after, style="muted")
        return self.look.draw(words)

    def tail(self, lines: int) -> str:
        """The end of the words that are coming, for the live area: at most `lines` lines."""
        drawn = self.line(clean(self.live)) if self.live.strip() else ""
        return "\n".join(drawn.splitlines()[-lines:])


def _said_by(view: View) -> set[str]:
    """The sentences that `view` shows as its title or text: an answer needn't say them again."""
    texts = [view.title or ""]
    if isinstance(view, Text) and not view.code:
        texts.append(view.text)
    return {clean(text).strip().rstrip(".") for text in texts}


DECISIONS = {"yes": S("yes"), "no": S("no"), "edit": S("changed; here is the new plan")}


def quoted(text: str, look: Look) -> str:
    """What a person typed, with the prompt's mark; further lines are indented, very long pastes cut."""
    mark = "›" if look.unicode else ">"
    lines = clean(text).strip("\n").split("\n")
    kept = lines if len(lines) <= MOST_LINES else [*lines[:MOST_LINES], "…"]
    return f"{mark} " + "\n  ".join(kept)
