"""Logging in with a small, real OpenID Connect provider: signed tokens, keys, and the ways in which they are wrong."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from pydantic import ValidationError

from cluster.api.app import create_app
from cluster.client import Client
from cluster.db.tables import UserRow
from cluster.errors import Invalid
from cluster.models import LinkUser, Undo
from cluster.simulator.lab import Lab
from cluster.tenancy.oidc import Oidc, OidcSettings

ISSUER, CLIENT = "https://id.lab.example", "helmsman"
KEY, OTHER = RSAKey.generate_key(2048, {"kid": "k1"}), RSAKey.generate_key(2048, {"kid": "k1"})


class Provider(httpx.AsyncBaseTransport):
    """`who` logs in; `wrong` changes the token's claims, `key` and `sign` how it is signed."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.who: dict[str, Any] = {"sub": "7", "preferred_username": "dana", "email": "boss@lab.example"}
        self.wrong: dict[str, Any] = {}
        self.key = KEY
        self.unsigned = False
        self.asked: dict[str, str] = {}

    def log_in(self, url: str) -> dict[str, str]:
        """What a browser does at the provider: it comes back with a code."""
        self.asked = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
        return {"state": self.asked["state"], "code": "c0de"}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        match request.url.path:
            case "/.well-known/openid-configuration":
                at = {f"{name}_endpoint": f"{ISSUER}/{name}" for name in ("authorization", "token")}
                return httpx.Response(200, json={"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys", **at})
            case "/keys":
                return httpx.Response(200, json=KeySet([KEY]).as_dict(private=False))
            case _:
                return self._token(parse_qs(request.content.decode()))

    def _token(self, form: dict[str, list[str]]) -> httpx.Response:
        digest = hashlib.sha256(form["code_verifier"][0].encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != self.asked["code_challenge"]:
            return httpx.Response(400, json={"error": "invalid_grant"})
        now = int(self.lab.clock.now().timestamp())
        claims = {"iss": ISSUER, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": self.asked["nonce"]}
        claims = {key: value for key, value in (claims | self.who | self.wrong).items() if value is not None}
        token = jwt.encode({"alg": "RS256", "kid": "k1"}, claims, self.key)
        if self.unsigned:
            head = base64.urlsafe_b64encode(json.dumps({"alg": "none"}).encode()).rstrip(b"=").decode()
            token = f"{head}.{token.split('.')[1]}."
        return httpx.Response(200, json={"access_token": "x", "token_type": "Bearer", "id_token": token})


class Browser:
    """Somebody's, at a server that knows the provider."""

    def __init__(self, lab: Lab, app: FastAPI) -> None:
        self.lab = lab
        self.app = app
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://lab")

    async def log_in(self, provider: Provider, redirect: str | None = None) -> httpx.Response:
        begun = await self.http.get("/v1/login/oidc", params={"redirect": redirect} if redirect else None)
        if begun.status_code != 307:
            return begun
        return await self.http.get("/v1/login/oidc/callback", params=provider.log_in(begun.headers["location"]))

    async def whoami(self, token: str) -> str:
        client = Client.connect("http://lab", token.strip(), httpx.ASGITransport(self.app))
        return (await client.whoami()).name


@pytest.fixture
def provider(lab: Lab) -> Provider:
    return Provider(lab)


@pytest.fixture
async def browser(lab: Lab, provider: Provider) -> AsyncIterator[Browser]:
    app = create_app(lab.core)
    settings = OidcSettings(issuer=ISSUER, client_id=CLIENT, public_url="http://lab", create=True, project="red")
    app.state.oidc = Oidc(lab.core, settings, provider)
    browser = Browser(lab, app)
    yield browser
    await browser.http.aclose()


async def test_somebody_new_becomes_a_user_and_is_the_same_the_next_time(browser: Browser, provider: Provider) -> None:
    first = await browser.log_in(provider)
    assert first.status_code == 200, first.text
    assert await browser.whoami(first.text) == "dana"
    provider.who["preferred_username"] = "renamed"
    second = await browser.log_in(provider)
    assert await browser.whoami(second.text) == "dana"
    users = {u.name: u for u in (await browser.lab.boss.users()).items}
    assert users["dana"].projects == ["red"]
    assert users["dana"].email is None, "an unverified address is not kept"
    assert first.text != second.text


async def test_the_token_is_brought_to_the_command_line_on_this_machine_only(
    browser: Browser, provider: Provider
) -> None:
    reply = await browser.log_in(provider, "http://127.0.0.1:4711/done?key=k")
    assert reply.status_code == 303
    back = urlsplit(reply.headers["location"])
    assert (back.netloc, back.path) == ("127.0.0.1:4711", "/done")
    assert await browser.whoami(parse_qs(back.query)["token"][0]) == "dana"
    for elsewhere in ("http://evil.example/", "https://127.0.0.1.evil.example", "http://127.0.0.1@evil.example/", "x"):
        assert (await browser.log_in(provider, elsewhere)).status_code == 422, elsewhere


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonce": "another"}, {"nonce": None}, {"aud": "another"}, {"aud": None}, {"iss": "https://evil.example"},
        {"exp": 1}, {"exp": None}, {"sub": None}, {"nbf": 2**33},
    ],
    ids=str,
)  # fmt: skip
async def test_a_token_that_is_not_for_this_login_opens_nothing(
    browser: Browser, provider: Provider, wrong: dict[str, Any]
) -> None:
    provider.wrong = wrong
    assert (await browser.log_in(provider)).status_code == 403
    assert "dana" not in [u.name for u in (await browser.lab.boss.users()).items]


