"""`helmsman login` and `logout`: a cluster on another machine, by its login server or with a token.

```
helmsman login URL ──► GET /v1/login/oidc?redirect=http://127.0.0.1:PORT/KEY   404: no such login, a token is asked for
       │                  └─ browser ─► provider ─► server ─► 303 to 127.0.0.1:PORT/KEY?token=…
       └─ GET /v1/me with the token ─► kept (logins.py), read by settings.py
```
"""

import asyncio
import re
import secrets
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from cluster.client import Client
from cluster.errors import ClusterError, NotAllowed, NotAuthenticated, unreachable
from cluster.models import S, Sentence, User
from helmsman import logins
from helmsman.errors import BadConfig, HelmsmanError
from helmsman.logins import Login
from helmsman.settings import login_path

HERE = ("127.0.0.1", "localhost", "::1")
PATIENCE = 600.0
"""Seconds to log in in the browser; the server waits as long."""
HEAD = 16_384
"""Bytes of a browser's request that are read."""
_TOKEN = re.compile(r"[\x21-\x7e]{1,500}")
Say = Callable[[Sentence], None]
Ask = Callable[[], str]


async def login(url: str, token_file: str | None, say: Say, ask: Ask) -> User:
    """Who one is there now; kept for all that is started from now on. Raises a `HelmsmanError` or `ClusterError`, and
    then the login before stays. `ask`: for a token that is typed; `say`: for what is to be known meanwhile."""
    url = _address(url, say)
    given = None if token_file is None else _read(token_file)
    brought = await _by_browser(url, say) if given is None else None
    token = given or brought or ask().strip()
    if not _TOKEN.fullmatch(token):
        raise BadConfig(S("That is no token: a token is one word of letters, digits and signs."))
    user = await _who(url, token)
    logins.keep(login_path(), Login(url, token, made=brought is not None))
    return user


async def logout() -> Sentence:
    """What was forgotten. A token that was made by logging in is ended too."""
    path = login_path()
    try:
        kept = logins.read(path)
        path.unlink(missing_ok=True)
    except ValueError:
        kept = None
        path.unlink(missing_ok=True)
    except OSError as e:
        raise HelmsmanError(
            S("The login in {path} can't be taken away: {why}.", path=str(path), why=e.strerror or str(e))
        ) from e
    if kept is None:
        return S("You were not logged in to another cluster.")
    if kept.made and not await _ended(kept):
        return S("You are logged out of {url}; it could not be told, and the token ends by itself.", url=kept.url)
    return S("You are logged out of {url}.", url=kept.url)


async def _ended(kept: Login) -> bool:
    client = Client.connect(kept.url, kept.token)
    try:
        await client.revoke_token(kept.token.split("_")[1])
    except NotAuthenticated:  # it has ended already
        return True
    except (ClusterError, IndexError):
        return False
    finally:
        await client.close()
    return True


def _address(url: str, say: Say) -> str:
    """Without what doesn't belong to it. Unencrypted to another machine is warned of."""
    try:
        parts = urlsplit(url)
        plain = not (parts.username or parts.password or parts.query or parts.fragment)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and plain and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise BadConfig(S("{url} is no cluster's address; write it like https://cluster.example.com.", url=url))
    if parts.scheme == "http" and parts.hostname not in HERE:
        say(S("Warning: {url} is not encrypted; whoever is on the way can read your token.", url=url))
    return url.rstrip("/")


def _read(token_file: str) -> str:
    """The token in a file, or with "-" in the input."""
    try:
        text = sys.stdin.read(HEAD) if token_file == "-" else Path(token_file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        why = getattr(e, "strerror", None) or str(e)
        raise BadConfig(
            S("{what} can't be read from {path}: {why}.", what="The token", path=token_file, why=why)
        ) from e
    return text.strip() or "\n"


async def _who(url: str, token: str) -> User:
    client = Client.connect(url, token)
    try:
        return await client.whoami()
    except (NotAuthenticated, NotAllowed) as e:
        raise NotAuthenticated(S("{url} does not know this token as a person's; nothing was kept.", url=url)) from e
    finally:
        await client.close()


# ── by the browser ───────────────────────────────────────────────────────────────────────────────


async def _by_browser(url: str, say: Say) -> str | None:
    """The token that the login server's answer brings; None where the cluster has no such login."""
    key = secrets.token_urlsafe(24)
    brought: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _receive(reader, writer, key, brought)

    async with await asyncio.start_server(receive, "127.0.0.1", 0, limit=HEAD) as server:
        port = server.sockets[0].getsockname()[1]
        query = urlencode({"redirect": f"http://127.0.0.1:{port}/{key}"})
        begin = f"{url}/v1/login/oidc?{query}"
        if not await _offered(url, begin):
            return None
        say(S("Log in in the browser. If none opens, open this address on this machine: {url}", url=begin))
        await asyncio.to_thread(webbrowser.open, begin)
        try:
            async with asyncio.timeout(PATIENCE):
                return await brought
        except TimeoutError as e:
            raise HelmsmanError(S("Nobody logged in within 10 minutes; begin again.")) from e


async def _offered(url: str, begin: str) -> bool:
    """Whether the server sends on to a login server."""
    try:
        async with httpx.AsyncClient(timeout=httpx.Timeout(30, connect=5)) as http:
            reply = await http.get(begin)
    except httpx.HTTPError as e:
        raise unreachable(url, str(e) or type(e).__name__) from e
    if reply.status_code in (307, 404):
        return reply.status_code == 307
    raise HelmsmanError(S("{url} does not answer as a cluster does ({status}).", url=url, status=reply.status_code))


async def _receive(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str, brought: "asyncio.Future[str]"
) -> None:
    """One request of a browser. Only who knows `key` can bring a token: another page must not log us in as another."""
    try:
        async with asyncio.timeout(10):
            line = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode("ascii", "replace")
    except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        writer.close()
        return
    found = _token_in(line, key)
    status, text = ("200 OK", "You are logged in; go back to the command line.") if found else ("404 Not Found", "?")
    body = f"<!doctype html><script>history.replaceState(null,'','/')</script><p>{text}</p>"
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\nCache-Control: no-store\r\n"
    try:
        writer.write(f"{head}Referrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{body}".encode())
        await writer.drain()
    except OSError:  # it is gone; what it brought counts
        pass
    finally:
        writer.close()
        if found and not brought.done():
            brought.set_result(found)


def _token_in(line: str, key: str) -> str | None:
    """Of `GET /KEY?token=… HTTP/1.1`."""
    method, _, rest = line.partition(" ")
    parts = urlsplit(rest.partition(" ")[0])
    if method != "GET" or not secrets.compare_digest(parts.path.encode(), f"/{key}".encode()):
        return None
    return next(iter(parse_qs(parts.query).get("token", [])), None)
