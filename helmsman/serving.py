"""G behind an OpenAI-compatible API: `python -m helmsman.serving --port N [--host H] [--weights DIR] [--name NAME]`.

    POST /v1/chat/completions   stream and not; `tools`: those of Helmsman's that may be called
    GET  /v1/models, /health    it answers only once G is loaded

G answers with calls of Helmsman's tools. Where the request offers none, they are written out as text. One answer is
made at a time, in a thread; those that wait hold no thread, and one whose caller has gone is given up.
"""

import argparse
import asyncio
import json
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import structlog
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from helmsman.completions import Ask, BadAsk, Completion, Said, offered, to_turns
from helmsman.prompts import Answer, Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

log = structlog.get_logger(__name__)
MOST_BODY = 2 * 2**20
"""Bytes of a request; G reads a thousand tokens of it at most."""
MOST_WAITING = 256
"""Requests that may wait for their turn; the next one is told to come back later."""
LOOK = 0.5
"""Seconds between two looks whether the caller is still there."""


class Answers(Protocol):
    """What makes an answer: G, or a stand-in for tests."""

    def generate(
        self, turns: "Sequence[Turn]", cancel: threading.Event | None = None, offered: frozenset[str] | None = None
    ) -> Answer:
        """See `helmsman.models.g.G`. May be called from any thread."""

    def length(self, turns: "Sequence[Turn]") -> int:
        """How many tokens it reads for that."""


class Busy(Exception):
    """Too many wait already."""


class Line:
    """Those who want an answer, one after the other."""

    def __init__(self, model: Answers, most: int = MOST_WAITING) -> None:
        self._model = model
        self._most = most
        self._turn = asyncio.Lock()
        self.waiting = 0

    async def say(self, turns: list[Turn], tools: frozenset[str] | None) -> Said:
        """What it answers, when it is its turn. Cancelled: G stops at the next token. Raises `Busy`."""
        if not turns:
            return Said()
        if self.waiting >= self._most:
            raise Busy
        self.waiting += 1
        cancel = threading.Event()
        try:
            async with self._turn:
                return await asyncio.to_thread(self._said, turns, cancel, tools)
        finally:
            cancel.set()
            self.waiting -= 1

    def _said(self, turns: list[Turn], cancel: threading.Event, tools: frozenset[str] | None) -> Said:
        return Said(self._model.generate(turns, cancel, tools), self._model.length(turns))


def create_app(model: Answers, name: str = "g", most_waiting: int = MOST_WAITING) -> FastAPI:
    """The API of `model`, which is called `name`."""
    app = FastAPI(title="Helmsman's G", version="1", docs_url=None, redoc_url=None)
    _add_errors(app)
    line = Line(model, most_waiting)
    about = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "helmsman"}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [about]}

    @app.get("/v1/models/{model_id:path}")
    async def one_model(model_id: str) -> dict[str, Any]:
        _must_be(name, model_id)
        return about

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(request: Request) -> JSONResponse | StreamingResponse:
        ask = Ask.read(await _body(request))
        _must_be(name, ask.model)
        saying = asyncio.create_task(line.say(to_turns(ask.messages), offered(ask)))
        head = Completion(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), name)
        if ask.stream:
            return StreamingResponse(_stream(request, ask, saying, head), media_type="text/event-stream")
        return JSONResponse(head.whole(ask, await _while_heard(request, saying)))

    return app


async def _stream(request: Request, ask: Ask, saying: asyncio.Task[Said], head: Completion) -> AsyncIterator[str]:
    """Server-sent events; that the answer has begun is said at once."""
    yield _event(head.first())
    try:
        said = await _while_heard(request, saying)
    except Busy:
        yield _event(_BUSY)
    except HTTPException:
        return  # nobody hears it
    except Exception:
        log.exception("the model failed")
        yield _event(_BUG)
    else:
        for chunk in head.rest(ask, said):
            yield _event(chunk)
        yield "data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


async def _while_heard(request: Request, saying: asyncio.Task[Said]) -> Said:
    """What is said, given up when the caller has gone."""
    try:
        while not (await asyncio.wait([saying], timeout=LOOK))[0]:
            if await request.is_disconnected():
                raise HTTPException(499, "The caller has gone.")
        return saying.result()
    finally:
        saying.cancel()


async def _body(request: Request) -> bytes:
    """All of it, if that is not too much."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BODY:
            raise HTTPException(413, f"The request is larger than {MOST_BODY} bytes.")
    return bytes(body)


def _must_be(name: str, asked: str) -> None:
    if asked != name:
        raise BadAsk(
            f"The model {asked[:100]!r} is not served here; ask for {name!r}.", "model", 404, "model_not_found"
        )


# ── errors, in OpenAI's shape ────────────────────────────────────────────────────────────────────


def _error(message: str, kind: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


_BUSY = _error("Too many requests wait already; try again in a moment.", "rate_limit_error")
_BUG = _error("The model failed; its server's output says why.", "server_error")


def _add_errors(app: FastAPI) -> None:
    def bad(_: Request, e: Exception) -> JSONResponse:
        assert isinstance(e, BadAsk)
        return JSONResponse(_error(str(e), "invalid_request_error", e.param, e.code), e.status)

    def busy(_: Request, e: Exception) -> JSONResponse:
        return JSONResponse(_BUSY, 429, {"Retry-After": "1"})

    def http(_: Request, e: Exception) -> JSONResponse:
        assert isinstance(e, HTTPException)
        return JSONResponse(_error(str(e.detail), "invalid_request_error"), e.status_code, e.headers)

    def bug(_: Request, e: Exception) -> JSONResponse:
        return JSONResponse(_BUG, 500)

    app.add_exception_handler(BadAsk, bad)
    app.add_exception_handler(Busy, busy)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, bug)


# ── the process ──────────────────────────────────────────────────────────────────────────────────


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; what runs is finished then. Exit 1 with one sentence when it can't begin."""
    parser = argparse.ArgumentParser(prog="python -m helmsman.serving", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1", help="where it listens (default: this machine only)")
    parser.add_argument("--weights", type=Path, help="the model's directory (default: the one that ships)")
    parser.add_argument("--name", default="g", help="what it is called in requests (default: g)")
    told = parser.parse_args()
    # uvicorn ends in order and then raises the signal again, which must not look like a crash
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        from helmsman.models.g import SHIPPED, G

        listener = _listen(told.host, told.port)
        app = create_app(G.load(told.weights or SHIPPED), told.name)
    except (OSError, ImportError, RuntimeError, ValueError, KeyError) as e:
        print(f"G can't be served: {e}", file=sys.stderr)  # noqa: T201 - the one sentence for whoever started us
        return 1
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Bound, so that a port that is taken is said before the model is loaded. Raises `OSError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as e:
        listener.close()
        raise OSError(f"port {port} of {host} can't be used ({e.strerror or e}); choose another with --port") from e
    return listener


if __name__ == "__main__":
    sys.exit(main())