async def test_a_token_that_another_signed_or_nobody_opens_nothing(browser: Browser, provider: Provider) -> None:
    provider.key = OTHER
    assert (await browser.log_in(provider)).status_code == 403
    provider.key, provider.unsigned = KEY, True
    assert (await browser.log_in(provider)).status_code == 403


async def test_a_state_is_good_once_in_its_own_browser_and_for_ten_minutes(
    browser: Browser, provider: Provider
) -> None:
    begun = await browser.http.get("/v1/login/oidc")
    answer = provider.log_in(begun.headers["location"])
    other = Browser(browser.lab, browser.app)
    assert (await other.http.get("/v1/login/oidc/callback", params=answer)).status_code == 403
    cookie = dict(browser.http.cookies)
    assert (await browser.http.get("/v1/login/oidc/callback", params=answer)).status_code == 200
    again = httpx.AsyncClient(transport=httpx.ASGITransport(browser.app), base_url="http://lab", cookies=cookie)
    assert (await again.get("/v1/login/oidc/callback", params=answer)).status_code == 403
    begun = await browser.http.get("/v1/login/oidc")
    await browser.lab.later(601)
    answer = provider.log_in(begun.headers["location"])
    assert (await browser.http.get("/v1/login/oidc/callback", params=answer)).status_code == 403


async def test_a_first_login_is_in_the_journal_with_where_they_came_from(browser: Browser, provider: Provider) -> None:
    for _ in range(2):
        assert (await browser.log_in(provider)).status_code == 200
    mine = [(e.action, e.targets) for e in (await browser.lab.boss.audit(user="system")).items]
    assert mine == [("link_user", ["dana"]), ("create_user", ["dana"])], "the second login makes nobody"
    link = (await browser.lab.boss.audit(user="system")).items[0].operation
    assert isinstance(link, LinkUser)
    assert link.subject == f"{ISSUER} 7"
    assert (await browser.lab.boss.verify_audit()).whole
    assert not (await browser.lab.boss.execute(Undo(action="a-0001"))).refused
    assert (await browser.log_in(provider)).status_code == 403, "undone: deactivated"


