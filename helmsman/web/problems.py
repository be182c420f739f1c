"""Errors on their way out: RFC 9457 problems whose detail is the sentence that the terminal would say."""

from starlette.requests import Request
from starlette.responses import JSONResponse

from cluster.errors import ClusterError
from cluster.sentence import S, Sentence
from helmsman.errors import Busy, HelmsmanError, ModelUnavailable, Stale
from helmsman.web.messages import Problem
from tools.words import Language, say

_TITLES = {
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    409: "Conflict",
    413: "Too large",
    422: "Invalid",
}
_HELMSMAN: dict[type[HelmsmanError], tuple[int, str]] = {
    Busy: (409, "busy"),
    Stale: (409, "stale"),
    ModelUnavailable: (503, "model_unavailable"),
}
_UNEXPECTED = S("Something went wrong in Helmsman that it did not expect. Its log has the details.")


def describe(error: Exception) -> tuple[int, str, Sentence]:
    """Status, stable code and sentence of an error. What is not ours says nothing of its inside."""
    if isinstance(error, ClusterError):
        return error.status, error.code, error.sentence
    if isinstance(error, HelmsmanError):
        status, code = _HELMSMAN.get(type(error), (500, "helmsman"))
        return status, code, error.sentence
    return 500, "internal", _UNEXPECTED


def as_problem(status: int, code: str, sentence: Sentence, language: Language = "en") -> Problem:
    """The body of a problem."""
    title = _TITLES.get(status, "Failed")
    return Problem(title=title, status=status, code=code, detail=say(sentence, language), sentence=sentence)


def reader(request: Request) -> Language:
    """The language of the page that asks: the browser says it with every request."""
    return "ko" if request.headers.get("accept-language", "").lower().startswith("ko") else "en"


def problem(status: int, code: str, sentence: Sentence, request: Request) -> JSONResponse:
    """The response of a problem."""
    body = as_problem(status, code, sentence, reader(request)).model_dump(mode="json")
    return JSONResponse(body, status, media_type="application/problem+json")


async def on_error(request: Request, error: Exception) -> JSONResponse:
    """Exception handler for our two families of errors."""
    status, code, sentence = describe(error)
    return problem(status, code, sentence, request)
