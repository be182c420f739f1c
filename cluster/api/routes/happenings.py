"""The journal, and events."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sse_starlette.sse import EventSourceResponse

from cluster.api.asking import Asking, TheCore
from cluster.core import Core
from cluster.journal.reads import AuditQuery, EventQuery
from cluster.models import AuditEntry, Event, JournalCheck, Page, User

router = APIRouter(tags=["happenings"])


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


@router.get("/v1/events/stream")
async def stream(core: TheCore, user: Asking, after: Annotated[int, Query(ge=0, le=2**53)] = 0) -> EventSourceResponse:
    """Server-sent events, from the one after `after` on, as they are committed."""
    return EventSourceResponse(_follow(core, user, after))


async def _follow(core: Core, user: User, after: int) -> AsyncIterator[dict[str, Any]]:
    while True:
        page = await core.journal.events(user, EventQuery(after=after, limit=200))
        for event in page.items:
            after = event.seq
            yield {"id": str(event.seq), "event": event.kind, "data": event.model_dump_json()}

        async def more(seen: int = after) -> bool:
            return bool((await core.journal.events(user, EventQuery(after=seen, limit=1))).items)

        await core.wait_for(more, 15)
