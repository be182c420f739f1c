"""Recipes: how a model is had and served, from YAML. Those that ship lie in `recipes/`, an admin's own in the store's
directory `recipes/`, one for a folder's model in the folder itself (`recipe.yaml`).

Every mistake in a file is reported at once, with its line.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cluster.errors import Invalid
from cluster.lines import Mistake, Source, document
from cluster.models import Card, Launch, Recipe
from cluster.sentence import S
from cluster.units import parse_duration, parse_size

SHIPPED = Path(__file__).with_suffix("")
"""The folder of those that come with the cluster."""
FILE = "recipe.yaml"
"""In a model's folder: how that one is served."""
MOST = 256 * 2**10
"""Bytes of a file."""
NAME = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,94}[A-Za-z0-9])?$"

Runtime = Literal["vllm", "transformers", "command", "g"]


def _size(value: Any) -> Any:
    return _said(parse_size, value)


def _seconds(value: Any) -> Any:
    return _said(parse_duration, value)


def _said(read: Callable[[str], float], value: Any) -> Any:
    """An amount as people write it, else as it is. `ValueError`, which pydantic notes with its place."""
    try:
        return read(value) if isinstance(value, str) else value
    except Invalid as e:
        raise ValueError(str(e)) from e


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LaunchSpec(_Spec):
    """As `Launch`, with sizes and durations as people write them, and nothing that must be there."""

    command: str | None = Field(default=None, min_length=1, max_length=8000)
    image: str | None = None
    env: dict[str, str] = {}
    cpu: float | None = Field(default=None, gt=0)
    memory: Annotated[int | None, BeforeValidator(_size)] = Field(default=None, gt=0)
    gpu: float | None = Field(default=None, ge=0)
    gpu_model: str | None = None
    health: str | None = Field(default=None, pattern=r"^/")
    ready_within: Annotated[float | None, BeforeValidator(_seconds)] = Field(default=None, gt=0)


class RuntimeSpec(_Spec):
    title: str = ""
    launch: LaunchSpec


class ModelSpec(_Spec):
    name: str = Field(pattern=NAME)
    title: str = ""
    runtime: Runtime
    source: str | None = None
    launch: LaunchSpec = LaunchSpec()
    card: Card = Card()


class _File(_Spec):
    runtimes: dict[Runtime, RuntimeSpec] = {}
    models: list[ModelSpec] = []


class FolderSpec(_Spec):
    """`recipe.yaml` in a model's folder."""

    runtime: Runtime | None = None
    launch: LaunchSpec = LaunchSpec()


@dataclass(frozen=True)
class Book:
    """All recipes: runtimes, and models by name."""

    runtimes: Mapping[str, LaunchSpec]
    models: Mapping[str, Recipe]

    def launch(self, runtime: str, own: LaunchSpec | None = None) -> Launch:
        """A runtime's, with what `own` says in its place; `env` is added to."""
        base, own = self.runtimes[runtime], own or LaunchSpec()
        said = {**base.model_dump(exclude_none=True), **own.model_dump(exclude_none=True)}
        return Launch.model_validate(said | {"env": base.env | own.env})


@cache
def shipped() -> Book:
    """Those that come with the cluster."""
    return book([])


def book(own: Iterable[Path]) -> Book:
    """Those that ship, and an admin's `own` files over them. Raises `Invalid` with all mistakes of a file."""
    files = [(path, _read(path)) for path in [*sorted(SHIPPED.glob("*.yaml")), *own]]
    runtimes: dict[str, LaunchSpec] = {name: spec.launch for _, file in files for name, spec in file.runtimes.items()}
    empty = Book(runtimes, {})
    models = {spec.name: _recipe(empty, spec, path) for path, file in files for spec in file.models}
    return Book(runtimes, models)


def _recipe(runtimes: Book, spec: ModelSpec, path: Path) -> Recipe:
    try:
        launch = runtimes.launch(spec.runtime, spec.launch)
    except (KeyError, ValidationError) as e:
        raise Invalid(
            S("The recipe {name} in {path} can't be used: its runtime has no command.", name=spec.name, path=str(path))
        ) from e
    return Recipe(
        name=spec.name, title=spec.title, runtime=spec.runtime, source=spec.source, launch=launch, card=spec.card
    )


def of_folder(directory: Path) -> FolderSpec | None:
    """What a model's folder says of how it is served; None when it says nothing. Raises `Invalid`."""
    path = directory / FILE
    return cast(FolderSpec, _typed(_source(path), path, FolderSpec)) if path.is_file() else None


def _read(path: Path) -> _File:
    return cast(_File, _typed(_source(path), path, _File))


# ── mistakes, with their lines ───────────────────────────────────────────────────────────────────


def _source(path: Path) -> Source:
    try:
        with path.open("rb") as file:
            text = file.read(MOST + 1)
        if len(text) > MOST:
            raise ValueError(f"it is larger than {MOST} bytes")
        return document(text.decode(), path.name)
    except OSError as e:
        raise Invalid(S("The recipe {path} can't be read: {why}.", path=str(path), why=e.strerror or str(e))) from e
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        why = S("this is not YAML: {why}", why=e.problem or e.context or "unreadable")
        raise _wrong(path, [Mistake(mark.line + 1 if mark else 0, why)]) from e
    except (yaml.YAMLError, RecursionError, ValueError) as e:
        raise Invalid(S("The recipe {path} can't be read: {why}.", path=str(path), why=str(e))) from e


def _typed(source: Source, path: Path, shape: type[BaseModel]) -> BaseModel:
    mistakes = list(source.mistakes)
    try:
        found = shape.model_validate(source.data or {})
    except ValidationError as e:
        for detail in e.errors(include_url=False):
            where = ".".join(str(part) for part in detail["loc"])
            place = tuple(part for part in detail["loc"] if isinstance(part, str | int))
            mistakes.append(Mistake(source.line(place), S("{key}: {why}", key=where, why=detail["msg"])))
    if mistakes:
        raise _wrong(path, mistakes)
    return found


def _wrong(path: Path, mistakes: list[Mistake]) -> Invalid:
    listing = "\n".join(f"  {mistake}" for mistake in sorted(mistakes, key=lambda m: m.line))
    return Invalid(S("The recipe {path} can't be used:\n{mistakes}", path=str(path), mistakes=listing))
