"""For tests and benchmarks: a PostgreSQL server of one's own in a temporary folder, behind a unix socket; and what
another program reads in a database."""

import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from sqlalchemy import URL

from cluster.db.engine import Where
from cluster.db.postgres import numbered

PLACES = "/usr/lib/postgresql/*/bin"
FAST = ("fsync=off", "full_page_writes=off", "autovacuum=off")
"""What a power cut would undo is faster."""
SECONDS = 60
PREFIX, MAKER = "postgres-", "maker"
"""Of its folder's name; the file in it with the process id of whoever made it."""


class Missing(Exception):
    """There is no PostgreSQL here that could be started; says why."""


class Server:
    """Made by `Server.make`, and running then. `stop` and `start` it at will; `close` removes everything."""

    def __init__(self, bin: Path, folder: Path, user: str | None, durable: bool) -> None:
        self._bin = bin
        self.folder = folder
        self._user = user
        self._durable = durable

    @classmethod
    def make(cls, durable: bool = False) -> "Server":
        """A new one. Raises `Missing`. `durable`: with fsync, as a real one has it."""
        bin, user = _programs(), _account()
        _clear_away(bin, user)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        (folder / MAKER).write_text(str(os.getpid()))
        if user is not None:
            shutil.chown(folder, user)
        server = cls(bin, folder, user, durable)
        try:
            server._make_files()
            server.start()
        except BaseException:
            server.close()
            raise
        return server

    @classmethod
    @contextmanager
    def lent(cls, durable: bool = False) -> Iterator["Server"]:
        """`make` it, and `close` it afterwards."""
        server = cls.make(durable)
        try:
            yield server
        finally:
            server.close()

    def _make_files(self) -> None:
        words = ["initdb", "-D", str(self.folder / "data"), "--no-sync", "-A", "trust", "-E", "UTF8", "-U", "postgres"]
        # another order of names than by code point, as servers in the field have it
        try:
            self._run(*words, "--locale=C", "--locale-provider=icu", "--icu-locale=en-US")
        except Missing:
            shutil.rmtree(self.folder / "data", ignore_errors=True)
            self._run(*words, "--locale=C")

    def start(self) -> None:
        """Answers when this returns."""
        settings = ["listen_addresses=", f"unix_socket_directories={self.folder}", *([] if self._durable else FAST)]
        options = " ".join(f"-c {setting}" for setting in settings)
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-s", "-l", str(self.folder / "log"),
                  "-o", options, "start")  # fmt: skip

    def stop(self, mode: str = "fast") -> None:
        """Connections are cut; `immediate`: as in a crash."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-s", "-m", mode, "stop")

    def close(self) -> None:
        if self.runs:
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def runs(self) -> bool:
        return (self.folder / "data" / "postmaster.pid").exists()

    def url(self, database: str = "postgres") -> URL:
        return URL.create("postgresql", "postgres", database=database, query={"host": str(self.folder)})

    async def sql(self, sql: str, *values: Any, database: str = "postgres") -> list[tuple[Any, ...]]:
        """What it answers to one statement, on a connection of its own."""
        return await outside(self.url(database), sql, *values)

    def _run(self, program: str, *words: str) -> None:
        more: dict[str, Any] = (
            {} if self._user is None else {"user": self._user, "group": self._user, "extra_groups": []}
        )
        done = subprocess.run(
            [str(self._bin / program), *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            cwd=self.folder, timeout=SECONDS, env={**os.environ, "LC_ALL": "C"}, **more,
        )  # fmt: skip
        if done.returncode:
            raise Missing(f"{program} failed: {done.stderr.decode(errors='replace').strip()}")


def _clear_away(bin: Path, user: str | None) -> None:
    """What is left of those whose maker was killed before it could close them."""
    for mark in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{MAKER}"):
        if mark.owner() == pwd.getpwuid(os.getuid()).pw_name and not psutil.pid_exists(int(mark.read_text() or 0)):
            Server(bin, mark.parent, user, durable=False).close()


async def outside(where: Where, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """What another program reads (or does) there now; a `?` for each value."""
    if not isinstance(where, URL):
        return _in_file(where, sql, *values)
    connection = await asyncpg.connect(where.render_as_string(hide_password=False))
    try:
        return [tuple(row) for row in await connection.fetch(numbered(sql), *values)]
    finally:
        await connection.close()


def _in_file(path: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        return [tuple(row) for row in file.execute(sql, values)]


def disk_full(where: Where) -> Exception:
    """What the driver raises when the disk is full."""
    if isinstance(where, Path):
        return sqlite3.OperationalError("database or disk is full")
    full: Exception = asyncpg.DiskFullError("could not extend file: No space left on device")
    return full


def _programs() -> Path:
    """Where its programs are: the newest that Debian has installed, else those on the PATH."""
    found = sorted(Path("/").glob(f"{PLACES.lstrip('/')}/initdb"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    there = shutil.which("initdb")
    if there is None:
        raise Missing("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    return Path(there).resolve().parent


def _account() -> str | None:
    """PostgreSQL refuses to run as root: who it runs as then."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise Missing("PostgreSQL refuses to run as root, and there is no user postgres or nobody")


def main() -> int:
    """`python -m cluster.db.temporary`: 0 when PostgreSQL can be had here, else 1 and why not."""
    try:
        _programs(), _account()
    except Missing as e:
        sys.stderr.write(f"{e}; what needs it is left out.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
