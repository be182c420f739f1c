"""Logging in with an OpenID Connect provider, if `DIR/oidc.json` says which (README.md has an example).

Code flow with state, nonce and PKCE. Who somebody is here is found by issuer and subject, never by e-mail.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlsplit

import httpx
from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jwt import ClaimsOption
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from cluster.errors import Invalid, NotAllowed, NotFound, Unavailable
from cluster.models import CreateUser, User
from cluster.operations.linking import first_login, subject_of
from cluster.operations.people import EMAIL
from cluster.sentence import S
from cluster.transaction import Refused, Transaction

if TYPE_CHECKING:
    from cluster.core import Core

ALGORITHMS = ["RS256", "ES256", "PS256", "EdDSA"]
"""Signatures with a key pair; never "none", never a shared secret."""
LEEWAY = 60
"""Seconds that the provider's clock may be off."""
PATIENCE = timedelta(minutes=10)
"""How long somebody may take to log in."""
MOST_PENDING = 1000
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class OidcSettings(BaseModel):
    """`oidc.json`. The provider must allow `{public_url}/v1/login/oidc/callback` as a redirect."""

    model_config = ConfigDict(extra="forbid")

    issuer: str = Field(pattern=r"^https?://")
    client_id: str
    client_secret: SecretStr | None = None
    public_url: str = Field(pattern=r"^https?://")
    """Where browsers reach this server."""
    claim: str = "preferred_username"
    """What of the provider's token becomes the name of somebody new."""
    create: bool = False
    """Whether somebody unknown becomes a user."""
    project: str | None = None
    """That somebody new is put into."""

    @classmethod
    def read(cls, path: Path) -> "OidcSettings | None":
        """None without a file. Raises `Invalid` for one that can't be used."""
        try:
            return cls.model_validate_json(path.read_text()) if path.exists() else None
        except ValidationError as e:
            why = "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in e.errors())
            raise Invalid(S("{path} can't be used: {why}", path=str(path), why=why)) from e
        except OSError as e:
            raise Invalid(S("{path} can't be used: {why}", path=str(path), why=e.strerror or str(e))) from e


@dataclass(frozen=True)
class Pending:
    """A login that has begun."""

    nonce: str
    verifier: str
    back: str | None
    until: datetime


