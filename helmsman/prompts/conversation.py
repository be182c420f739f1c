"""What a conversation is, as the model sees it: plain data, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field

Value = str | int | float | bool | list[str] | dict[str, str]
"""An argument's value as it was said: `"30m"`, `4`, `["s-7f3a"]`, `{"LR": "0.1"}`. It is linked to real names later."""

PSEUDO_CALLS = {
    "ask": ("for", "about"),
    "refuse": ("about",),
    "talk": (),
}
"""Decisions in the dialect of calls: a question (`for` a tool, `about` an argument), a refusal (why), small talk."""


@dataclass(frozen=True)
class Call:
    """One tool call, or one of the pseudo calls `ask`, `refuse`, `talk`."""

    tool: str
    arguments: dict[str, Value] = field(default_factory=dict)

    @property
    def is_decision(self) -> bool:
        """True for `ask`, `refuse` and `talk`, which no tool answers."""
        return self.tool in PSEUDO_CALLS


@dataclass(frozen=True)
class ResultRows:
    """The names that a tool's result showed, in their order on the screen: what "the second one" points into."""

    tool: str
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Turn:
    """One line of the person, and what was called for it. The last turn of a conversation has no calls yet."""

    user: str
    calls: list[Call] = field(default_factory=list)
    results: list[ResultRows] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """What the model said: at least one call, all valid by the catalogue.

    `confidence` is the product of the probabilities of every tool name chosen, 0..1; `tokens` were generated (forced
    ones included), in `ms` milliseconds.
    """

    calls: list[Call]
    confidence: float
    tokens: int
    ms: float
