"""What a line says plainly: an amount beside its unit, the name of a new thing. Puts right what a small model misread.

Only where there is one such stretch and no other reading of it; what a line says "each" or "씩" of is left alone.
"""

import re

from helmsman.turn import Call

_NUMBER = r"(\d+(?:\.\d+)?)"
_GPU, _CPU, _OF = r"(?:gpus?|지피유)", r"(?:cpus?|cores?|코어)", r"(?:는|은|를)?\s*[:=]?\s*"
_AMOUNTS = {
    "gpu": rf"{_NUMBER}\s*{_GPU}(?![a-z0-9])|(?<![a-z0-9]){_GPU}{_OF}{_NUMBER}\s*(?:개|장)?",
    "cpu": rf"{_NUMBER}\s*{_CPU}(?![a-z0-9])|(?<![a-z0-9]){_CPU}{_OF}{_NUMBER}\s*(?:개|코어)?",
    "memory": rf"{_NUMBER}\s*(?:g|gb|gib|gigs?|기가)(?:바이트)?(?![a-z0-9])",
}
_PER_NODE = re.compile(r"\b(?:each|per node|apiece)\b|씩|노드당")
_QUOTED = re.compile(r"`[^`]*`|\"[^\"]*\"|'[^']*'")
_CALLED = re.compile(r"(?:\b(?:called|named)\s+|이름은?\s+)[\"'`]?([\w.-]+)", re.IGNORECASE)
_LATIN = re.compile(r"(?<![\w.-])[A-Za-z][\w.-]*[A-Za-z0-9]")
_NEW = {"create_folder", "start_session"}
"""Tools whose `name` is that of a new thing."""


def put_plain(call: Call, line: str) -> None:
    """Correct `call` where `line` leaves no doubt."""
    if call.tool == "start_session" and not _PER_NODE.search(line):
        _amounts(call, _without_command(call, line))
    name = call.said.get("name")
    if call.tool in _NEW and isinstance(name, str) and not holds(line, name):
        call.said["name"] = _new_name(line) or name


def holds(line: str, name: str) -> bool:
    """Whether the name stands in the line as a whole; Korean particles may follow at once."""
    return re.search(rf"(?<![a-z0-9_.-]){re.escape(name.casefold())}(?![a-z0-9_-])", line.casefold()) is not None


def _without_command(call: Call, line: str) -> str:
    command = call.said.get("command")
    bare = line.replace(command, " ") if isinstance(command, str) else line
    return _QUOTED.sub(" ", bare).casefold()


def _amounts(call: Call, line: str) -> None:
    for argument, pattern in _AMOUNTS.items():
        found = {number for pair in re.findall(pattern, line) for number in _some(pair)}
        if len(found) == 1 and (argument in call.said or argument != "memory"):  # "64g" alone may be something else
            number = found.pop()
            call.said[argument] = f"{number}g" if argument == "memory" else float(number)


def _some(found: str | tuple[str, ...]) -> list[str]:
    return [found] if isinstance(found, str) else [number for number in found if number]


def _new_name(line: str) -> str | None:
    """After "called"; in a Korean line the only Latin word."""
    if called := _CALLED.search(line):
        return called[1]
    latin = _LATIN.findall(line) if re.search("[가-힣]", line) else []
    return latin[0] if len(latin) == 1 else None
