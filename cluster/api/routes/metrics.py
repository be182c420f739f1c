"""What Prometheus reads."""

from typing import Any

from fastapi import APIRouter, Request, Response

from cluster import access
from cluster.api.asking import Asking, TheCore

router = APIRouter(tags=["metrics"])
TEXT = {"schema": {"type": "string"}}
SAMPLES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Samples.", "content": {"text/plain": TEXT, "application/openmetrics-text": TEXT}},
}


@router.get("/metrics", response_class=Response, responses=SAMPLES)
async def metrics(core: TheCore, user: Asking, request: Request) -> Response:
    """The cluster's state as Prometheus samples, in the format that `Accept` asks for; an admin's token is needed."""
    access.must_be_admin(user)
    text, content_type = await core.metrics.text(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": content_type})
