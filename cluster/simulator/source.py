"""A scenario's text with its line numbers, and what is wrong with it."""

from pathlib import Path

import yaml

from cluster.errors import ScenarioError
from cluster.lines import Mistake, Place, Source, document
from cluster.sentence import S

__all__ = ["Mistake", "Place", "ScenarioMistakes", "Source", "parse", "read"]


class ScenarioMistakes(ScenarioError):
    """A scenario file with mistakes: all of them, in the order of their lines."""

    def __init__(self, name: str, mistakes: list[Mistake]) -> None:
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: mistake.line))
        listing = "\n".join(f"  {mistake}" for mistake in self.mistakes)
        super().__init__(S("The scenario {name} can't be used:\n{mistakes}", name=name, mistakes=listing))


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
        return document(text, name)
    except yaml.MarkedYAMLError as e:
        raise _not_yaml(name, e) from e
    except (yaml.YAMLError, RecursionError, ValueError) as e:
        raise ScenarioError(S("The scenario {name} is not YAML: {why}", name=name, why=str(e))) from e


def _not_yaml(name: str, e: yaml.MarkedYAMLError) -> ScenarioMistakes:
    mark = e.problem_mark or e.context_mark
    why = S("this is not YAML: {why}", why=e.problem or e.context or "unreadable")
    return ScenarioMistakes(name, [Mistake(mark.line + 1 if mark else 0, why)])
