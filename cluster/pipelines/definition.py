"""From YAML text to a pipeline: parsed, typed, checked. Every mistake is reported at once, with its line."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cluster.errors import Invalid
from cluster.lines import Place, Source, document
from cluster.models import Parameter, PipelineSpec, PipelineStep, Reason
from cluster.models.pipelines import MOST_STEPS
from cluster.pipelines import fasttrack, templates
from cluster.pipelines.parameters import misfit
from cluster.sentence import S, Sentence

M = TypeVar("M", bound=BaseModel)
MOST_TOLD = 50
"""Mistakes of one text that are told."""


class PipelineMistakes(Invalid):
    """A definition that can't be used: all its mistakes, in the order of their lines."""

    def __init__(self, found: Sequence[tuple[int, Sentence]]) -> None:
        ordered = [sentence for _, sentence in sorted(found, key=lambda each: each[0])][:MOST_TOLD]
        self.reasons = [Reason(code="invalid", message=sentence) for sentence in ordered]
        super().__init__(ordered[0])


@dataclass(frozen=True, slots=True)
class Definition:
    """A pipeline that can be kept, and what is odd about its text."""

    spec: PipelineSpec
    notes: tuple[Sentence, ...] = ()


def read(text: str, *, simulated: bool = False, name: str | None = None, groups: Collection[str] = ()) -> Definition:
    """A definition, in our own shape or FastTrack's. `PipelineMistakes` when it can't be used.

    `simulated`: a step needs no command, since none is really run. `name` goes before the one in the text; `groups`:
    the resource groups that there are.
    """
    source = _parsed(text)
    notes: list[Sentence] = []
    if isinstance(source.data, dict) and fasttrack.is_one(source.data):
        source, notes = fasttrack.translated(source, groups)
    reading = _Reading(source, simulated)
    spec = reading.whole(source.data, name)
    if spec is None or reading.found:
        raise PipelineMistakes(reading.found)
    return Definition(spec, (*notes, *_quoted(spec)))


def _parsed(text: str) -> Source:
    try:
        return document(text, "pipeline")
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        line = mark.line + 1 if mark else 1
        said = S("Line {line}: this is not YAML: {why}", line=line, why=e.problem or e.context or "unreadable")
        raise PipelineMistakes([(line, said)]) from e
    except (yaml.YAMLError, RecursionError, ValueError) as e:
        raise PipelineMistakes([(0, S("This is not YAML: {why}", why=str(e) or type(e).__name__))]) from e


