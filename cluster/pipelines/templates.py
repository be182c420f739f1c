"""`{{ parameters.x }}` in a definition, by `string.Template`: names only, no expressions, so that nothing can run here.

In a command a value never stands in the text: the shell reads it from the environment (`"${PARAM_X}"`), so that it
stays one word and is never read as a command, whatever it holds. Everywhere else it is put into the text as it is.
`\\{{ parameters.x }}` is left as it stands, without the backslash.
"""

import re
import string
from collections.abc import Mapping


class _Template(string.Template):
    delimiter = "{{"
    flags = re.NOFLAG
    pattern = r"""
        \\(?P<escaped>\{\{) |
        \{\{\s*parameters\.(?:(?P<named>[A-Za-z_][A-Za-z0-9_-]*)\s*\}\} | (?P<braced>(?!)) | (?P<invalid>))
    """  # type: ignore[assignment]


_FOUND: re.Pattern[str] = re.compile(_Template.pattern.pattern, re.VERBOSE)  # type: ignore[attr-defined]


def names_in(text: str) -> list[str]:
    """The parameters that `text` speaks of, each once."""
    return _Template(text).get_identifiers()


def sound(text: str) -> bool:
    """Every `{{ parameters.` in it is followed by a name and `}}`."""
    return _Template(text).is_valid()


def filled(text: str, values: Mapping[str, str]) -> str:
    """`text` with the values in it. `KeyError` for a parameter that there is not, `ValueError` when it is not sound."""
    return _Template(text).substitute(values)


def variable(parameter: str) -> str:
    """The environment variable that holds a parameter: `learning-rate` -> `PARAM_LEARNING_RATE`."""
    return "PARAM_" + re.sub(r"\W", "_", parameter, flags=re.ASCII).upper()


def for_shell(command: str) -> str:
    """`command` with references to the environment in place of its parameters.

    Outside of quotes with quotes around it, so that a value with spaces stays one word. In single quotes the outer
    shell fills in nothing; the reference stands there for a shell that is called with it (`bash -c '…'`).
    """
    parts: list[str] = []
    at, quote = 0, ""
    for found in _FOUND.finditer(command):
        piece = command[at : found.start()]
        quote = _quote_after(piece, quote)
        parts += [piece, _reference(found, quote)]
        at = found.end()
    return "".join([*parts, command[at:]])


def in_single_quotes(command: str) -> list[str]:
    """Parameters that stand in single quotes, where the shell that runs the command does not fill them in."""
    names, at, quote = [], 0, ""
    for found in _FOUND.finditer(command):
        quote = _quote_after(command[at : found.start()], quote)
        at = found.end()
        if quote == "'" and found["named"]:
            names.append(found["named"])
    return list(dict.fromkeys(names))


def _reference(found: re.Match[str], quote: str) -> str:
    if found["named"] is None:
        return _Template.delimiter
    reference = f"${{{variable(found['named'])}}}"
    return reference if quote else f'"{reference}"'


def _quote_after(piece: str, quote: str) -> str:
    """The quote that is open after `piece`, when `quote` was open before. Only how it looks depends on this: a value
    is read from the environment in any case."""
    skip = False
    for char in piece:
        if skip:
            skip = False
        elif char == "\\" and quote != "'":
            skip = True
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
    return quote
