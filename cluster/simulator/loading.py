"""From a file to a whole scenario: parsed, typed, checked, placed. Every mistake is reported at once."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cluster.scheduler.state import Placement
from cluster.sentence import S, Sentence
from cluster.simulator.checks import Checks
from cluster.simulator.complete import completed
from cluster.simulator.layout import lay_out
from cluster.simulator.scenario import MISSING, Scenario
from cluster.simulator.source import Mistake, Place, ScenarioMistakes, Source, read

ROUNDS = 8
"""Wrong values are taken out and the rest is read again, this often at most."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A scenario that can be used. Every session has its id, project, group, amounts and times."""

    scenario: Scenario
    placements: dict[str, tuple[Placement, ...]]
    """Session id -> where it runs."""
    notes: tuple[Sentence, ...] = ()
    """What was taken for granted."""


def load(path_or_text: Path | str) -> Loaded:
    """A scenario from a file or from YAML text.

    `ScenarioMistakes` (a `ScenarioError`) names everything that is wrong with it, with lines.
    """
    source = read(path_or_text)
    mistakes = list(source.mistakes)
    scenario = _typed(source, mistakes)
    notes: list[Sentence] = []
    scenario = completed(scenario, source, mistakes, notes)
    mistakes += Checks(scenario, source).run()
    placements = lay_out(scenario, source, mistakes)
    if mistakes:
        raise ScenarioMistakes(source.name, mistakes)
    return Loaded(scenario, placements, tuple(notes))


def _typed(source: Source, mistakes: list[Mistake]) -> Scenario:
    """The data as a `Scenario`; what is wrong is noted and left out, so that the rest can be checked too."""
    data = deepcopy(source.data) if source.data is not None else {}
    if not isinstance(data, dict):
        raise ScenarioMistakes(
            source.name, [Mistake(1, S("a scenario is a mapping of keys such as nodes and sessions"))]
        )
    seen: set[Place] = set()
    for _ in range(ROUNDS):
        try:
            return Scenario.model_validate(data)
        except ValidationError as e:
            for place, sentence in _wrong(e, source).items():
                if not any(place[:n] in seen for n in range(1, len(place) + 1)):
                    mistakes.append(Mistake(source.line(place), sentence))
                seen.add(place)
                _leave_out(data, place)
    raise ScenarioMistakes(source.name, mistakes)


def _wrong(error: ValidationError, source: Source) -> dict[Place, Sentence]:
    found: dict[Place, Sentence] = {}
    for detail in error.errors(include_url=False):
        place = _place(detail, source)
        found.setdefault(place, _sentence(detail, place))
    return found


def _place(detail: ErrorDetails, source: Source) -> Place:
    """Where it is: pydantic's location without the members of unions that it tried."""
    place: Place = ()
    if detail["type"] == "missing":
        return detail["loc"]
    for part in detail["loc"]:
        if (*place, part) not in source.lines:
            break
        place = (*place, part)
    return place


def _sentence(detail: ErrorDetails, place: Place) -> Sentence:
    key, value, context = str(place[-1]) if place else "scenario", detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            return S("{key} is missing", key=key)
        case "extra_forbidden":
            return unknown_key(key, place)
        case "size":
            return S("{key}: {value} is not a size; write for example 64g", key=key, value=str(value))
        case "duration":
            return S("{key}: {value} is not a duration or time; write for example 90m", key=key, value=str(value))
        case "enum" | "literal_error":
            return S("{key}: {value} is none of {choices}", key=key, value=str(value), choices=str(context["expected"]))
        case _:
            return S("{key}: {value} can't be used ({why})", key=key, value=_short(value), why=detail["msg"])


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def unknown_key(key: str, place: Place) -> Sentence:
    """`key` is none of the format's; with the nearest that is."""
    known = _keys(place[:-1])
    near = get_close_matches(key, known, 1, 0.6)
    where = str(place[0]) if len(place) > 1 else "a scenario"
    if near:
        return S("there is no key {key} in {where}; did you mean {near}?", key=key, where=where, near=near[0])
    return S("there is no key {key} in {where}; there are {known}", key=key, where=where, known=", ".join(known))


def _keys(place: Place) -> Sequence[str]:
    """The keys that the thing at `place` may have."""
    model: type[BaseModel] = Scenario
    for part in place:
        field = model.model_fields.get(str(part)) if isinstance(part, str) else None
        for inner in getattr(field.annotation, "__args__", ()) if field else ():
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _leave_out(data: dict[str, Any], place: Place) -> None:
    """Take what is wrong out of `data` (or fill in what is missing) without moving anything else."""
    *around, last = place
    at: Any = data
    for i, part in enumerate(around):
        if isinstance(at, list) and i != 1:
            return _leave_out(data, place[:i])
        at = at[part]
    if isinstance(at, list):
        at[int(last)] = {} if len(place) == 2 else MISSING
    elif last in at:
        del at[last]
    else:
        at[last] = _FILLERS.get(str(last), MISSING)
    return None


_FILLERS = {"at": "+0m", "kind": "lost"}
