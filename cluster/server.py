"""The server's process: `python -m cluster.server --data DIR [--listen ADDRESS:PORT] [--database URL]`.

Loopback and a free port, unless told otherwise; what it was told is kept in `DIR/listen` for the next start. Its
database is the file `DIR/cluster.db`, or one on a PostgreSQL server: `postgresql://USER@HOST/NAME`, told by --database
or HELMSMAN_DATABASE and kept in `DIR/database`. Every user of the machine sees a command line: the password belongs
into `~/.pgpass`, PGPASSWORD or HELMSMAN_DATABASE, and is not kept.
When it listens, `DIR/server.json` (0600) says where: `{"url", "join_url", "pid", "user", "user_token", "agent_token"}`.
`url` is for this machine; `join_url` for others, null when they cannot reach it. The tokens are files beside it, made
at the first start; the database keeps their hashes only.
"""

import argparse
import asyncio
import fcntl
import getpass
import json
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NamedTuple, TextIO

import structlog
import uvicorn

from cluster.agents import discover
from cluster.api.app import create_app
from cluster.clock import WallClock
from cluster.core import Core
from cluster.db.address import parsed, without_password
from cluster.db.engine import Where
from cluster.db.tables import GroupRow, MemberRow, ProjectRow, UserRow
from cluster.errors import ClusterError, NotAuthenticated, Unavailable
from cluster.monitor import add_option, monitored
from cluster.sentence import S

log = structlog.get_logger(__name__)


