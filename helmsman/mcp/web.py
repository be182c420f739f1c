"""Over HTTP ("streamable HTTP", /mcp): many clients, each with a token of the cluster, each acting as its owner."""

import hashlib
import ipaddress
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import psutil
import uvicorn
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.authentication import AuthenticationError

from cluster.errors import ClusterError, NotAuthenticated
from cluster.models import S
from helmsman.errors import BadConfig, HelmsmanError
from helmsman.mcp.reach import Anybodys, Which, anybodys
from helmsman.mcp.server import Door, Request, create
from helmsman.render.look import language_of_locale
from tools.words import say

PATH = "/mcp"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
Announce = Callable[[str], None]


class Address(NamedTuple):
    host: str
    port: int

    @property
    def name(self) -> str:
        """As it stands in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host


def address_of(text: str) -> Address:
    """`PORT`, `ADDRESS:PORT` or `[IPv6]:PORT`; loopback unless it is said. Raises `BadConfig`."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not (port.isascii() and port.isdigit()) or int(port) > 65535 or text.startswith(":"):
        raise BadConfig(S("--http is PORT or ADDRESS:PORT, such as 8500 or 127.0.0.1:8500, not {said}.", said=text))
    return Address(host, int(port))


async def serve(which: Which, text: str, announce: Announce) -> None:
    """Until SIGTERM or Ctrl-C. `announce` gets sentences for the person who started it; port 0 takes a free one.

    Raises `HelmsmanError` when the address can't be used."""
    address = address_of(text)
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(_listen(address))
        address = Address(address.host, listener.getsockname()[1])
        place = await anybodys(stack, which)
        door = Door(
            client_for=lambda request: place.client(token_of(request)),
            language=which.settings.language,
            locale=language_of_locale(),
            timezone=place.timezone,
        )
        app = app_of(door, place, address)
        for line in _greeting(address, place):
            announce(line)
        # uvicorn ends in order and then raises the signal again, which must not keep us from closing the rest
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        await uvicorn.Server(_config(app)).serve(sockets=[listener])


def app_of(door: Door, place: Anybodys, address: Address) -> Starlette:
    """The protocol at /mcp: no request without a token of the cluster, none from a page of another site."""
    hosts = [f"{name}:*" for name in names_of(address.host)]
    return create(door).streamable_http_app(
        streamable_http_path=PATH,
        transport_security=TransportSecuritySettings(
            allowed_hosts=hosts, allowed_origins=[f"http://{host}" for host in hosts]
        ),
        auth=AuthSettings(issuer_url=AnyHttpUrl(place.url), resource_server_url=None),
        token_verifier=Tokens(place),
    )


class Tokens:
    """The cluster says whose a token is; asked anew with every request, so that an ended one is of no use at once."""

    def __init__(self, place: Anybodys) -> None:
        self._place = place

    async def verify_token(self, token: str) -> AccessToken | None:
        """None for an unknown one. A session belongs to the token that began it, not to all of its owner's."""
        try:
            me = await self._place.client(token).whoami()
        except NotAuthenticated:
            return None
        except ClusterError as error:
            raise AuthenticationError(str(error.sentence)) from error
        ident = hashlib.sha256(token.encode()).hexdigest()
        return AccessToken(token=token, client_id=ident, subject=me.name, scopes=[])


def token_of(request: Request) -> str:
    """The one that this very request was let in with."""
    user: Any = request.request.user if request.request is not None else None
    assert isinstance(user, AuthenticatedUser), "the app asks for a token"
    return user.access_token.token


def names_of(host: str) -> Sequence[str]:
    """What this machine may be called in a request's Host header: a name that someone else's DNS points here is none.

    Loopback always; on an address, that; on all addresses, each of them and the machine's own names."""
    try:
        everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        everywhere = False
    if not everywhere:
        return [*LOOPBACK, Address(host, 0).name]
    own = [each.address.partition("%")[0] for every in psutil.net_if_addrs().values() for each in every
           if each.family in (socket.AF_INET, socket.AF_INET6)]  # fmt: skip
    return [*LOOPBACK, *(Address(each, 0).name for each in own), socket.gethostname(), socket.getfqdn()]


def _greeting(address: Address, place: Anybodys) -> list[str]:
    lines = [S("MCP clients reach Helmsman at {url}.", url=f"http://{address.name}:{address.port}{PATH}")]
    if place.token:
        lines.append(S("Their bearer token: {token}", token=place.token))
    else:
        lines.append(S("Each needs a token of the cluster (`helmsman token create`) as its bearer token."))
    if address.host not in ("127.0.0.1", "::1", "localhost"):
        lines.append(S("Tokens pass this address unencrypted; put a proxy with TLS before it."))
    return [say(line, language_of_locale()) for line in lines]


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app, access_log=False, log_level="warning", server_header=False, proxy_headers=False, ws="none",
        timeout_graceful_shutdown=1,
    )  # fmt: skip


def _listen(address: Address) -> socket.socket:
    """Bound before the cluster is started. Said to be TCP, or asyncio would leave Nagle's algorithm on (40 ms)."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        why = error.strerror or str(error)
        where = f"{address.name}:{address.port}"
        raise HelmsmanError(
            S("{address} cannot be used ({why}). Choose another with --http.", address=where, why=why)
        ) from error
    return listener
