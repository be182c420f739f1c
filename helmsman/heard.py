"""A name that the person typed is the name that is meant: puts right what a small model has miscopied.

Only where it is plain: the line holds the name of a thing that exists, no call uses it, and a call has for the same
kind of thing a value that is nowhere in the line.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from cluster.models import Names
from helmsman.turn import Call

ME = frozenset({"me", "my", "i", "mine", "myself", "나", "내", "저", "제", "본인"})
"""Ways to say oneself; they are no miscopied names."""


def put_right(calls: Sequence[Call], line: str, names: Names) -> None:
    """Exchange miscopied names in `calls` for those that `line` holds."""
    for argument, known in _known(names).items():
        typed = [name for name in _in_order(known, line) if not any(_uses(call, argument, name) for call in calls)]
        for call in calls:
            _exchange(call.said, argument, line, typed)


def _exchange(said: dict[str, Any], argument: str, line: str, typed: list[str]) -> None:
    value = said.get(argument)
    values = value if isinstance(value, list) else [value]
    right = [typed.pop(0) if typed and _is_strange(v, line) else v for v in values]
    if right != values:
        said[argument] = right if isinstance(value, list) else right[0]


def _is_strange(value: Any, line: str) -> bool:
    return isinstance(value, str) and value.casefold() not in ME and not _holds(line, value)


def _holds(line: str, name: str) -> bool:
    """Whether the name stands in the line as a whole; Korean particles may follow at once."""
    return re.search(rf"(?<![a-z0-9_.-]){re.escape(name.casefold())}(?![a-z0-9_-])", line.casefold()) is not None


def _in_order(known: Iterable[str], line: str) -> list[str]:
    held = {name for name in known if len(name) > 1 and _holds(line, name)}
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
