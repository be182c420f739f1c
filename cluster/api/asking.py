"""Who asks: every route's dependencies."""

from typing import Annotated

from fastapi import Depends, Header, Query, Request

from cluster.core import Core
from cluster.errors import NotAllowed, NotAuthenticated, NotFound
from cluster.models import User
from cluster.sentence import S


async def _core(request: Request) -> Core:
    core: Core = request.app.state.core
    return core


TheCore = Annotated[Core, Depends(_core)]


async def _owner(core: TheCore, authorization: Annotated[str, Header()] = "") -> str:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotAuthenticated(S("This needs a token: send it as `Authorization: Bearer …`."))
    return await core.owner_of(token)


async def _user(core: TheCore, owner: Annotated[str, Depends(_owner)]) -> User:
    if not owner:
        raise NotAllowed(S("The agents' token can't be used for this."))
    try:
        return await core.user(owner)
    except NotFound as e:  # a deactivated person's: to be told no more than a stranger
        raise NotAuthenticated(S("This token is not known here; log in again or restart `helmsman`.")) from e


async def person(core: Core, authorization: str) -> User:
    """Whose this `Authorization` header is. Raises `NotAuthenticated` and `NotAllowed`, as every route does."""
    return await _user(core, await _owner(core, authorization))


async def agent(owner: Annotated[str, Depends(_owner)]) -> None:
    """Refuses all but agents."""
    if owner:
        raise NotAllowed(S("Only agents may call this."))


Asking = Annotated[User, Depends(_user)]
Limit = Annotated[int, Query(ge=1, le=1000)]
OPEN = frozenset({"/v1/login/oidc", "/v1/login/oidc/callback"})
"""Paths of the routes that anybody may call, with or without a token."""
