"""From an authored dialogue to a fresh one: new names, new numbers, literal values, lists of results."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from finetune.korean import fit
from finetune.names import Names, category_of, is_plain_name
from finetune.noise import noisy
from finetune.numbers import redraw
from finetune.utterances import Dialogue, Request, Segment
from helmsman.prompts import PSEUDO_CALLS, Call, ResultRows, Turn, Value
from helmsman.prompts.spans import FREE_NAMES, is_copyable
from tools.catalogue import Argument, catalogue

_ROWS = {
    "list_sessions": "session", "list_nodes": "node", "list_folders": "folder", "list_images": "image",
    "list_projects": "group", "list_users": "user", "list_models": "model", "list_endpoints": "service",
    "list_pipelines": "service", "list_finetunes": "session", "list_resource_groups": "group", "list_files": "path",
    "list_events": "session", "get_audit_log": "audit", "start_session": "session", "run_pipeline": "run",
    "start_finetune": "session", "deploy_model": "service", "install_model": "model",
}  # fmt: skip
_SINGLE = {"start_session", "run_pipeline", "start_finetune", "deploy_model", "install_model"}
_REFERENCE = re.compile(r"@(?:(\d+)\.)?(?:(\d+)\.)?(\w+)(?:\.(-?\d+))?(?:\.(\w+))?$")
_FIELD = {"node": "node", "model": "model", "target": "node", "session": "session", "name": "service", "user": "user"}


class Unusable(ValueError):
    """An authored row that says something the catalogue cannot carry."""


@dataclass
class _State:
    """What one realisation remembers from turn to turn."""

    rng: Random
    names: Names
    exchanged: dict[str, str] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    given: list[list[dict[str, Any]]] = field(default_factory=list)


@dataclass(frozen=True)
class Realised:
    """A dialogue in literal words. `answers[i]` is what the model should say to turn i: as in its `calls`, but where
    a value was copied from the line, with the space that stands before it there, so that copying is token by token."""

    lang: str
    turns: list[Turn]
    answers: list[list[Call]]


def realise(dialogue: Dialogue, names: Names, rng: Random, augment: bool = True) -> Realised:
    """One fresh version. With `augment` off: the authored words and names. Raises `Unusable`."""
    state = _State(rng, names)
    wanted = _wanted_rows(dialogue)
    answers = []
    for i, request in enumerate(dialogue.requests):
        segments = list(request.segments)
        if augment:
            segments = noisy(_renamed(_renumbered(segments, rng), request, state), request.lang, rng)
        calls = list(_calls(request, segments, state))
        answers.append(calls)
        plain = [Call(c.tool, {k: _stripped(v) for k, v in c.arguments.items()}) for c in calls]
        state.turns.append(Turn("".join(s.text for s in segments), plain, _results(plain, wanted.get(i, {}), state)))
    return Realised(dialogue.requests[-1].lang, state.turns, answers)


def _stripped(value: Value) -> Value:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        return [v.strip() for v in value]
    return {k.strip(): v for k, v in value.items()} if isinstance(value, dict) else value


def _renumbered(segments: list[Segment], rng: Random) -> list[Segment]:
    out = []
    for s in segments:
        fresh = redraw(s, rng) if s.mark and rng.random() < 0.6 else None
        out.append(s if fresh is None or s.mark is None else Segment(fresh[0], replace(s.mark, value=fresh[1])))
    return out


def _renamed(segments: list[Segment], request: Request, state: _State) -> list[Segment]:
    out: list[Segment] = []
    for s in segments:
        before = out[-1] if out else None
        if s.mark is None and before is not None and before.mark is not None and request.lang != "en":
            s = replace(s, text=fit(before.text, s.text)) if before.text in state.exchanged.values() else s
        out.append(_renamed_one(s, request, state))
    return out


def _renamed_one(segment: Segment, request: Request, state: _State) -> Segment:
    mark, surface = segment.mark, segment.text
    if mark is None:
        for old, new in state.exchanged.items():
            if len(old) >= 4 and len(state.turns) > 0:
                segment = replace(segment, text=segment.text.replace(old, new))
        return segment
    tool = request.asked_for or request.tools[min(mark.call, len(request.tools) - 1)]
    category = category_of(tool, mark.argument)
    if mark.value is not None or category is None or not is_plain_name(surface):
        return segment
    if surface not in state.exchanged:
        fresh = state.names.draw(category, state.rng) if state.rng.random() < 0.85 else surface
        state.exchanged[surface] = fresh
    return replace(segment, text=state.exchanged[surface])


def _calls(request: Request, segments: list[Segment], state: _State) -> Iterator[Call]:
    given: list[dict[str, Any]] = [{} for _ in request.tools]
    state.given.append(given)
    for i, s in enumerate(segments):
        if s.mark is not None:
            _give(given, request, s, "".join(before.text for before in segments[:i]), segments)
    if request.tools[0] in PSEUDO_CALLS:
        yield _decision(request)
        return
    for key, fixed in request.fixed.items():
        call, _, name = key.rpartition(".")
        given[int(call or 0)][name] = _resolved(fixed, state)
    for tool, arguments in zip(request.tools, given, strict=True):
        yield Call(tool, {k: _typed(tool, k, v) for k, v in arguments.items()})


def _decision(request: Request) -> Call:
    decision = request.tools[0]
    if decision == "ask":
        return Call("ask", {"for": request.asked_for, "about": request.about})
    return Call(decision, {"about": request.about} if decision == "refuse" else {})


def _give(given: list[dict[str, Any]], request: Request, segment: Segment, before: str, line: list[Segment]) -> None:
    mark = segment.mark
    assert mark is not None
    tool = request.tools[mark.call]
    if tool in PSEUDO_CALLS and request.asked_for not in catalogue():
        return
    argument = _argument(request.asked_for if tool in PSEUDO_CALLS else tool, mark.argument)
    value = mark.value if argument.kind != "text" else None
    if value is None:
        copied = argument.kind in ("name", "text", "list", "map")
        if copied and mark.argument not in FREE_NAMES and not is_copyable(segment.text, "".join(s.text for s in line)):
            raise Unusable(f"{segment.text!r} is part of a longer word, and cannot be copied by the grammar")
        value = f" {segment.text}" if copied and before.endswith(" ") else segment.text
    slot = given[mark.call]
    if argument.kind in ("list", "map"):
        slot.setdefault(mark.argument, []).append(value)
    elif mark.argument in slot and str(slot[mark.argument]).strip() != value.strip():
        raise Unusable(f"{mark.argument} is given twice in {request.text!r}")
    else:
        slot[mark.argument] = value


def _argument(tool: str, name: str) -> Argument:
    found = catalogue()[tool].argument(name)
    if found is None:
        raise Unusable(f"{tool} has no argument {name}")
    return found


def _typed(tool: str, key: str, value: Any) -> Value:
    argument = _argument(tool, key)
    text = str(value)
    if argument.kind == "integer":
        return int(text)
    if argument.kind == "number":
        number = float(text)
        return int(number) if number.is_integer() else number
    if argument.kind == "bool":
        return text.lower() == "true"
    if argument.kind == "list":
        return [str(v) for v in (value if isinstance(value, list) else [value])]
    if argument.kind == "map":
        return dict(_pair(v) for v in (value if isinstance(value, list) else [value]))
    if argument.kind == "enum" and text not in argument.choices:
        raise Unusable(f"{text!r} is no {key} of {tool}")
    return text


def _pair(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals:
        raise Unusable(f"{item!r} is no KEY=VALUE")
    return key, value


def _resolved(value: Any, state: _State) -> Any:
    if isinstance(value, list):
        return [r for v in value for r in _as_list(_resolved(v, state))]
    if not isinstance(value, str) or not value.startswith("@"):
        return value
    match = _REFERENCE.match(value)
    if match is None:
        raise Unusable(f"no reference: {value}")
    turn, call, name, index, _ = match.groups()
    if name == "result":
        return _from_rows(state.turns[int(turn) if turn else -1], index)
    found = _said(state, int(turn or 0), call, name)
    return found[int(index)] if index and isinstance(found, list) else found


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _from_rows(turn: Turn, index: str | None) -> Any:
    rows = turn.results[0].names if turn.results else []
    if index is None:
        return list(rows)
    try:
        return rows[int(index)]
    except IndexError:
        raise Unusable(f"row {index} of {len(rows)}") from None


def _said(state: _State, turn: int, call: str | None, name: str) -> Any:
    """An argument that was said in an earlier turn, or in an earlier call of this one (`@0.name` in a lone request)."""
    past = len(state.turns)
    number = int(call) if call is not None else max(0, turn - past)
    try:
        value = state.given[min(turn, past)][number][name]
    except (IndexError, KeyError):
        raise Unusable(f"nothing said {name} in turn {turn}") from None
    if isinstance(value, list):
        return [str(v).strip() for v in value]
    return value.strip() if isinstance(value, str) else value


def _wanted_rows(dialogue: Dialogue) -> dict[int, dict[str, Any]]:
    """For each turn that later words point into: how many rows they need, and which field of them."""
    wanted: dict[int, dict[str, Any]] = {}
    for i, request in enumerate(dialogue.requests):
        for value in request.fixed.values():
            for one in _as_list(value):
                match = _REFERENCE.match(one) if isinstance(one, str) else None
                if match is None or match[3] != "result":
                    continue
                need = wanted.setdefault(int(match[1]) if match[1] else i - 1, {"rows": 2, "field": None})
                index = int(match[4] or 0)
                need["rows"] = max(need["rows"], index + 1 if index >= 0 else -index)
                need["field"] = match[5] or need["field"]
    return wanted


def _results(calls: list[Call], wanted: dict[str, Any], state: _State) -> list[ResultRows]:
    out = []
    for i, call in enumerate(calls):
        asked = wanted if i == 0 else {}
        category = _FIELD.get(str(asked.get("field"))) or _ROWS.get(call.tool) or ("session" if asked else None)
        if category is not None:
            out.append(ResultRows(call.tool, _row_names(call, category, asked, state)))
    return out


def _row_names(call: Call, category: str, asked: dict[str, Any], state: _State) -> list[str]:
    rng = state.rng
    if call.tool in _SINGLE and not asked.get("field"):
        named = call.arguments.get("name")
        return [str(named)] if named else [state.names.draw(category, rng)]
    low = int(asked.get("rows", 0))
    return [state.names.draw(category, rng) for _ in range(rng.randint(low, max(low + 4, 5)))]
