"""What can be done."""

from fastapi import APIRouter

from cluster.api.asking import Asking, TheCore
from cluster.models import OperationRequest, Outcome

router = APIRouter(tags=["operations"])


@router.post("/v1/operations")
async def operate(core: TheCore, user: Asking, request: OperationRequest) -> Outcome:
    """Do it, or with `dry_run` show what it would do. A refusal is an outcome with reasons, not an error."""
    return await core.execute(user, request)
