"""The API's own description: names of operations, who may call, and what an error looks like on every route."""

import warnings
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from cluster.api.problems import PROBLEM, Problem

ABOUT = """The cluster's API. Reads are resources; everything that changes something is a typed operation for
`POST /v1/operations`, which shows with `dry_run` what it would do. A refusal is an outcome with reasons.

Every error is an RFC 9457 document (`application/problem+json`)."""
SECURITY = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A person's token, or the agents' for what agents call.",
    }
}
SAID = {
    "401": "The token is missing or not known.",
    "403": "Who asks may not do this.",
    "404": "Nothing has this name or id, as far as who asks may see.",
    "413": "The body is too large.",
    "422": "The request can't be read, or makes no sense.",
    "default": "Any other error.",
}


def operation_id(route: APIRoute) -> str:
    """Stable and readable: the subject and the route's function, `sessions_logs`."""
    subject = str(route.tags[0]) if route.tags else "other"
    return route.name if route.name.startswith(subject) else f"{subject}_{route.name}"


def describe(app: FastAPI) -> None:
    """Have `app.openapi()` say all of it."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _described(app: FastAPI) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of routes with several methods; `_named` tells these apart
        spec = get_openapi(title=app.title, version=app.version, description=ABOUT, routes=app.routes)
    _named(spec)
    parts = spec.setdefault("components", {})
    parts["securitySchemes"] = SECURITY
    shapes = parts.setdefault("schemas", {})
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    shapes |= {**problem.pop("$defs", {}), "Problem": problem}
    for operation in _operations(spec):
        _secured(operation)
        _with_errors(operation)
    _tagged(spec, spec)
    for unused in ("HTTPValidationError", "ValidationError"):
        shapes.pop(unused, None)
    return spec


def _named(spec: dict[str, Any]) -> None:
    """Several methods of one route: with the method, but for the first of GET and POST."""
    for path in spec.get("paths", {}).values():
        seen: set[str] = set()
        for method in sorted(path, key=lambda method: (method not in ("get", "post"), method)):
            name = path[method]["operationId"]
            path[method]["operationId"] = f"{name}_{method}" if name in seen else name
            seen.add(name)


def _operations(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in spec.get("paths", {}).values():
        yield from (operation for method, operation in path.items() if method != "parameters")


def _tagged(spec: dict[str, Any], part: Any) -> None:
    """What tells the kinds of a union apart has a default in ours, and must be sent all the same."""
    if isinstance(part, list):
        for each in part:
            _tagged(spec, each)
    if not isinstance(part, dict):
        return
    if isinstance(tag := part.get("discriminator"), dict):
        for reference in tag.get("mapping", {}).values():
            shape = spec["components"]["schemas"][reference.rpartition("/")[2]]
            shape["required"] = sorted({*shape.get("required", ()), tag["propertyName"]})
    for each in part.values():
        _tagged(spec, each)


def _secured(operation: dict[str, Any]) -> None:
    """The header with the token is a security scheme, not a parameter."""
    parameters = operation.get("parameters", [])
    kept = [p for p in parameters if (p.get("in"), str(p.get("name")).lower()) != ("header", "authorization")]
    if len(kept) < len(parameters):
        operation["security"] = [{"bearer": []}]
    if kept:
        operation["parameters"] = kept
    else:
        operation.pop("parameters", None)


def _with_errors(operation: dict[str, Any]) -> None:
    responses = operation.setdefault("responses", {})
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    for status in _errors(operation):
        content = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        responses.setdefault(status, {"description": SAID[status], "content": content})


def _errors(operation: dict[str, Any]) -> Iterator[str]:
    """The errors that it can have."""
    parameters = operation.get("parameters", [])
    if operation.get("security"):
        yield from ("401", "403")
    if any(p.get("in") == "path" for p in parameters):
        yield "404"
    if "requestBody" in operation:
        yield "413"
    if parameters or "requestBody" in operation:
        yield "422"
    yield "default"
