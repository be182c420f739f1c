"""Logging in with the browser at an OpenID Connect provider."""

import hashlib
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse

from cluster.api.asking import TheCore
from cluster.errors import NotAllowed, NotFound
from cluster.models import CreateToken, OperationRequest
from cluster.sentence import S
from cluster.tenancy.oidc import Oidc, OidcSettings

router = APIRouter(tags=["login"])
COOKIE = "helmsman_login"
DAYS = 30.0
"""How long a login's token is good."""
Text = Annotated[str, Query(max_length=2000)]


def _oidc(request: Request, core: TheCore) -> Oidc:
    """Raises `NotFound` where no provider is set up."""
    state = request.app.state
    if getattr(state, "oidc", None) is None:
        settings = OidcSettings.read(core.data_dir / "oidc.json")
        if settings is None:
            raise NotFound(S("This server has no login by OpenID Connect; use a token."))
        state.oidc = Oidc(core, settings)
    oidc: Oidc = state.oidc
    return oidc


@router.get("/v1/login/oidc", response_class=RedirectResponse, status_code=307)
async def begin(core: TheCore, request: Request, redirect: Text | None = None) -> Response:
    """To the provider. `redirect`: a loopback address to which the token is brought; else it is shown."""
    url, state = await _oidc(request, core).begin(redirect)
    reply = RedirectResponse(url)
    reply.set_cookie(COOKIE, _hashed(state), max_age=600, httponly=True, samesite="lax", path="/v1/login")
    return reply


@router.get("/v1/login/oidc/callback", response_class=PlainTextResponse)
async def finish(core: TheCore, request: Request, state: Text = "", code: Text = "") -> Response:
    """Back from the provider, in the browser that began: a token, brought to where it was asked for or shown once."""
    oidc = _oidc(request, core)
    if not state or request.cookies.get(COOKIE) != _hashed(state):
        raise NotAllowed(S("This login was begun in another browser; begin again."))
    user, back = await oidc.finish(state, code)
    outcome = await core.execute(user, OperationRequest(operation=CreateToken(name="login", days=DAYS)))
    if outcome.made is None:
        raise NotAllowed(S("No token was made."))
    token = outcome.made.token
    if back is not None:
        query = urlencode({"token": token, "user": user.name})
        reply: Response = RedirectResponse(f"{back}{'&' if '?' in back else '?'}{query}", status_code=303)
    else:
        reply = PlainTextResponse(f"{token}\n")
    reply.headers["Cache-Control"] = "no-store"
    reply.headers["Referrer-Policy"] = "no-referrer"
    reply.delete_cookie(COOKIE, path="/v1/login")
    return reply


def _hashed(state: str) -> str:
    return hashlib.sha256(state.encode()).hexdigest()
