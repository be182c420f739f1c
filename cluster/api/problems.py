"""Errors as RFC 9457 documents, with our members `code`, `sentence` and `candidates`."""

from collections.abc import Mapping

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from cluster.errors import ClusterError, Conflict, Invalid, NotFound, TooMany
from cluster.sentence import S, Sentence

log = structlog.get_logger(__name__)
MOST_BODY = 8 * 2**20
"""Bytes of a request's body."""
PROBLEM = "application/problem+json"


class Problem(BaseModel):
    """An error, after RFC 9457."""

    type: str
    """A URN: `urn:helmsman:` and the code."""
    title: str
    status: int
    detail: str
    """The sentence in English."""
    code: str
    """Stable, for programs."""
    sentence: Sentence
    candidates: list[str] = []
    """The nearest names that exist, when a name was not found or fits several things."""


def add_problems(app: FastAPI) -> None:
    """Whatever goes wrong in `app` is answered with a problem document."""
    app.add_exception_handler(ClusterError, _on_cluster_error)
    app.add_exception_handler(RequestValidationError, _on_bad_request)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)


def problem(e: ClusterError, status: int | None = None, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The document of `e`; with another `status` where HTTP has one that is more exact."""
    status = status or e.status
    told = Problem(
        type=f"urn:helmsman:{e.code}",
        title=e.code.replace("_", " "),
        status=status,
        detail=str(e),
        code=e.code,
        sentence=e.sentence,
        candidates=e.candidates,
    )
    headers = {**(headers or {}), **({"WWW-Authenticate": "Bearer"} if status == 401 else {})}
    return JSONResponse(told.model_dump(), status_code=status, headers=headers, media_type=PROBLEM)


async def _on_cluster_error(_: Request, e: Exception) -> JSONResponse:
    assert isinstance(e, ClusterError)
    return problem(e)


async def _on_bad_request(_: Request, e: Exception) -> JSONResponse:
    assert isinstance(e, RequestValidationError)
    first = e.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return problem(Invalid(S("{where}: {why}.", where=where, why=str(first["msg"]))))


async def _on_http(request: Request, e: Exception) -> JSONResponse:
    """What the framework itself refuses, with its status."""
    assert isinstance(e, HTTPException)
    return problem(_of_http(e.status_code, request.url.path, request.method), e.status_code, e.headers)


def _of_http(status: int, path: str, method: str) -> ClusterError:
    match status:
        case 404:
            return NotFound(S("This server has no {path}.", path=path))
        case 405:
            return Conflict(S("{path} can't be asked with {method}.", path=path, method=method))
        case 413:
            return too_large(MOST_BODY)
        case 429:
            return TooMany(S("There were too many requests for {path}; wait a little.", path=path))
        case _ if status >= 500:
            return ClusterError(S("The server failed at {path}; its log says why.", path=path))
        case _:
            return Invalid(S("The body of the request to {path} can't be read.", path=path))


def too_large(most: int) -> Invalid:
    return Invalid(S("The request is larger than {most} bytes.", most=most))


async def _on_bug(request: Request, e: Exception) -> JSONResponse:
    """Not the caller's fault; the log has the traceback (Starlette raises it again for the server to write)."""
    log.error("request failed", method=request.method, path=request.url.path, why=repr(e))
    return problem(ClusterError(S("The server failed at {path}; its log says why.", path=request.url.path)))
