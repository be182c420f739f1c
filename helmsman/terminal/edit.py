"""The arguments of a plan as lines that can be edited, and back."""

import json
import re
import tomllib
from typing import Any

from cluster.sentence import S
from helmsman.errors import HelmsmanError
from helmsman.events import PlannedCall


class BadEdit(HelmsmanError):
    """The edited lines can't be read."""

    exit_code = 2


def as_lines(calls: list[PlannedCall]) -> str:
    """TOML: one key a line for a single call, a numbered table for each of several."""
    if len(calls) == 1:
        return f"# {calls[0].tool}\n{_toml(calls[0].arguments)}".rstrip("\n")
    parts = (f"[{number}]  # {call.tool}\n{_toml(call.arguments)}" for number, call in enumerate(calls, 1))
    return "\n".join(parts).rstrip("\n")


def from_lines(text: str, calls: list[PlannedCall]) -> dict[str, dict[str, Any]]:
    """Call id -> its edited arguments, for the calls that were changed. Raises `BadEdit`."""
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise BadEdit(S("That can't be read as `name = value` lines: {why}. Nothing was done.", why=str(e))) from e
    tables = {"1": read} if len(calls) == 1 else read
    unknown = [key for key in tables if not (key.isdigit() and 1 <= int(key) <= len(calls))]
    if unknown or not all(isinstance(table, dict) for table in tables.values()):
        raise BadEdit(S("Lines belong below their call's number, [1] to [{last}]. Nothing was done.", last=len(calls)))
    pairs = ((call, tables.get(str(number), call.arguments)) for number, call in enumerate(calls, 1))
    return {call.id: table for call, table in pairs if table != _without_none(call.arguments)}


def _toml(arguments: dict[str, Any]) -> str:
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in _without_none(arguments).items())


def _value(value: Any) -> str:
    """One TOML value on one line. JSON's strings, numbers, booleans and arrays are TOML's."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    return re.sub(r"[\x7f-\x9f]", lambda odd: f"\\u{ord(odd[0]):04x}", json.dumps(value, ensure_ascii=False))


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _without_none(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if value is not None}