async def test_two_first_logins_at_once_make_one_user(browser: Browser, provider: Provider) -> None:
    oidc = browser.app.state.oidc
    claims = {"sub": "9", "preferred_username": "gil"}
    made = await asyncio.gather(*(oidc._made(f"{ISSUER} 9", claims) for _ in range(3)))
    assert set(made) == {"gil"}


@pytest.mark.parametrize("name", [None, "", " ", "../x", "x" * 300])
async def test_a_login_without_a_usable_name_makes_nobody(
    browser: Browser, provider: Provider, name: str | None
) -> None:
    provider.who = {"sub": "8", "preferred_username": name}
    assert (await browser.log_in(provider)).status_code == 403
    assert {u.name for u in (await browser.lab.boss.users()).items} == {"boss", "ann", "bob", "eve"}


async def test_an_admin_links_somebody_who_is_here_and_takes_it_back(browser: Browser, provider: Provider) -> None:
    lab, subject = browser.lab, f"{ISSUER} 7"
    refused = await lab.ann.execute(LinkUser(user="ann", subject=subject))
    assert refused.refused[0].code == "not_allowed"
    linked = await lab.boss.execute(LinkUser(user="ann", subject=subject))
    assert str(linked.effects[0].message) == f"Whoever logs in at {ISSUER} as 7 is ann here."
    assert await browser.whoami((await browser.log_in(provider)).text) == "ann"
    twice = await lab.boss.execute(LinkUser(user="ann", subject=subject))
    taken = await lab.boss.execute(LinkUser(user="bob", subject=subject))
    assert [o.refused[0].code for o in (twice, taken)] == ["conflict", "conflict"]
    assert "is ann here" in str(taken.refused[0].message)
    assert not (await lab.boss.execute(Undo(action=linked.audit_id))).refused
    assert await browser.whoami((await browser.log_in(provider)).text) == "dana"
    away = await lab.boss.execute(LinkUser(user="dana", subject=None))
    assert "any more" in str(away.effects[0].message)
    provider.who["preferred_username"] = "dana2"
    assert await browser.whoami((await browser.log_in(provider)).text) == "dana2"


@pytest.mark.parametrize("subject", ["7", "https://id.example", "https://id.example ", "id.example 7", " "])
def test_a_subject_without_its_issuer_links_nobody(subject: str) -> None:
    with pytest.raises(ValidationError):
        LinkUser(user="ann", subject=subject)


async def test_nobody_becomes_somebody_else_by_name_or_address(browser: Browser, provider: Provider) -> None:
    provider.who = {"sub": "8", "preferred_username": "boss", "email": "boss@lab.example", "email_verified": True}
    reply = await browser.log_in(provider)
    assert (reply.status_code, reply.json()["detail"]) == (403, "There is a user boss already.")


async def test_the_unknown_and_the_deactivated_are_not_let_in(browser: Browser, provider: Provider) -> None:
    settings = OidcSettings(issuer=ISSUER, client_id=CLIENT, public_url="http://lab")
    browser.app.state.oidc = Oidc(browser.lab.core, settings, provider)
    assert "not known here yet" in (await browser.log_in(provider)).text
    async with browser.lab.core.db.write() as db:
        (await db.get_one(UserRow, "ann")).subject = f"{ISSUER} 7"
    assert await browser.whoami((await browser.log_in(provider)).text) == "ann"
    async with browser.lab.core.db.write() as db:
        (await db.get_one(UserRow, "ann")).active = False
    assert (await browser.log_in(provider)).status_code == 403


async def test_without_settings_there_is_no_such_login_and_wrong_ones_are_told(lab: Lab) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(lab.core)), base_url="http://lab") as http:
        assert (await http.get("/v1/login/oidc")).status_code == 404
    (lab.core.data_dir / "oidc.json").write_text('{"issuer": "nowhere"}')
    with pytest.raises(Invalid, match=r"oidc\.json can't be used"):
        OidcSettings.read(lab.core.data_dir / "oidc.json")
