"""Tools and results in the protocol's shapes. Pure."""

import json
from typing import Any

from mcp_types import Annotations, CallToolResult, TextContent, ToolAnnotations
from mcp_types import Tool as Offered

from helmsman.render.clean import clean
from tools.base import Result, Risk
from tools.registry import Registry, describe


def offered(registry: Registry) -> list[Offered]:
    """Every tool of the catalogue."""
    return [
        Offered(name=tool.name, description=describe(tool), input_schema=tool.schema(), annotations=hints(tool.risk))
        for tool in registry
    ]


def hints(risk: Risk) -> ToolAnnotations:
    """What a client may tell its person before the call; what is asked does not hang on it."""
    return ToolAnnotations(
        read_only_hint=risk is Risk.R,
        destructive_hint=risk is Risk.D,
        idempotent_hint=risk is Risk.R,
        open_world_hint=False,
    )


def returned(result: Result) -> CallToolResult:
    """The answer for people, and what a model reads: `data`, structured and as JSON text for clients without."""
    data: dict[str, Any] = dict(result.data)
    answer = TextContent(text=clean(result.answer), annotations=Annotations(audience=["user", "assistant"]))
    as_text = TextContent(text=json.dumps(data, ensure_ascii=False), annotations=Annotations(audience=["assistant"]))
    return CallToolResult(content=[answer, as_text], structured_content=data, is_error=result.status != "done")


def broken(why: str) -> CallToolResult:
    """A call that ended in an error of the cluster's."""
    return CallToolResult(
        content=[TextContent(text=clean(why))], structured_content={"status": "failed", "message": why}, is_error=True
    )
