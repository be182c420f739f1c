"""Endpoints, and the way to their replicas."""

from typing import Annotated
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Query
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from cluster.api.asking import Asking, Limit, TheCore, person
from cluster.api.problems import problem
from cluster.core import Core
from cluster.errors import Unavailable
from cluster.models import Endpoint, Page, ScalingDecision
from cluster.sentence import S
from cluster.serving.proxy import RETRY_AFTER, Busy
from cluster.serving.reads import EndpointQuery

router = APIRouter(tags=["endpoints"])
SERVE = "/serve"
"""Below it: `/serve/{endpoint}/{path}`."""


@router.get("/v1/endpoints")
async def endpoints(core: TheCore, user: Asking, query: Annotated[EndpointQuery, Query()]) -> Page[Endpoint]:
    return await core.serving.endpoints.all(user, query)


@router.get("/v1/endpoints/{ref}")
async def endpoint(core: TheCore, user: Asking, ref: str) -> Endpoint:
    return await core.serving.endpoints.one(user, ref)


@router.get("/v1/endpoints/{ref}/decisions")
async def decisions(core: TheCore, user: Asking, ref: str, limit: Limit = 50) -> Page[ScalingDecision]:
    """The autoscaler's, newest first, with all that each followed from."""
    return await core.serving.endpoints.decisions_of(user, ref, limit)


async def serve(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI application: a request for a replica of an endpoint. Websockets are not passed on."""
    if scope["type"] != "http":
        await send({"type": "websocket.close", "code": 1003})
        return
    core: Core = scope["app"].state.core
    user = await person(core, Headers(scope=scope).get("authorization", ""))
    if core.simulated:  # its replicas have no address; what listens on these ports is somebody else's
        raise Unavailable(S("This cluster is simulated; its endpoints answer no requests."))
    name, rest = _parts(scope)
    try:
        await core.serving.proxy.answer(user, name, rest, scope, receive, send)
    except Busy as e:
        refusal = problem(e)
        refusal.headers["Retry-After"] = str(RETRY_AFTER)
        await refusal(scope, receive, send)


def _parts(scope: Scope) -> tuple[str, bytes]:
    """The endpoint's name, and the path below it as it was written."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    name, slash, rest = path.partition(b"?")[0].split(b"/", 2)[2].partition(b"/")
    return unquote_to_bytes(name).decode(errors="replace"), slash + rest