class Oidc:
    """One provider. `http` is for tests: how it is reached."""

    def __init__(self, core: "Core", settings: OidcSettings, http: httpx.AsyncBaseTransport | None = None) -> None:
        self._core = core
        self._settings = settings
        self._transport = http
        self._about: dict[str, Any] | None = None
        self._pending: OrderedDict[str, Pending] = OrderedDict()

    async def begin(self, back: str | None) -> tuple[str, str]:
        """Where the browser goes, and the state that must come back with it. `back`: a loopback address that gets the
        token. Raises `Invalid` for one elsewhere."""
        if back is not None and not _is_loopback(back):
            raise Invalid(S("A token is only given to this machine: {url} is no loopback address.", url=back[:200]))
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        about = await self._discovered()
        asked = {"response_type": "code", "scope": "openid profile email", "client_id": self._settings.client_id,
                 "redirect_uri": self._redirect, "state": state, "nonce": nonce, "code_challenge_method": "S256",
                 "code_challenge": create_s256_code_challenge(verifier)}  # fmt: skip
        url = add_params_to_uri(about["authorization_endpoint"], list(asked.items()))
        self._pending[state] = Pending(nonce, verifier, back, self._core.clock.now() + PATIENCE)
        while len(self._pending) > MOST_PENDING:
            self._pending.popitem(last=False)
        return str(url), state

    async def finish(self, state: str, code: str) -> tuple[User, str | None]:
        """Who has logged in, and where their token goes. A state is good once. Raises `NotAllowed`."""
        pending = self._pending.pop(state, None)
        if pending is None or pending.until < self._core.clock.now():
            raise NotAllowed(S("This login has expired or was used already; begin again."))
        claims = await self._claims(code, pending)
        return await self._user(claims), pending.back

    # ── the provider ─────────────────────────────────────────────────────────────────────────────

    @property
    def _redirect(self) -> str:
        return f"{self._settings.public_url.rstrip('/')}/v1/login/oidc/callback"

    async def _token(self, url: str, code: str, verifier: str) -> str:
        """The identity token that the provider gives for a code."""
        settings = self._settings
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": verifier,
                "redirect_uri": self._redirect}  # fmt: skip
        known: httpx.Auth | None = None
        if settings.client_secret is None:
            form["client_id"] = settings.client_id
        else:
            secret = settings.client_secret.get_secret_value()
            known = httpx.BasicAuth(quote_plus(settings.client_id), quote_plus(secret))
        async with httpx.AsyncClient(transport=self._transport, timeout=10) as http:
            reply = await http.post(url, data=form, auth=known or httpx.Auth(), headers={"Accept": "application/json"})
            reply.raise_for_status()
            return str(reply.json()["id_token"])

    async def _discovered(self) -> dict[str, Any]:
        """What the provider says of itself; it must be the issuer that it was asked as."""
        if self._about is None:
            about = await self._get(f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration")
            if about.get("issuer") != self._settings.issuer:
                raise Unavailable(S("{issuer} says that it is another issuer.", issuer=self._settings.issuer))
            self._about = about
        return self._about

    async def _get(self, url: str) -> dict[str, Any]:
        try:
            async with httpx.AsyncClient(transport=self._transport, timeout=10) as http:
                reply = await http.get(url)
                reply.raise_for_status()
                body: dict[str, Any] = reply.json()
                return body
        except (httpx.HTTPError, ValueError) as e:
            raise Unavailable(S("The login server {url} does not answer as it should.", url=url)) from e

    async def _claims(self, code: str, pending: Pending) -> dict[str, Any]:
        """Of an identity token that is signed by the provider, for us, now, and for this very login."""
        about = await self._discovered()
        try:
            given = await self._token(about["token_endpoint"], code, pending.verifier)
            keys = KeySet.import_key_set(await self._get(about["jwks_uri"]))  # type: ignore[arg-type]
            token = jwt.decode(given, keys, algorithms=ALGORITHMS)
            audience = ClaimsOption(essential=True, value=self._settings.client_id)
            issuer = ClaimsOption(essential=True, value=self._settings.issuer)
            nonce = ClaimsOption(essential=True, value=pending.nonce)
            now = int(self._core.clock.now().timestamp())
            rules = jwt.JWTClaimsRegistry(now=now, leeway=LEEWAY, iss=issuer, aud=audience, nonce=nonce,
                                          sub={"essential": True}, exp={"essential": True})  # fmt: skip
            rules.validate(token.claims)
        except (JoseError, httpx.HTTPError, KeyError, ValueError, TypeError) as e:
            raise NotAllowed(S("The login server's answer can't be trusted; log in again.")) from e
        return dict(token.claims)

    # ── who it is here ───────────────────────────────────────────────────────────────────────────

    async def _user(self, claims: dict[str, Any]) -> User:
        subject = f"{self._settings.issuer} {claims['sub']}"
        known = (await self._core.fresh_directory()).subjects.get(subject)
        if known is None:
            known = await self._made(subject, claims)
        try:
            return await self._core.user(known)
        except NotFound as e:
            raise NotAllowed(S("{user} is deactivated; ask an admin.", user=known)) from e

    async def _made(self, subject: str, claims: dict[str, Any]) -> str:
        """A new user's name. A name that somebody has already is never taken over."""
        if not self._settings.create:
            raise NotAllowed(S("You are not known here yet; ask an admin to add you."))
        asked = self._asked(claims)

        async def work(tx: Transaction) -> Callable[[], str]:
            name = await subject_of(tx, subject) or await first_login(tx, asked, subject)
            return lambda: name

        try:
            return await self._core.writer.alone(self._core.system, work)
        except Refused as e:
            raise NotAllowed(e.reasons[0].message) from e

    def _asked(self, claims: dict[str, Any]) -> CreateUser:
        """Whom the claims speak of. An address counts only when the provider has verified it."""
        claim, project = self._settings.claim, self._settings.project
        name = str(claims.get(claim) or "").strip()[:200]
        if not name:
            raise NotAllowed(S("The login server does not say your {claim}; ask an admin to add you.", claim=claim))
        email = str(claims.get("email")) if claims.get("email_verified") is True else ""
        return CreateUser(
            name=name,
            email=email if EMAIL.fullmatch(email) else None,
            full_name=str(claims["name"])[:200] if claims.get("name") else None,
            project=project if project in self._core.directory.projects else None,
        )


def _is_loopback(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and parts.hostname in LOOPBACK and parts.username is None
    except ValueError:
        return False
