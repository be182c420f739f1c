"""What can be done."""

from fastapi import APIRouter

from cluster.api.asking import Asking, TheCore
from cluster.errors import Invalid
from cluster.models import CreateToken, OperationRequest, Outcome
from cluster.sentence import S

router = APIRouter(tags=["operations"])


@router.post("/v1/operations")
async def operate(core: TheCore, user: Asking, request: OperationRequest) -> Outcome:
    """Do it, or with `dry_run` show what it would do. A refusal is an outcome with reasons, not an error."""
    if isinstance(request.operation, CreateToken) and not request.dry_run:
        raise Invalid(S("A token is shown once, to whoever makes it: POST /v1/tokens."))
    return await core.execute(user, request)
