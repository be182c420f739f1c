"""What a run gives its pipeline: values of the right type, and their text."""

import math
from collections.abc import Mapping
from difflib import get_close_matches

from cluster.models import Parameter, PipelineSpec, Reason, Scalar
from cluster.sentence import S, Sentence

MOST = 8000
"""Characters of one value."""


def chosen(spec: PipelineSpec, given: Mapping[str, Scalar]) -> tuple[dict[str, Scalar], list[Reason]]:
    """Every parameter's value, typed, and all that is wrong with what was given."""
    wrong = [_unknown(name, spec) for name in given if name not in spec.parameters]
    values: dict[str, Scalar] = {}
    for name, parameter in spec.parameters.items():
        value = given.get(name, parameter.default)
        if value is None:
            wrong.append(S("The parameter {name} has no default; say what it is to be.", name=name))
        elif why := misfit(name, parameter, value):
            wrong.append(why)
        else:
            values[name] = typed(parameter, value)
    return values, [Reason(code="invalid", message=message) for message in wrong]


def misfit(name: str, parameter: Parameter, value: Scalar) -> Sentence | None:
    """Why `value` can't be this parameter's; None when it can."""
    try:
        shown = text_of(value)[:40]
        read = typed(parameter, value)
    except OverflowError:
        return S("{name} is too large a number.", name=name)
    except ValueError:
        return S("{name} is of type {type}; {value} is none.", name=name, type=parameter.type, value=shown)
    if len(text_of(read)) > MOST or "\0" in text_of(read):
        return S("{name} is longer than {most} characters, or holds a zero byte.", name=name, most=MOST)
    choices = [text_of(typed(parameter, each)) for each in parameter.choices] if parameter.choices else []
    if choices and text_of(read) not in choices:
        return S("{name} is one of {choices}; {value} is none.", name=name, choices=", ".join(choices), value=shown)
    return None


def typed(parameter: Parameter, value: Scalar) -> Scalar:
    """`value`, which may have been said as text, as the parameter's type. `ValueError` when it is none."""
    match parameter.type:
        case "integer" if not isinstance(value, bool):
            number = float(value)
            if not number.is_integer():
                raise ValueError(value)
            return int(value) if isinstance(value, int | str) and "." not in str(value) else int(number)
        case "number" if not isinstance(value, bool):
            if not math.isfinite(float(value)):
                raise ValueError(value)
            return float(value)
        case "boolean":
            return _truth(value)
        case "text":
            return text_of(value)
    raise ValueError(value)


def _truth(value: Scalar) -> bool:
    if text_of(value).lower() not in ("true", "false"):
        raise ValueError(value)
    return text_of(value).lower() == "true"


def text_of(value: Scalar) -> str:
    """As it stands in the environment: true, 3, 0.1, text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def texts(values: Mapping[str, Scalar]) -> dict[str, str]:
    return {name: text_of(value) for name, value in values.items()}


def _unknown(name: str, spec: PipelineSpec) -> Sentence:
    if near := get_close_matches(name, list(spec.parameters), 1, 0.6):
        return S("{pipeline} has no parameter {name}; did you mean {near}?",
                 pipeline=spec.name, name=name, near=near[0])  # fmt: skip
    if not spec.parameters:
        return S("{pipeline} has no parameters; {name} can't be given.", pipeline=spec.name, name=name)
    known = ", ".join(spec.parameters)
    return S("{pipeline} has no parameter {name}; it has {known}.", pipeline=spec.name, name=name, known=known)