class _Reading:
    """One definition being read; what is wrong is noted, and the rest is looked at too."""

    def __init__(self, source: Source, simulated: bool) -> None:
        self._source = source
        self._simulated = simulated
        self.found: list[tuple[int, Sentence]] = [
            (m.line, S("Line {line}: {key} is given twice.", line=m.line, key=m.sentence.params["key"]))
            for m in source.mistakes
        ]

    def _say(self, place: Place, text: Sentence) -> None:
        line = self._source.line(place)
        self.found.append((line, Sentence(text=text.text, params={"line": line, **text.params})))

    def whole(self, data: Any, name: str | None) -> PipelineSpec | None:
        if not isinstance(data, dict):
            self._say((), S("Line {line}: a pipeline is a mapping with a name and steps."))
            return None
        steps = self._steps(data.get("steps"))
        parameters = self._parameters(data.get("parameters"))
        head = {**data, "steps": [{"name": "x"}], "parameters": {}}
        if name is not None:
            head["name"] = name
        spec = self._typed(PipelineSpec, head, ())
        self._templates(data, set(parameters))
        self._graph(steps, _names(data.get("steps")))
        if spec is None:
            return None
        return spec.model_copy(update={"steps": [step for _, step in steps], "parameters": parameters})

    # ── typed ────────────────────────────────────────────────────────────────────────────────────

    def _steps(self, raw: Any) -> list[tuple[int, PipelineStep]]:
        """Those that can be read, each with its place in the list."""
        if not isinstance(raw, list) or not raw:
            self._say(("steps",), S("Line {line}: steps is a list of at least one step."))
            return []
        if len(raw) > MOST_STEPS:
            count, most = len(raw), MOST_STEPS
            self._say(("steps",), S("Line {line}: {count} steps; at most {most} can be.", count=count, most=most))
            return []
        read = ((i, self._typed(PipelineStep, each, ("steps", i))) for i, each in enumerate(raw))
        return [(i, step) for i, step in read if step is not None]

    def _parameters(self, raw: Any) -> dict[str, Parameter]:
        if raw is None:
            return {}
        if not isinstance(raw, dict):
            self._say(("parameters",), S("Line {line}: parameters is a mapping of names to defaults."))
            return {}
        found = {str(key): self._parameter(str(key), value) for key, value in raw.items()}
        self._alike(found)
        return {key: value for key, value in found.items() if value is not None}

    def _parameter(self, key: str, raw: Any) -> Parameter | None:
        """`lr: 0.1` is short for a number with this default."""
        place = ("parameters", key)
        value = raw if isinstance(raw, dict) else {"type": _type_of(raw), "default": raw}
        parameter = self._typed(Parameter, value, place)
        if parameter is None:
            return None
        given = [*parameter.choices, *([] if parameter.default is None else [parameter.default])]
        for each in given:
            if misfit(key, parameter, each):
                text = S("Line {line}: {value} does not fit the parameter {name} ({type}).",
                         value=_short(each), name=key, type=parameter.type)  # fmt: skip
                self._say(place, text)
        return parameter

    def _alike(self, names: Iterable[str]) -> None:
        """Two parameters that would have the same environment variable."""
        seen: dict[str, str] = {}
        for name in names:
            variable = templates.variable(name)
            if variable in seen:
                text = S(
                    "Line {line}: {name} and {other} would both be {variable}.",
                    name=name,
                    other=seen[variable],
                    variable=variable,
                )
                self._say(("parameters", name), text)
            seen[variable] = name

    def _typed(self, shape: type[M], raw: Any, place: Place) -> M | None:
        if not isinstance(raw, dict):
            self._say(place, S("Line {line}: {key} is a mapping.", key=str(place[-1]) if place else "pipeline"))
            return None
        try:
            return shape.model_validate(raw)
        except ValidationError as e:
            told: set[Place] = set()
            for detail in e.errors(include_url=False):
                where = self._place(detail, place)
                if where not in told:
                    self._say(where, _sentence(detail, where, shape))
                told.add(where)
            return None

    def _place(self, detail: ErrorDetails, place: Place) -> Place:
        """Where it is: pydantic's location without the members of unions that it tried."""
        if detail["type"] in ("missing", "extra_forbidden"):
            return (*place, *detail["loc"])
        for part in detail["loc"]:
            if (*place, part) not in self._source.lines:
                break
            place = (*place, part)
        return place if place else (str(detail["loc"][0]),)

    # ── whether it hangs together ────────────────────────────────────────────────────────────────

    def _templates(self, data: dict[str, Any], known: set[str]) -> None:
        for place, text in _texts({"env": data.get("env"), "steps": data.get("steps")}):
            if not templates.sound(text):
                said = S("Line {line}: write {example} with the name of a parameter.", example="{{ parameters.name }}")
                self._say(place, said)
                continue
            for name in templates.names_in(text):
                if name not in known:
                    self._say(place, _unknown_parameter(name, sorted(known)))

    def _graph(self, steps: Sequence[tuple[int, PipelineStep]], names: set[str]) -> None:
        """`names`: of all steps, also of those that can't be read."""
        self._twice(steps)
        for i, step in steps:
            if step.command is None and step.when is not False and not self._simulated:
                text = S("Line {line}: step {step} has no command; it would never end.", step=step.name)
                self._say(("steps", i), text)
            for name in step.after:
                if name not in names:
                    self._say(("steps", i, "after"), _unknown_step(step.name, name, sorted(names)))
        self._circle(steps)

    def _twice(self, steps: Sequence[tuple[int, PipelineStep]]) -> None:
        first: dict[str, int] = {}
        for i, step in steps:
            if step.name in first:
                other = self._source.line(("steps", first[step.name], "name"))
                text = S("Line {line}: there is a step {step} already, in line {other}.", step=step.name, other=other)
                self._say(("steps", i, "name"), text)
            first.setdefault(step.name, i)

    def _circle(self, steps: Sequence[tuple[int, PipelineStep]]) -> None:
        graph: dict[str, list[str]] = {}
        for _, step in steps:
            graph.setdefault(step.name, []).extend(step.after)
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as e:
            circle: list[str] = e.args[1][::-1]
            at = next(i for i, step in steps if step.name == circle[0])
            text = S("Line {line}: these steps wait for each other in a circle: {steps}.", steps=" → ".join(circle))
            self._say(("steps", at), text)


