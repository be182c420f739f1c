"""`helmsman login`, `logout` and `token`, with a real server process and a small, real OpenID Connect provider."""

import asyncio
import io
import json
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Form
from fastapi.responses import RedirectResponse
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from cluster.client import Client
from helmsman import cli
from helmsman.errors import BadConfig
from helmsman.login import _token_in
from helmsman.logins import Login, under
from helmsman.settings import load, login_path

pytestmark = pytest.mark.slow
KEY = RSAKey.generate_key(2048, {"kid": "k1"})


class Said(NamedTuple):
    code: int
    out: str
    err: str


class Server(NamedTuple):
    """A real server process; `token` is its admin's."""

    data: Path
    url: str
    token: str
    user: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("login") / "data"
    process = subprocess.Popen([sys.executable, "-m", "cluster.server", "--data", str(data)])
    file, deadline = data / "server.json", time.monotonic() + 60
    while not file.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline, "the server did not announce itself"
        time.sleep(0.05)
    said = json.loads(file.read_text())
    yield Server(data, said["url"], (data / "user.token").read_text().strip(), said["user"])
    process.terminate()
    process.wait(15)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("DATA", "STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    return tmp_path


class Shell:
    """Somebody's command line."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *words: str, typed: str = "") -> Said:
        self.monkeypatch.setattr(sys, "argv", ["helmsman", *words])
        self.monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Said(int(ended.value.code or 0), *self.capsys.readouterr())


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


def whose(url: str, token: str) -> str:
    async def ask() -> str:
        client = Client.connect(url, token)
        try:
            return (await client.whoami()).name
        finally:
            await client.close()

    return asyncio.run(ask())


# ── with a token ─────────────────────────────────────────────────────────────────────────────────


def test_with_a_token_from_the_input_one_is_logged_in_until_one_logs_out(shell: Shell, server: Server) -> None:
    said = shell("login", f"{server.url}/", "--token-file", "-", typed=f"{server.token}\n")
    assert said == (0, f"You are {server.user} at {server.url}/ now.\n", "")
    assert stat.S_IMODE(login_path().stat().st_mode) == 0o600
    assert server.token not in said.out + said.err
    assert shell("status").code == 0
    assert shell("logout").out == f"You are logged out of {server.url}.\n"
    assert not login_path().exists()
    assert load().cluster.url is None
    assert whose(server.url, server.token) == server.user, "a token that was brought along is not ended"
    assert shell("logout").out == "You were not logged in to another cluster.\n"


def test_a_token_that_is_none_keeps_the_login_before(shell: Shell, server: Server, home: Path) -> None:
    (home / "token").write_text(server.token)
    assert shell("login", server.url, "--token-file", str(home / "token")).code == 0
    before = login_path().read_text()
    agents = (server.data / "agent.token").read_text()
    for wrong, code in (("hm_x_y", 5), (agents, 5), ("", 2), ("two words", 2), ("a\nb", 2), ("é", 2)):
        said = shell("login", server.url, "--token-file", "-", typed=wrong)
        assert said.code == code, (wrong, said)
        assert said.err.count("\n") == 1
    assert shell("login", server.url, "--token-file", str(home / "none")).code == 2
    assert login_path().read_text() == before
    assert [file.name for file in login_path().parent.iterdir()] == ["login.json"], "nothing is left beside it"


def test_without_a_terminal_nobody_is_asked_for_a_token(shell: Shell, server: Server) -> None:
    said = shell("login", server.url)
    assert (said.code, "--token-file" in said.err) == (2, True)


@pytest.mark.parametrize(
    "url",
    ["cluster", "ftp://x", "https://", "http://u:p@x", "https://x?q=1", "https://x#f", "http://x:99999", "http://["],
)
def test_what_is_no_address_is_said(shell: Shell, url: str) -> None:
    said = shell("login", url, "--token-file", "-", typed="t")
    assert said.code == 2
    assert "no cluster's address" in said.err


def test_a_server_that_is_not_there_is_one_sentence(shell: Shell) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        said = shell("login", f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert (said.code, said.err.count("\n")) == (5, 1)


def test_unencrypted_to_another_machine_is_warned_of_once(shell: Shell, server: Server) -> None:
    said = shell("login", "http://192.0.2.1:9", "--token-file", "/none")
    assert said.err.count("not encrypted") == 1
    assert "not encrypted" not in shell("login", server.url, "--token-file", "-", typed=server.token).err


# ── what is kept, among the settings ─────────────────────────────────────────────────────────────


LOGIN = Login("https://a.example", "secret")


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ({}, {"url": "https://a.example", "token": "secret"}),
        ({"url": "https://a.example"}, {"url": "https://a.example", "token": "secret"}),
        ({"url": "https://b.example"}, None),
        ({"token": "mine"}, {"url": "https://a.example"}),
        ({"token_file": "f"}, {"url": "https://a.example"}),
    ],
)
def test_a_kept_token_goes_to_its_own_cluster_only(given: dict[str, str], added: dict[str, str] | None) -> None:
    assert under(LOGIN, {"cluster": given}).get("cluster") == added
    assert under(None, {"cluster": given}) == {}


def test_settings_that_name_another_cluster_go_before_it_and_that_is_said(
    shell: Shell, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELMSMAN_CLUSTER__URL", "https://b.example")
    said = shell("login", server.url, "--token-file", "-", typed=server.token)
    assert (said.code, "https://b.example" in said.err) == (0, True)
    assert load().cluster.token is None


@pytest.mark.parametrize("broken", ["", "[]", "{}", '{"url": 3, "token": "t"}', '{"url": "x"'])
def test_a_broken_login_is_said_and_logging_out_mends_it(shell: Shell, broken: str) -> None:
    login_path().parent.mkdir(parents=True)
    login_path().write_text(broken)
    with pytest.raises(BadConfig, match="helmsman logout"):
        load()
    assert shell("logout").code == 0
    assert load().cluster.url is None


# ── by the browser ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def provider(server: Server) -> Iterator[str]:
    """Lets dana in, without asking."""
    app, nonces = FastAPI(), dict[str, str]()
    listener = socket.create_server(("127.0.0.1", 0))
    issuer = f"http://127.0.0.1:{listener.getsockname()[1]}"

    @app.get("/.well-known/openid-configuration")
    def about() -> dict[str, str]:
        at = {f"{name}_endpoint": f"{issuer}/{name}" for name in ("authorization", "token")}
        return {"issuer": issuer, "jwks_uri": f"{issuer}/keys", **at}

    @app.get("/keys")
    def keys() -> Any:
        return KeySet([KEY]).as_dict(private=False)

    @app.get("/authorization")
    def authorization(redirect_uri: str, state: str, nonce: str) -> RedirectResponse:
        nonces["c0de"] = nonce
        return RedirectResponse(f"{redirect_uri}?state={state}&code=c0de", status_code=302)

    @app.post("/token")
    def token(code: str = Form()) -> dict[str, str]:
        now = int(time.time())
        claims = {"iss": issuer, "aud": "helmsman", "sub": "7", "iat": now, "exp": now + 300, "nonce": nonces[code]}
        named = claims | {"preferred_username": "dana"}
        return {"id_token": jwt.encode({"alg": "RS256", "kid": "k1"}, named, KEY), "token_type": "Bearer"}

    web = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=web.run, kwargs={"sockets": [listener]})
    thread.start()
    told = {"issuer": issuer, "client_id": "helmsman", "public_url": server.url, "create": True}
    (server.data / "oidc.json").write_text(json.dumps(told))
    yield issuer
    web.should_exit = True
    thread.join(15)
    listener.close()


def test_where_there_is_a_login_server_the_browser_brings_a_token_and_logging_out_ends_it(
    shell: Shell, server: Server, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[httpx.Response] = []

    def browse(url: str) -> bool:
        port_and_key = httpx.URL(url).params["redirect"]
        httpx.get(port_and_key.rsplit("/", 1)[0] + "/guess?token=evil")  # another page, that does not know the key
        with httpx.Client(follow_redirects=True, timeout=30) as browser:
            pages.append(browser.get(url))
        return True

    monkeypatch.setattr("webbrowser.open", browse)
    said = shell("login", server.url)
    assert (said.code, said.out) == (0, f"You are dana at {server.url} now.\n"), said.err
    assert "in the browser" in said.err
    kept = json.loads(login_path().read_text())
    assert (pages[0].status_code, pages[0].headers["cache-control"]) == (200, "no-store")
    assert kept["token"] not in pages[0].text
    assert whose(server.url, kept["token"]) == "dana"
    assert shell("logout").code == 0
    with pytest.raises(Exception, match="not known"):
        whose(server.url, kept["token"])


@pytest.mark.parametrize(
    ("line", "token"),
    [
        ("GET /key?token=t&user=u HTTP/1.1", "t"),
        ("GET /kez?token=t HTTP/1.1", None),
        ("GET /key HTTP/1.1", None),
        ("POST /key?token=t HTTP/1.1", None),
        ("", None),
    ],
)
def test_only_who_knows_the_key_brings_a_token(line: str, token: str | None) -> None:
    assert _token_in(line, "key") == token


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────


def test_a_token_is_made_listed_works_and_then_does_not(shell: Shell, server: Server) -> None:
    assert shell("login", server.url, "--token-file", "-", typed=server.token).code == 0
    made = shell("token", "create", "--name", "ci", "--days", "2")
    token = made.out.strip()
    assert (made.code, whose(server.url, token)) == (0, server.user)
    ident = token.split("_")[1]
    (line,) = [line for line in shell("token", "list").out.splitlines() if line.startswith(f"{ident}  ")]
    assert line.split()[1] == "ci"
    assert token not in line
    assert shell("token", "revoke", ident).code == 0
    with pytest.raises(Exception, match="not known"):
        whose(server.url, token)
    assert ident not in shell("token", "list").out
    again = shell("token", "revoke", ident)
    assert (again.code, again.err.count("\n")) == (4, 1)
