"""What is wrong, and what would help."""

from typing import Annotated

from fastapi import APIRouter, Query

from cluster.api.asking import Asking, TheCore
from cluster.models import Diagnosis

router = APIRouter(tags=["cluster"])


@router.get("/v1/diagnosis")
async def diagnosis(
    core: TheCore, user: Asking, target: Annotated[str | None, Query(min_length=1, max_length=200)] = None
) -> Diagnosis:
    """Of a node, an endpoint or a session (by name or id); of the whole cluster when left out."""
    return await core.diagnoses.diagnose(user, target)
