"""Who has to say yes to what. Judgement only: no model, no cluster, no screen.

R passes. W and D ask. A person may allow a W tool in advance, narrowly; D is never allowed in advance.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ConfigDict

from cluster.models import S
from helmsman.errors import BadConfig, Stale
from helmsman.turn import Call, Given, Question
from tools.base import Risk
from tools.registry import Registry

TARGETS = ("name", "node", "session", "sessions", "folder", "user", "endpoint", "image", "resource_group", "project")
"""Arguments that say what a call is about; a bare pattern is held against the first that the call has."""


class Rule(BaseModel):
    """An approval given in advance: a W tool, and patterns (`exp-*`) that its arguments must match."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: str
    where: dict[str, str] = {}
    """Argument -> pattern; the empty key stands for the call's target."""

    @property
    def pattern(self) -> str | None:
        """As a person writes it: `test-* project=vision`; None when everything fits."""
        parts = [v if not k else f"{k}={v}" for k, v in sorted(self.where.items())]
        return " ".join(parts) or None

    def __str__(self) -> str:
        return f"{self.tool} {self.pattern}" if self.pattern else self.tool


def parse_rule(text: str, tools: Registry) -> Rule:
    """`cordon_node test-*`, `create_folder exp-* project=vision`.

    Raises `BadConfig` for an unknown tool, for one that destroys, and for a pattern on an argument that it hasn't.
    """
    name, *patterns = text.split() or [""]
    tool = tools.get(name)
    if tool is None:
        raise BadConfig(S("There is no tool called {tool}, so it can't be approved in advance.", tool=name or '""'))
    if tool.risk is Risk.D:
        raise BadConfig(S("{tool} destroys or interrupts work; it asks every time, whatever is approved.", tool=name))
    where = dict(_pattern(p) for p in patterns)
    if unknown := next((k for k in where if k and k not in tool.arguments.model_fields), None):
        raise BadConfig(S("{tool} has no argument {argument} that a pattern could fit.", tool=name, argument=unknown))
    return Rule(tool=name, where=where)


def _pattern(text: str) -> tuple[str, str]:
    key, separator, pattern = text.partition("=")
    return (key, pattern) if separator else ("", text)


def allows(rule: Rule, call: Call) -> bool:
    """Whether `rule` covers `call`. What the call leaves open is not covered; what it destroys never is."""
    if call.tool != rule.tool or call.risk != "W" or (call.plan is not None and call.plan.risk == "D"):
        return False
    return all(_matches(_value(call, name), pattern) for name, pattern in rule.where.items())


def _value(call: Call, name: str) -> Any:
    if name:
        return call.arguments.get(name)
    return next((call.arguments[t] for t in TARGETS if t in call.arguments), None)


def _matches(value: Any, pattern: str) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(v is not None and fnmatchcase(str(v), pattern) for v in values)


def needs_yes(calls: Iterable[Call], rules: Sequence[Rule]) -> bool:
    """Whether a person has to be asked about these calls."""
    return any(call.risk != "R" and not any(allows(rule, call) for rule in rules) for call in calls)


def digest(calls: Iterable[Call]) -> str:
    """What an approval is bound to: the exact calls, in order, with what each was previewed to do."""
    exact = [[c.id, c.tool, c.arguments, c.digest] for c in calls]
    text = json.dumps(exact, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def check(given: Given, question: Question | None, calls: Iterable[Call]) -> None:
    """Raise `Stale` unless `given` answers this question about exactly these calls."""
    if question is None or given.question != question.id or not given.digest == question.digest == digest(calls):
        raise Stale(S("This answer belongs to another plan; nothing was done. Look at the plan that is shown now."))
