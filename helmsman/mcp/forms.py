"""What a person sees and fills in: questions and plans as the protocol's messages and forms. Pure."""

from collections.abc import Callable
from typing import Any

from cluster.models import S, Sentence
from helmsman.questions import MAX_CHOICES
from helmsman.render.clean import clean, one_line
from helmsman.turn import Asking
from tools.views import Plan, PlanLine

Form = dict[str, Any]
"""An object of flat properties: the part of JSON schema that the protocol allows here."""
Say = Callable[[Sentence], str]


def message_of(asking: Asking) -> str:
    """A question back, with what can be chosen."""
    shown = ", ".join(one_line(choice) for choice in asking.choices)
    return clean(asking.text) + (f" ({shown})" if shown and shown not in asking.text else "")


def for_argument(asking: Asking) -> Form:
    """One text; of the choices only, where these are all there are."""
    value: dict[str, Any] = {"type": "string", "title": asking.argument, "minLength": 1}
    if 0 < len(asking.choices) < MAX_CHOICES:
        value = {"type": "string", "title": asking.argument, "enum": [*asking.choices]}
    return _form({"value": value})


def for_plan(plan: Plan, say: Say) -> Form:
    """Yes or no; for heavy ones a word to type, too. No is what a form is filled in with that nobody touched."""
    fields: dict[str, Any] = {"approve": {"type": "boolean", "title": say(S("Do it")), "default": False}}
    if plan.type_word:
        title = say(S("Type {word}", word=one_line(plan.type_word)))
        fields["word"] = {"type": "string", "title": title}
    return _form(fields)


def _form(fields: dict[str, Any]) -> Form:
    return {"type": "object", "properties": fields, "required": [*fields]}


def plan_text(plan: Plan, say: Say, moved: bool = False) -> str:
    """The plan card as plain lines. Names in it come from others: none of them can begin a line of its own."""
    lines = [say(S("The cluster has changed since you were asked. This is the plan now:"))] if moved else []
    if plan.risk == "D":
        lines.append(say(S("Plan: this interrupts or destroys")))
    lines.append(one_line(plan.title))
    lines += [f"• {_effect(effect, say)}" for effect in plan.effects]
    lines += [f"! {one_line(warning)}" for warning in plan.warnings]
    lines.append(
        say(S("To put it back: {how}", how=one_line(plan.undo))) if plan.undo else say(S("This can't be undone."))
    )
    if plan.type_word:
        lines.append(say(S("To do it, type {word} as well.", word=one_line(plan.type_word))))
    return "\n".join(lines)


def _effect(effect: PlanLine, say: Say) -> str:
    text = one_line(effect.text)
    return f"{text} ({say(S('work of {owner}', owner=one_line(effect.owner)))})" if effect.owner else text
