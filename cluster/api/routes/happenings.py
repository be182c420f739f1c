"""The journal, and events."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sse_starlette.sse import EventSourceResponse

from cluster.api.asking import Asking, Limit, TheCore
from cluster.core import Core
from cluster.models import AuditEntry, Event, Page, User

router = APIRouter(tags=["happenings"])


@router.get("/v1/audit")
async def audit(
    core: TheCore, asking: Asking, user: str | None = None, action: str | None = None, limit: Limit = 50
) -> Page[AuditEntry]:
    return await core.journal.audit(asking, user, action, limit)


@router.get("/v1/events")
async def events(
    core: TheCore, user: Asking, after: Annotated[int, Query(ge=-1, le=2**53)] = 0, limit: Limit = 200
) -> Page[Event]:
    return await core.journal.events(user, after, limit)


@router.get("/v1/events/stream")
async def stream(core: TheCore, user: Asking, after: Annotated[int, Query(ge=0, le=2**53)] = 0) -> EventSourceResponse:
    """Server-sent events, from the one after `after` on, as they are committed."""
    return EventSourceResponse(_follow(core, user, after))


async def _follow(core: Core, user: User, after: int) -> AsyncIterator[dict[str, Any]]:
    while True:
        page = await core.journal.events(user, after, 200)
        for event in page.items:
            after = event.seq
            yield {"id": str(event.seq), "event": event.kind, "data": event.model_dump_json()}

        async def more(seen: int = after) -> bool:
            return bool((await core.journal.events(user, seen, 1)).items)

        await core.wait_for(more, 15)
