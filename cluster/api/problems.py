"""Errors as RFC 9457 documents, with our members `code`, `sentence` and `candidates`."""

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cluster.errors import ClusterError, Conflict, Invalid, NotFound
from cluster.sentence import S

log = structlog.get_logger(__name__)
MOST_BODY = 8 * 2**20
"""Bytes of a request's body."""


def add_problems(app: FastAPI) -> None:
    """Whatever goes wrong in `app` is answered with a problem document."""
    app.add_exception_handler(ClusterError, _on_cluster_error)
    app.add_exception_handler(RequestValidationError, _on_bad_request)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)


def problem(e: ClusterError) -> JSONResponse:
    body = {
        "type": f"urn:helmsman:{e.code}",
        "title": e.code.replace("_", " "),
        "status": e.status,
        "detail": str(e),
        "code": e.code,
        "sentence": e.sentence.model_dump(),
        "candidates": e.candidates,
    }
    return JSONResponse(body, status_code=e.status, media_type="application/problem+json")


async def _on_cluster_error(_: Request, e: Exception) -> JSONResponse:
    assert isinstance(e, ClusterError)
    return problem(e)


async def _on_bad_request(_: Request, e: Exception) -> JSONResponse:
    assert isinstance(e, RequestValidationError)
    first = e.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return problem(Invalid(S("{where}: {why}.", where=where, why=str(first["msg"]))))


async def _on_http(request: Request, e: Exception) -> JSONResponse:
    """What the framework itself refuses."""
    assert isinstance(e, HTTPException)
    path, method = request.url.path, request.method
    match e.status_code:
        case 404:
            return problem(NotFound(S("This server has no {path}.", path=path)))
        case 405:
            return problem(Conflict(S("{path} can't be asked with {method}.", path=path, method=method)))
        case 413:
            return problem(too_large(MOST_BODY))
        case _:
            return problem(Invalid(S("The body of the request to {path} can't be read.", path=path)))


def too_large(most: int) -> Invalid:
    return Invalid(S("The request is larger than {most} bytes.", most=most))


async def _on_bug(request: Request, e: Exception) -> JSONResponse:
    """Not the caller's fault; the log has the traceback (Starlette raises it again for the server to write)."""
    log.error("request failed", method=request.method, path=request.url.path, why=repr(e))
    return problem(ClusterError(S("The server failed at {path}; its log says why.", path=request.url.path)))
