"""The journal, and events."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from pydantic import Field
from sse_starlette.sse import EventSourceResponse
from starlette.types import Receive, Scope, Send

from cluster.api.asking import Asking, TheCore
from cluster.api.limits import Streams
from cluster.core import Core
from cluster.errors import ClusterError, Invalid
from cluster.journal.reads import AuditQuery, EventFilter, EventQuery
from cluster.models import AuditEntry, Event, JournalCheck, Page, User
from cluster.sentence import S

router = APIRouter(tags=["happenings"])
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
}
MOST = 200
"""Events that a stream holds for its reader; it asks for more when these are gone."""
LOOK = 15.0
"""Seconds after which a stream looks whether its reader may still see what it sends."""
STREAMS = 20
"""Streams that one person may have open at once."""
SLOW = 60.0
"""Seconds that a reader may take to accept one event."""


class StreamQuery(EventFilter):
    """Filters of GET /v1/events/stream."""

    after: int = Field(default=0, ge=0, le=2**53)
    """Those with a higher `seq`."""


@router.get("/v1/audit")
async def audit(core: TheCore, asking: Asking, query: Annotated[AuditQuery, Query()]) -> Page[AuditEntry]:
    """Who did what, on which, with what result; newest first. What was refused is there too."""
    return await core.journal.audit(asking, query)


@router.get("/v1/audit/verify")
async def verify_audit(
    core: TheCore, asking: Asking, newest: str | None = None, known: str | None = None
) -> JournalCheck:
    """Whether the journal is what was written; an admin's. `newest` and `known`: an audit id and the hash that it had,
    as they were kept elsewhere."""
    return await core.journal.verify(asking, newest, known)


@router.get("/v1/events")
async def events(core: TheCore, user: Asking, query: Annotated[EventQuery, Query()]) -> Page[Event]:
    """What happened, oldest first."""
    return await core.journal.events(user, query)


@router.get("/v1/events/stream", response_class=EventSourceResponse, responses=STREAM)
async def stream(
    core: TheCore,
    user: Asking,
    request: Request,
    query: Annotated[StreamQuery, Query()],
    last_event_id: Annotated[str | None, Header(description="As `after`; a browser that reconnects sends it.")] = None,
) -> EventSourceResponse:
    """Server-sent events, from the one after `after` on, as they are committed; none is left out, none comes twice.

    At most 20 at once a person."""
    after = query.after if last_event_id is None else _number(last_event_id)
    begun = await core.journal.following(user, query, after, MOST)  # what goes wrong here is still told as a problem
    token = request.headers["authorization"].partition(" ")[2]
    streams: Streams = request.app.state.streams
    streams.take(user.name)
    return _Counted(lambda: streams.give_back(user.name), _follow(core, token, query, *begun), send_timeout=SLOW)


class _Counted(EventSourceResponse):
    """Tells when it is over, however it ends: a generator that was never begun could not."""

    def __init__(self, over: Callable[[], None], *said: Any, **more: Any) -> None:
        super().__init__(*said, **more)
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._over()


def _number(said: str) -> int:
    if not (said.isascii() and said.isdigit() and len(said) <= 15):
        raise Invalid(S("Last-Event-ID is {said}, and must be the number of an event.", said=said[:40]))
    return int(said)


async def _follow(
    core: Core, token: str, query: EventFilter, page: list[Event], seen: int
) -> AsyncIterator[dict[str, Any]]:
    while True:
        for event in page:
            yield {"id": str(event.seq), "event": event.kind, "data": event.model_dump_json()}

        async def more(seen: int = seen) -> bool:
            return core.draft.newest_event > seen

        await core.wait_for(more, LOOK)
        try:
            page, seen = await core.journal.following(await _reader(core, token), query, seen, MOST)
        except ClusterError:  # they may not see it any more; or the database can't be read, and they will ask again
            return


async def _reader(core: Core, token: str) -> User:
    """Whose token it is now: it may have been revoked, and they may be in other projects, since the stream began."""
    return await core.user(await core.owner_of(token))