class Address(NamedTuple):
    """A host (a name, or an IPv4 or IPv6 address) and a port."""

    host: str
    port: int

    @property
    def text(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """For this machine."""
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        return f"http://{Address(here.get(self.host, self.host), self.port).text}"

    @property
    def join_url(self) -> str | None:
        """For other machines: with this machine's address on the way out, where it listens on all of them."""
        if self.host not in ("0.0.0.0", "::"):
            loopback = self.host in ("localhost", "::1") or self.host.startswith("127.")
            return None if loopback else f"http://{self.text}"
        outward = discover.address("http://127.0.0.1") or socket.gethostname()
        return f"http://{Address(outward, self.port).text}"


def main() -> int:
    """Serve until SIGTERM. Exit 1 with one sentence on stderr when it can't."""
    parser = argparse.ArgumentParser(prog="python -m cluster.server", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="where the database, logs and volumes are")
    parser.add_argument(
        "--listen",
        type=_listen_address,
        metavar="ADDRESS:PORT",
        help="0.0.0.0:8400: for other machines too; kept",
    )
    parser.add_argument("--port", type=int, default=0, help="on loopback; 0: a free one")
    parser.add_argument("--database", metavar="URL", help="postgresql://USER@HOST/NAME, or file; kept")
    add_option(parser)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    # uvicorn ends in order on SIGTERM and then raises it again, which must not kill us in the middle of closing
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with locked(arguments.data):
            where = _database(arguments.data, arguments.database or os.environ.get("HELMSMAN_DATABASE"))
            address = _address(arguments.data, arguments.listen, arguments.port)
            asyncio.run(serve(arguments.data, address, where, arguments.monitor))
    except ClusterError as e:
        print(e, file=sys.stderr)  # noqa: T201 - the one sentence for whoever started us
        return 1
    return 0


async def serve(data: Path, address: Address, where: Where, monitor: int | None = None) -> None:
    """Open the cluster in `data`, listen, and run passes until the server is told to stop. `monitor`: a port for it."""
    with monitored(monitor):
        await _serve(data, address, where)


async def _serve(data: Path, address: Address, where: Where) -> None:
    core = await Core.open(where, clock=WallClock(), data_dir=data, name="embedded", alone=True)
    _keep_database(data, where)
    passes = asyncio.create_task(core.run_forever())
    try:
        user = await _first_user(core)
        listener = _listen(address)
        config = uvicorn.Config(create_app(core), log_level="warning", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        bound = Address(address.host, listener.getsockname()[1])
        _announce(data, bound, user)
        log.info("listening", url=bound.url)
        await server.serve(sockets=[listener])
    finally:
        passes.cancel()
        await asyncio.gather(passes, return_exceptions=True)
        await core.close()


def locked(data: Path) -> TextIO:
    """Hold the directory's lock while the file is open: no second server writes there. Raises `Unavailable`."""
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = open(data / "server.lock", "w")  # noqa: SIM115 - held by whoever asked for it
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        lock.close()
        raise Unavailable(S("Another server runs on {path} already; stop it first.", path=str(data))) from e
    except OSError as e:
        why = e.strerror or str(e)
        raise Unavailable(
            S("The server can't write to {path} ({why}); give it a --data that it can.", path=str(data), why=why)
        ) from e
    return lock


def _listen_address(text: str) -> Address:
    """`ADDRESS:PORT`, `[IPv6]:PORT`."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not ADDRESS:PORT, such as 0.0.0.0:8400")
    return Address(host, int(port))


def _address(data: Path, told: Address | None, port: int) -> Address:
    """Where to listen: as told, and remembered; else as remembered; else loopback."""
    kept = data / "listen"
    if told is not None:
        write_private(kept, told.text)
        return told
    return _listen_address(kept.read_text()) if kept.exists() else Address("127.0.0.1", port)


def _database(data: Path, told: str | None) -> Where:
    """Where the database is: as told, else as remembered, else the file in `data`. Raises `Invalid`."""
    kept = data / "database"
    told = told or (kept.read_text().strip() if kept.exists() else "file")
    return data / "cluster.db" if told == "file" else parsed(told)


def _keep_database(data: Path, where: Where) -> None:
    """For the next start; not before it could be opened."""
    if isinstance(where, Path):
        (data / "database").unlink(missing_ok=True)
    else:
        write_private(data / "database", without_password(where))


def _listen(address: Address) -> socket.socket:
    """Bound and listening: whoever reads server.json may connect at once."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # said to be TCP, or asyncio would leave Nagle's algorithm on, which holds answers back for 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
        listener.listen(128)
    except OSError as e:
        listener.close()
        why = e.strerror or str(e)
        if address.host == "127.0.0.1":
            raise Unavailable(
                S("Port {port} can't be used ({why}); choose another with --port.", port=address.port, why=why)
            ) from e
        raise Unavailable(
            S("{address} can't be listened on ({why}); choose another with --listen.", address=address.text, why=why)
        ) from e
    return listener


async def _first_user(core: Core) -> str:
    """The person on this machine: an admin in project `default`. Made once, with the two tokens."""
    name = await core.meta("local_user")
    if name is None:
        name = _login()
        async with core.db.write() as db:
            db.add_all([UserRow(name=name, role="admin"), ProjectRow(name="default"), GroupRow(name="default")])
            await db.flush()
            db.add(MemberRow(project="default", user=name))
        await core.meta("local_user", name)
    for file, owner in (("user.token", name), ("agent.token", "")):
        path = core.data_dir / file
        if not (path.exists() and await _is_known(core, path.read_text().strip())):
            write_private(path, await core.token_for(owner))
    return name


async def _is_known(core: Core, token: str) -> bool:
    """To this database; it may be another one than the last time."""
    try:
        await core.owner_of(token)
    except NotAuthenticated:
        return False
    return True


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user{os.getuid()}"


def _announce(data: Path, address: Address, user: str) -> None:
    body = {
        "url": address.url,
        "join_url": address.join_url,
        "pid": os.getpid(),
        "user": user,
        "user_token": str(data / "user.token"),
        "agent_token": str(data / "agent.token"),
    }
    write_private(data / "server.json", json.dumps(body))


def write_private(path: Path, text: str) -> None:
    """Write then rename, readable by the owner only."""
    aside = path.with_suffix(path.suffix + ".new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


if __name__ == "__main__":
    sys.exit(main())
