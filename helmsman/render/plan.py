"""The plan card: what would be done, what follows from it, and how to answer."""

from rich.box import ASCII2, ROUNDED
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table as Grid
from rich.text import Text as Words

from cluster.sentence import S, Sentence
from helmsman.render.clean import one_line
from helmsman.render.look import Look
from tools.views import Plan, PlanLine

WIDEST = 100
"""A card isn't drawn wider than this: long lines are hard to read."""


def card(plans: list[Plan], look: Look, moved: bool = False, keys: bool = False) -> str:
    """One box for all that one yes would do. With `keys` it ends with how to answer."""
    destroys = any(plan.risk == "D" for plan in plans)
    parts: list[RenderableType] = []
    if moved:
        note = S("The cluster has changed since you were asked. This is the plan now:")
        parts.append(Words(look.say(note), style="warn"))
    for index, plan in enumerate(plans):
        if index:
            parts.append(Rule(style="muted", characters="─" if look.unicode else "-"))
        parts += _plan(plan, look)
    if keys:
        parts += [Words(""), Words(look.say(how_to_answer(plans)), style="accent")]
    heading = S("Plan: this interrupts or destroys") if destroys else S("Plan")
    box = Panel(
        Group(*parts),
        title=Words(look.say(heading)),
        title_align="left",
        border_style="bad" if destroys else "accent",
        box=ROUNDED if look.unicode else ASCII2,
        width=min(look.width, WIDEST),
        padding=(0, 1),
    )
    return look.draw(box)


def word_to_type(plans: list[Plan]) -> str | None:
    """What has to be typed instead of a plain yes: the word of the first plan that wants one."""
    return next((one_line(plan.type_word).strip() for plan in plans if plan.type_word), None)


def how_to_answer(plans: list[Plan]) -> Sentence:
    """The keys of a card."""
    word = word_to_type(plans)
    if word:
        return S("Type {word} to do it · n no (or n and why) · e edit", word=word)
    return S("y yes · n no (or n and why) · e edit")


def _plan(plan: Plan, look: Look) -> list[RenderableType]:
    lines = [_effect(effect, look) for effect in plan.effects]
    lines += [("!", Words(one_line(warning), style="warn")) for warning in plan.warnings]
    parts: list[RenderableType] = [Words(one_line(plan.title), style="title")]
    if lines:
        parts.append(_bullets(lines))
    return [*parts, _undo(plan, look)]


def _effect(effect: PlanLine, look: Look) -> tuple[str, Words]:
    text = Words(one_line(effect.text), style=effect.tone)
    if effect.owner:
        whose = look.say(S("work of {owner}", owner=one_line(effect.owner)))
        text.append(f" ({whose})", style="warn")
    return ("•" if look.unicode else "*"), text


def _bullets(lines: list[tuple[str, Words]]) -> Grid:
    grid = Grid.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=1)
    grid.add_column(overflow="fold")
    for mark, text in lines:
        grid.add_row(mark, text)
    return grid


def _undo(plan: Plan, look: Look) -> Words:
    if plan.undo:
        return Words(look.say(S("To put it back: {how}", how=one_line(plan.undo))), style="muted")
    return Words(look.say(S("This can't be undone.")), style="bad")
