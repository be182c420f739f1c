"""The routes: thin over `helmsman.conversation.Conversation`. Any face in a browser sits on these."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from cluster.errors import ClusterError
from cluster.models import Names
from cluster.sentence import S
from helmsman.conversation import Conversation
from helmsman.errors import HelmsmanError
from helmsman.events import Event
from helmsman.web.conversations import Conversations, Opened
from helmsman.web.gate import Gate, Key
from helmsman.web.messages import Line, Problem, Taken, Thread, ThreadOpened, Verdict
from helmsman.web.problems import on_error, problem, reader
from helmsman.web.turns import Item, Live, Turns
from tools.words import Language, say

FACE = "web"
RETRY_MS = 1000
"""How soon a browser comes again after its stream ended."""
STATIC = Path(__file__).parent / "static"
PROBLEMS: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (401, 403, 404, 409, 422, 503)}


def create_web(conversations: Conversations, key: Key, turns: Turns | None = None) -> ASGIApp:
    """The whole web application. Nothing of it answers without the cookie that `key`'s ticket is exchanged for."""
    app = FastAPI(
        title="Helmsman",
        docs_url=None,  # it loads its assets from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
        responses=PROBLEMS,
        lifespan=_lifespan,
    )
    app.state.conversations = conversations
    app.state.opened = Opened(conversations)
    app.state.turns = turns or Turns()
    app.add_exception_handler(HelmsmanError, on_error)
    app.add_exception_handler(ClusterError, on_error)
    app.add_exception_handler(Exception, on_error)
    app.add_exception_handler(RequestValidationError, _on_unreadable)
    app.add_exception_handler(HTTPException, _on_no_route)
    _add_routes(app)
    return Gate(app, key)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await app.state.turns.close()


def _add_routes(app: FastAPI) -> None:
    app.add_api_route("/", _page, include_in_schema=False)
    app.add_api_route("/api/threads", _threads, methods=["GET"])
    app.add_api_route("/api/threads", _new_thread, methods=["POST"], status_code=201)
    app.add_api_route("/api/threads/{thread}/events", _events, response_class=EventSourceResponse, responses=_STREAM)
    app.add_api_route("/api/threads/{thread}/send", _send, methods=["POST"], status_code=202)
    app.add_api_route("/api/threads/{thread}/decide", _decide, methods=["POST"], status_code=202)
    app.add_api_route("/api/threads/{thread}/stop", _stop, methods=["POST"], status_code=202)
    app.add_api_route("/api/names", _names)
    app.mount("/static", StaticFiles(directory=STATIC))


def _all(request: Request) -> Conversations:
    conversations: Conversations = request.app.state.conversations
    return conversations


def _running(request: Request) -> Turns:
    turns: Turns = request.app.state.turns
    return turns


All = Annotated[Conversations, Depends(_all)]
Running = Annotated[Turns, Depends(_running)]


async def _one(thread: str, request: Request) -> Conversation:
    opened: Opened = request.app.state.opened
    return await opened.get(thread)


One = Annotated[Conversation, Depends(_one)]


async def _page() -> FileResponse:
    return FileResponse(STATIC / "index.html")


async def _threads(conversations: All) -> list[Thread]:
    """Past conversations, newest first."""
    known = await conversations.threads()
    return [Thread(id=t.id, title=t.title, updated=t.updated, turns=t.turns) for t in known]


async def _new_thread(request: Request) -> ThreadOpened:
    """Begin a conversation. It is in the list from its first line on."""
    opened: Opened = request.app.state.opened
    conversation = await opened.begin()
    return ThreadOpened(id=conversation.thread)


async def _events(
    request: Request,
    conversation: One,
    turns: Running,
    after: Annotated[int, Query(ge=0)] = 0,
    last_event_id: Annotated[int, Header(ge=0)] = 0,
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events. `message`: an `Event`; its id is its seq, so that a browser that reconnects goes on there.
    `live`: everything stored has been sent. `problem`: a turn taken here failed (a `Problem`)."""
    async for item in turns.stream(conversation, max(after, last_event_id)):
        yield _frame(item, reader(request))


def _frame(item: Item, language: Language) -> ServerSentEvent:
    if isinstance(item, Live):
        return ServerSentEvent(event="live", data={}, retry=RETRY_MS)
    if isinstance(item, Problem):
        told = item.model_copy(update={"detail": say(item.sentence, language)})
        return ServerSentEvent(event="problem", data=told)
    return ServerSentEvent(id=str(item.seq), data=item)


async def _send(line: Line, conversation: One, turns: Running) -> Taken:
    """Take a line. 409 `busy` while another face's turn is running."""
    await turns.take(conversation.thread, conversation.send(line.text, FACE))
    return Taken(thread=conversation.thread)


async def _decide(verdict: Verdict, conversation: One, turns: Running) -> Taken:
    """Answer a plan. 409 `stale` when the question is closed or its plan has another digest."""
    turn = conversation.decide(
        verdict.question, verdict.digest, verdict.decision, FACE, comment=verdict.comment, edited=verdict.edited
    )
    await turns.take(conversation.thread, turn)
    return Taken(thread=conversation.thread)


async def _stop(conversation: One, turns: Running) -> Taken:
    """Stop the running turn; its end on the stream says what had already happened."""
    await turns.take(conversation.thread, conversation.stop())
    return Taken(thread=conversation.thread)


async def _names(conversations: All) -> Names:
    """What exists in the cluster, for completion."""
    return await conversations.names()


async def _on_unreadable(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
    return problem(422, "invalid", S("The request cannot be read ({wrong}). Reload the page.", wrong=wrong), request)


async def _on_no_route(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    known = {404: "not_found", 405: "method_not_allowed"}
    sentence = S("There is nothing at {path} ({detail}).", path=request.url.path, detail=str(error.detail))
    return problem(error.status_code, known.get(error.status_code, "failed"), sentence, request)


_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"model": Event, "content": {"text/event-stream": {}}, "description": "The thread's events."}
}
