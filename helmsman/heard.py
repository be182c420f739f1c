"""A name that the person typed is the name that is meant: puts right what a small model has miscopied or misplaced.

Only where it is plain: the line holds the name of a thing that exists, no call uses it, and a call has for the same
kind of thing a value that is nowhere in the line.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from cluster.models import Names
from helmsman.plainly import holds, put_plain
from helmsman.prompts.ordinals import ENGLISH, KOREAN
from helmsman.turn import Call
from tools.catalogue import catalogue
from tools.linking.names import find, is_oneself

_BESIDE = (
    rf"(?:\b(?:{'|'.join(ENGLISH)}|\d+(?:st|nd|rd|th))\s+NAME)"
    r"|(?:NAME\s*(?:#\s*)?\d+\s*(?:번|호기|호)?)"
    rf"|(?:NAME\s*(?:{'|'.join(KOREAN)})\s*번째)"
)
"""A name with its ordinal."""


def put_right(calls: Sequence[Call], line: str, names: Names) -> None:
    """Exchange miscopied names in `calls` for those that `line` holds, and put misplaced ones where they belong."""
    everything = _known(names)
    for argument, known in everything.items():
        typed = [name for name in _in_order(known, line) if not any(_uses(call, argument, name) for call in calls)]
        for call in calls:
            _exchange(call.said, argument, line, typed)
    for call in calls:
        put_plain(call, line)
        _widen(call.said, line, everything)
        _rehome(call, everything)


def _widen(said: dict[str, Any], line: str, everything: dict[str, list[str]]) -> None:
    """Take in the ordinal beside a name that alone fits several: "the second a100 box", "a100 3번"."""
    for argument in everything:
        value = said.get(argument)
        if isinstance(value, str) and len(find(value, everything[argument]).names) != 1:
            beside = re.search(_BESIDE.replace("NAME", re.escape(value)), line, re.IGNORECASE)
            said[argument] = beside[0] if beside else value


def _rehome(call: Call, everything: dict[str, list[str]]) -> None:
    """A name that does not exist as what it is taken for, but as another thing that the tool asks for, moves there."""
    tool = catalogue().get(call.tool)
    takes = {a.name for a in tool.arguments if not a.required} if tool else set()
    for argument in [a for a in takes if a in everything and isinstance(call.said.get(a), str)]:
        value = call.said[argument]
        if is_oneself(value) or find(value, everything[argument]).names:
            continue
        fits = [o for o in takes & everything.keys() if o not in call.said and find(value, everything[o]).names]
        if len(fits) == 1:
            call.said[fits[0]] = call.said.pop(argument)
        elif value in [v for k, v in call.said.items() if k != argument]:
            del call.said[argument]


def _exchange(said: dict[str, Any], argument: str, line: str, typed: list[str]) -> None:
    value = said.get(argument)
    values = value if isinstance(value, list) else [value]
    right = [typed.pop(0) if typed and _is_strange(v, line) else v for v in values]
    if right != values:
        said[argument] = right if isinstance(value, list) else right[0]


def _is_strange(value: Any, line: str) -> bool:
    return isinstance(value, str) and not is_oneself(value) and not holds(line, value)


def _in_order(known: Iterable[str], line: str) -> list[str]:
    held = {name for name in known if len(name) > 1 and holds(line, name)}
    return sorted(held, key=lambda name: line.casefold().index(name.casefold()))


def _uses(call: Call, argument: str, name: str) -> bool:
    value = call.said.get(argument)
    return name.casefold() in [str(v).casefold() for v in (value if isinstance(value, list) else [value])]


def _known(names: Names) -> dict[str, list[str]]:
    sessions = [*names.sessions, *names.sessions.values()]
    return {
        "node": names.nodes,
        "session": sessions,
        "sessions": sessions,
        "folder": [*names.folders, *names.trashed_folders],
        "user": names.users,
        "project": names.projects,
        "resource_group": names.resource_groups,
        "image": names.images,
        "model": names.models,
        "endpoint": names.endpoints,
        "pipeline": names.pipelines,
    }
