"""API tokens: one's own, and for an admin everybody's. A token is in the answer that makes it, and nowhere else."""

from typing import Annotated

from fastapi import APIRouter, Path

from cluster.api.asking import Asking, TheCore
from cluster.errors import ClusterError, Invalid, NotAllowed, NotFound
from cluster.models import CreateToken, NewToken, OperationRequest, Outcome, Page, Reason, RevokeToken, Token, TokenMade
from cluster.sentence import S

router = APIRouter(tags=["tokens"])


@router.get("/v1/tokens")
async def tokens(core: TheCore, asking: Asking, user: str | None = None) -> Page[Token]:
    """Without the secrets, which nobody has any more."""
    return await core.people.tokens(asking, user)


@router.post("/v1/tokens", status_code=201)
async def make(core: TheCore, asking: Asking, wanted: NewToken) -> TokenMade:
    """A new token. It is journalled who made it for whom."""
    outcome = await core.execute(asking, OperationRequest(operation=CreateToken(**wanted.model_dump())))
    if outcome.made is None:
        raise _error(outcome)
    return outcome.made


@router.delete("/v1/tokens/{ident}")
async def revoke(core: TheCore, asking: Asking, ident: Annotated[str, Path(max_length=100)]) -> Outcome:
    """It opens nothing any more, from this answer on."""
    outcome = await core.execute(asking, OperationRequest(operation=RevokeToken(token=ident)))
    if outcome.refused:
        raise _error(outcome)
    return outcome


def _error(outcome: Outcome) -> ClusterError:
    """A refusal as the error that it would be of a plain route."""
    kinds = {"not_found": NotFound, "not_allowed": NotAllowed}
    reason = next(iter(outcome.refused), Reason(code="invalid", message=S("No token was made.")))
    return kinds.get(reason.code, Invalid)(reason.message, reason.candidates)
