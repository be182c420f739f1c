"""The tools that are built, against the contract's table."""

from typing import Any

import pytest

from tools import planned
from tools.base import Context, Tool
from tools.catalogue import catalogue
from tools.kinds import Shape, shape_of
from tools.registry import default_registry, describe

TOOLS = list(default_registry())
EXTRA = {"resume_pipeline_run"}
"""Beyond the contract: what a user would expect next to what is in it. G does not know them."""
CONTRACT = [tool for tool in TOOLS if tool.name not in EXTRA]
OPTIONAL_HERE = {("start_session", "image")}
"""Required by the contract; optional as long as a node can run a plain command."""


@pytest.mark.parametrize("tool", CONTRACT, ids=lambda t: t.name)
def test_a_tool_has_the_arguments_and_the_risk_of_the_contract(tool: Tool[Any]) -> None:
    row = catalogue()[tool.name]
    assert tool.risk == row.risk
    assert list(tool.arguments.model_fields) == [a.name for a in row.arguments]
    for argument in row.arguments:
        field = tool.arguments.model_fields[argument.name]
        expected = argument.required and (tool.name, argument.name) not in OPTIONAL_HERE
        assert field.is_required() == expected, argument.name
        assert shape_of(field).choices == argument.choices, argument.name


@pytest.mark.parametrize("tool", CONTRACT, ids=lambda t: t.name)
def test_an_argument_is_read_as_the_kind_that_the_contract_says(tool: Tool[Any]) -> None:
    for argument in catalogue()[tool.name].arguments:
        shape = shape_of(tool.arguments.model_fields[argument.name])
        assert _word(shape) in _allowed(argument.kind), argument.name


def _word(shape: Shape) -> str:
    if shape.container != "one":
        return shape.container
    if shape.choices:
        return "enum"
    return shape.base.__name__ if shape.base else shape.kind.kind if shape.kind else "?"


def _allowed(kind: str) -> set[str]:
    same = {"integer": {"int"}, "number": {"float"}, "time": {"time", "since"}, "name": {"name", "text"}}
    return same.get(kind, {kind})


def test_every_tool_of_the_first_issue_is_there() -> None:
    wanted = [
        "list_sessions",
        "get_session",
        "start_session",
        "terminate_sessions",
        "get_session_logs",
        "explain_pending",
        "list_nodes",
        "get_node",
        "cordon_node",
        "uncordon_node",
        "drain_node",
        "get_cluster_status",
        "list_folders",
        "create_folder",
        "delete_folder",
        "restore_folder",
        "get_quota",
        "undo",
    ]
    assert [name for name in wanted if default_registry().get(name) is None] == []


def test_every_tool_is_described_and_its_strings_are_bounded() -> None:
    for schema in default_registry().schemas():
        assert len(schema["description"]) > 20, schema["name"]
        assert _unbounded(schema["parameters"]) == [], schema["name"]


def _unbounded(schema: dict[str, Any]) -> list[str]:
    """Strings without a limit, maps of strings excepted."""
    found = []
    for name, spec in schema.get("properties", {}).items():
        for part in [spec, *spec.get("anyOf", []), spec.get("items", {})]:
            if part.get("type") == "string" and not {"maxLength", "pattern", "enum"} & set(part):
                found.append(name)
    return found


def test_a_tool_of_the_contract_that_is_not_built_says_so_in_its_own_words(ctx: Context) -> None:
    registry = default_registry()
    planned = [name for name in catalogue() if registry.get(name) is None]
    said = {name: registry.absent(name, ctx) for name in planned}
    assert said["start_finetune"].answer == "Helmsman can't fine-tune models yet."
    assert all(registry.is_planned(name) and r.status == "refused" for name, r in said.items())
    assert len({r.answer for r in said.values()}) == len(planned)


def test_a_name_that_no_catalogue_has_is_refused(ctx: Context) -> None:
    result = default_registry().absent("make_coffee", ctx)
    assert result.answer == "Helmsman has no tool make_coffee."
    assert result.reasons[0].code == "not_found"


def test_descriptions_are_whole_sentences() -> None:
    assert all(describe(tool).endswith(".") for tool in TOOLS)


def test_nothing_is_said_to_be_missing_that_is_there() -> None:
    assert not set(planned._NOT_YET) & {tool.name for tool in default_registry()}