def _names(raw: Any) -> set[str]:
    return {str(each.get("name")) for each in raw if isinstance(each, dict)} if isinstance(raw, list) else set()


# ── sentences ────────────────────────────────────────────────────────────────────────────────────


def _sentence(detail: ErrorDetails, place: Place, shape: type[BaseModel]) -> Sentence:
    key, value = str(place[-1]) if place else "pipeline", _short(detail["input"])
    match detail["type"]:
        case "missing":
            return S("Line {line}: {key} is missing.", key=key)
        case "extra_forbidden":
            return _unknown_key(key, list(shape.model_fields))
        case "size":
            return S("Line {line}: {key}: {value} is not a size; write for example 64g.", key=key, value=value)
        case "duration":
            return S("Line {line}: {key}: {value} is not a duration; write for example 90m.", key=key, value=value)
        case "number":
            return S("Line {line}: {key}: {value} is not a number.", key=key, value=value)
        case _:
            return S("Line {line}: {key}: {value} can't be used ({why}).", key=key, value=value, why=detail["msg"])


def _unknown_key(key: str, known: Sequence[str]) -> Sentence:
    if near := get_close_matches(key, known, 1, 0.6):
        return S("Line {line}: there is no key {key}; did you mean {near}?", key=key, near=near[0])
    return S("Line {line}: there is no key {key}; there are {known}.", key=key, known=", ".join(known))


def _unknown_parameter(name: str, known: Sequence[str]) -> Sentence:
    if near := get_close_matches(name, known, 1, 0.6):
        return S("Line {line}: there is no parameter {name}; did you mean {near}?", name=name, near=near[0])
    return S("Line {line}: there is no parameter {name}.", name=name)


def _unknown_step(step: str, name: str, known: Sequence[str]) -> Sentence:
    if near := get_close_matches(name, known, 1, 0.6):
        return S(
            "Line {line}: {step} waits for {name}, which is no step here; did you mean {near}?",
            step=step,
            name=name,
            near=near[0],
        )
    return S("Line {line}: {step} waits for {name}, which is no step here.", step=step, name=name)


def _quoted(spec: PipelineSpec) -> Iterator[Sentence]:
    for step in spec.steps:
        for name in templates.in_single_quotes(step.command or ""):
            yield S(
                "Step {step}: {name} stands in single quotes, which the shell leaves as they are; use {variable}.",
                step=step.name,
                name=name,
                variable=templates.variable(name),
            )


def _texts(data: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every text in it, with its place."""
    if isinstance(data, str):
        yield place, data
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from _texts(value, (*place, str(key)))
    elif isinstance(data, list):
        for i, value in enumerate(data):
            yield from _texts(value, (*place, i))


def _type_of(value: Any) -> str:
    kinds = ((bool, "boolean"), (int, "integer"), (float, "number"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "text")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"
