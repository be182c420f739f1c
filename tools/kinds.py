"""The kinds of values that arguments have: what a raw value is read as, before a tool sees it.

A kind is a marker on the type (`Annotated[str, Kind("size")]`); `tools.resolve` reads it, pydantic does not.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args, get_origin

from pydantic import Field
from pydantic.fields import FieldInfo

from tools.linking.quantities import Measure

Noun = Literal[
    "session",
    "live_session",
    "node",
    "user",
    "project",
    "folder",
    "trashed_folder",
    "image",
    "resource_group",
    "gpu_model",
    "model",
    "endpoint",
    "pipeline",
    "run",
    "target",
    "tool",
]
"""What a name names. `target` is anything that events happen to; `tool` is an operation in the audit log."""


@dataclass(frozen=True)
class Kind:
    """How one value is read.

    `of` says what a `name` names; `bare` is the unit of a `duration` that is a number alone, as people write it there
    (`--time=90` is minutes). `since` is a duration back from now, or a time. `measure` says what a `quantity` counts.
    """

    kind: Literal["name", "text", "size", "duration", "time", "since", "quantity"]
    of: Noun | None = None
    bare: Literal["s", "m"] | None = None
    measure: Measure | None = None


_NAME = Field(min_length=1, max_length=200)

SessionName = Annotated[str, Kind("name", "session"), _NAME]
LiveSessionName = Annotated[str, Kind("name", "live_session"), _NAME]
NodeName = Annotated[str, Kind("name", "node"), _NAME]
UserName = Annotated[str, Kind("name", "user"), _NAME]
ProjectName = Annotated[str, Kind("name", "project"), _NAME]
FolderName = Annotated[str, Kind("name", "folder"), _NAME]
TrashedFolderName = Annotated[str, Kind("name", "trashed_folder"), _NAME]
ImageName = Annotated[str, Kind("name", "image"), _NAME]
GroupName = Annotated[str, Kind("name", "resource_group"), _NAME]
GpuModel = Annotated[str, Kind("name", "gpu_model"), _NAME]
ModelName = Annotated[str, Kind("name", "model"), _NAME]
EndpointName = Annotated[str, Kind("name", "endpoint"), _NAME]
PipelineName = Annotated[str, Kind("name", "pipeline"), _NAME]
RunName = Annotated[str, Kind("name", "run"), _NAME]
TargetName = Annotated[str, Kind("name", "target"), _NAME]
ToolName = Annotated[str, Kind("name", "tool"), _NAME]
Text = Annotated[str, Kind("text"), Field(max_length=2000)]
NewName = Annotated[str, Kind("text"), Field(min_length=1, max_length=100)]
Size = Annotated[str, Kind("size"), Field(pattern=r"^\d+(\.\d+)?[kmgtp]$", max_length=20)]
Duration = Annotated[str, Kind("duration", bare="m"), Field(pattern=r"^\d+(\.\d+)?[smhd]$", max_length=20)]
Grace = Annotated[str, Kind("duration", bare="s"), Field(pattern=r"^\d+(\.\d+)?[smhd]$", max_length=20)]
Count = Annotated[str, Kind("quantity", measure="count"), Field(pattern=r"^\d+(\.\d+)?[kmbt]$", max_length=24)]
Money = Annotated[str, Kind("quantity", measure="money"), Field(pattern=r"^\d+ (USD|KRW|EUR)$", max_length=24)]
Power = Annotated[str, Kind("quantity", measure="power"), Field(pattern=r"^\d+(\.\d+)?kW$", max_length=24)]
When = Annotated[str, Kind("time"), Field(max_length=40)]
Since = Annotated[str, Kind("since"), Field(max_length=40)]
Limit = Annotated[int, Field(ge=1, le=1000)]
Amount = Annotated[float, Field(ge=0, le=100_000)]

SessionKind = Literal["interactive", "batch", "inference", "system"]


@dataclass(frozen=True)
class Shape:
    """What an argument's type says, laid open for reading raw values."""

    kind: Kind | None
    container: Literal["one", "list", "map"]
    base: type | None
    """`int`, `float` or `bool` for such values."""
    choices: tuple[str, ...] = ()


def shape_of(field: FieldInfo) -> Shape:
    """The shape of one argument."""
    parts = list(_walk(field.annotation))
    kinds = [p for p in [*parts, *field.metadata] if isinstance(p, Kind)]
    origins = {get_origin(p) for p in parts}
    container: Literal["one", "list", "map"] = "list" if list in origins else "map" if dict in origins else "one"
    choices = next((get_args(p) for p in parts if get_origin(p) is Literal), ())
    base = next((p for p in parts if p in (bool, int, float)), None)
    return Shape(kinds[0] if kinds else None, container, base, choices)


def _walk(annotation: object) -> list[object]:
    """The annotation and everything inside it, markers included."""
    if get_origin(annotation) is Literal:
        return [annotation]
    return [annotation, *(inner for part in get_args(annotation) for inner in _walk(part))]
