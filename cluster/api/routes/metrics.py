"""What Prometheus reads."""

from typing import Annotated

from fastapi import APIRouter, Header, Response

from cluster import access
from cluster.api.asking import Asking, TheCore

router = APIRouter(tags=["metrics"])
FORMATS = {"text/plain": {"schema": {"type": "string"}}, "application/openmetrics-text": {"schema": {"type": "string"}}}


@router.get("/metrics", response_class=Response, responses={200: {"description": "Samples.", "content": FORMATS}})
async def metrics(core: TheCore, user: Asking, accept: Annotated[str, Header()] = "") -> Response:
    """The cluster's state as Prometheus samples; an admin's token is needed (`authorization` in a scrape config)."""
    access.must_be_admin(user)
    text, content_type = await core.metrics.text(accept)
    return Response(text, headers={"Content-Type": content_type})
