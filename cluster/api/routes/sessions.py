"""Sessions, their output, why they wait, when one would start."""

from typing import Annotated

from fastapi import APIRouter, Query

from cluster.api.asking import Asking, TheCore
from cluster.models import EstimateStart, Explanation, LogPage, Page, Session, StartEstimate
from cluster.reads import SessionQuery

router = APIRouter(tags=["sessions"])


@router.get("/v1/sessions")
async def sessions(core: TheCore, user: Asking, query: Annotated[SessionQuery, Query()]) -> Page[Session]:
    return await core.reads.sessions(user, query)


@router.get("/v1/sessions/{ref}")
async def session(core: TheCore, user: Asking, ref: str) -> Session:
    return await core.reads.session(user, ref)


@router.get("/v1/sessions/{ref}/logs")
async def logs(
    core: TheCore,
    user: Asking,
    ref: str,
    tail: Annotated[int | None, Query(ge=1, le=100_000)] = None,
    offset: Annotated[int | None, Query(ge=0, le=2**53)] = None,
) -> LogPage:
    return await core.reads.logs(user, ref, tail, offset)


@router.get("/v1/sessions/{ref}/explanation")
async def explanation(core: TheCore, user: Asking, ref: str) -> Explanation:
    return await core.reads.explain(user, ref)


@router.post("/v1/estimates")
async def estimate(core: TheCore, user: Asking, ask: EstimateStart) -> StartEstimate:
    """When such a session would start; nothing is submitted."""
    return await core.reads.estimate(user, ask)
