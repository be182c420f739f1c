"""Questions back: how they are put, what can be chosen, and how the missing piece gets into the waiting call."""

from difflib import SequenceMatcher

from cluster.models import S
from helmsman.turn import Asking, Call, Language
from tools import resolve
from tools.base import Context
from tools.resolve import Question
from tools.words import say

MAX_CHOICES = 9


def missing(linked: Question, calls: list[Call], call: Call) -> Asking:
    """The question that linking has found: the whole request waits for one argument of `call`."""
    return Asking(
        text=linked.text,
        choices=linked.choices[:MAX_CHOICES],
        tool=call.tool,
        argument=linked.argument,
        calls=[c for c in calls if c.status is None],
        waiting=[c.id for c in calls if c.status is None].index(call.id),
    )


def confirm(calls: list[Call], language: Language) -> Asking:
    """The model is not sure: say its guess, and do nothing until it is confirmed."""
    said = "; ".join(_guess(call) for call in calls)
    yes, no = say(S("yes"), language), say(S("no"), language)
    text = say(S("I am not sure what you mean. Is it this: {guess}?", guess=said), language)
    return Asking(text=text, choices=[yes, no], tool=calls[0].tool, argument="", calls=calls, confirm=True)


def _guess(call: Call) -> str:
    said = ", ".join(f"{key} {_plain(value)}" for key, value in call.said.items())
    return f"{call.tool} ({said})" if said else call.tool


def _plain(value: object) -> str:
    return ", ".join(str(v) for v in value) if isinstance(value, list) else str(value)


def ask(tool: str, argument: str, ctx: Context) -> Asking:
    """The question of a model that only knows which argument of which tool it misses."""
    question = resolve.ask(argument or "target", ctx)
    return Asking(text=question.text, choices=question.choices[:MAX_CHOICES], tool=tool, argument=argument)


def complete(asking: Asking, picked: str) -> list[Call]:
    """The waiting calls with the picked value in the place that was asked about."""
    calls = [call.model_copy(deep=True) for call in asking.calls]
    said = calls[asking.waiting].said
    old = said.get(asking.argument)
    if isinstance(old, list) and old:
        meant = max(range(len(old)), key=lambda i: SequenceMatcher(None, str(old[i]), picked).ratio())
        said[asking.argument] = [picked if i == meant else value for i, value in enumerate(old)]
    else:
        said[asking.argument] = picked
    return calls
