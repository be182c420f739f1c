"""YAML with its line numbers: what a text says, and where it says it."""

from dataclasses import dataclass, field
from typing import Any

import yaml

from cluster.sentence import S, Sentence

Place = tuple[str | int, ...]
"""Keys and indexes from the top: ("sessions", 3, "node")."""
MOST = 200_000
"""Values in one text: what refers to itself again and again grows without end."""

_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong with a text. `line` counts from 1, 0 when it isn't a line's fault."""

    line: int
    sentence: Sentence

    def __str__(self) -> str:
        return f"line {self.line}: {self.sentence}" if self.line else str(self.sentence)


@dataclass(slots=True)
class Source:
    """A parsed text: its data, the line of every value, and keys that are there twice."""

    name: str
    data: Any
    lines: dict[Place, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def line(self, path: Place) -> int:
        """The line of the value at `path`, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def document(text: str, name: str) -> Source:
    """YAML text as data with lines. `yaml.YAMLError`, `RecursionError` or `ValueError` when it isn't YAML."""
    loader = _Loader(text)
    node = loader.get_single_node()
    source = Source(name, {})
    if node is not None:
        _walk(node, (), source)
        source.data = loader.construct_document(node)
    return source


def _walk(node: yaml.Node, path: Place, source: Source) -> None:
    if len(source.lines) > MOST:
        raise ValueError(f"it has more than {MOST} values")
    source.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            _walk(item, (*path, i), source)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _entry(key, value, path, source)


def _entry(key: yaml.Node, value: yaml.Node, path: Place, source: Source) -> None:
    here = (*path, str(key.value))
    if here in source.lines:
        message = S("{key} is given twice here", key=str(key.value))
        source.mistakes.append(Mistake(key.start_mark.line + 1, message))
    source.lines[here] = key.start_mark.line + 1
    _walk(value, here, source)
