"""YAML with its line numbers: what a file says, and where it says it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import ScenarioError
from cluster.sentence import S, Sentence

Place = tuple[str | int, ...]
"""Keys and indexes from the top: ("sessions", 3, "node")."""

_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong with a scenario file. `line` counts from 1, 0 when it isn't a line's fault."""

    line: int
    sentence: Sentence

    def __str__(self) -> str:
        return f"line {self.line}: {self.sentence}" if self.line else str(self.sentence)


class ScenarioMistakes(ScenarioError):
    """A scenario file with mistakes: all of them, in the order of their lines."""

    def __init__(self, name: str, mistakes: list[Mistake]) -> None:
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: mistake.line))
        listing = "\n".join(f"  {mistake}" for mistake in self.mistakes)
        super().__init__(S("The scenario {name} can't be used:\n{mistakes}", name=name, mistakes=listing))


@dataclass(slots=True)
class Source:
    """A parsed file: its data, the line of every value, and keys that are there twice."""

    name: str
    data: Any
    lines: dict[Place, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def line(self, path: Place) -> int:
        """The line of the value at `path`, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read(path_or_text: Path | str) -> Source:
    """Parse a file, or YAML given as text (anything with a line break or a colon followed by a space).

    `ScenarioError` when there is no such file, it can't be read, or isn't YAML.
    """
    if isinstance(path_or_text, str) and (not path_or_text or "\n" in path_or_text or ": " in path_or_text):
        return parse(path_or_text, "given as text")
    path = Path(path_or_text)
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as e:
        raise ScenarioError(
            S("The scenario {path} can't be read: {why}.", path=str(path), why=e.strerror or str(e))
        ) from e
    except UnicodeDecodeError as e:
        raise ScenarioError(S("The scenario {path} is not UTF-8 text.", path=str(path))) from e


def parse(text: str, name: str) -> Source:
    """YAML text as data with lines. `ScenarioError` when it isn't YAML."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        source = Source(name, {})
        if node is not None:
            _walk(node, (), source)
            source.data = loader.construct_document(node)
    except yaml.MarkedYAMLError as e:
        raise _not_yaml(name, e) from e
    except (yaml.YAMLError, RecursionError, ValueError) as e:
        raise ScenarioError(S("The scenario {name} is not YAML: {why}", name=name, why=str(e))) from e
    return source


def _not_yaml(name: str, e: yaml.MarkedYAMLError) -> ScenarioMistakes:
    mark = e.problem_mark or e.context_mark
    why = S("this is not YAML: {why}", why=e.problem or e.context or "unreadable")
    return ScenarioMistakes(name, [Mistake(mark.line + 1 if mark else 0, why)])


def _walk(node: yaml.Node, path: Place, source: Source) -> None:
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
