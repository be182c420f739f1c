"""The cluster under attack: one server and its agents as processes, in one folder; each is started anew when killed."""

import json
import os
import signal
import subprocess
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from sqlalchemy import URL

from cluster.agents import processes
from cluster.client import Client
from cluster.db.engine import Where
from cluster.errors import Unavailable
from cluster.sentence import S

SUPERVISOR = "cluster.agents.supervisor"


@dataclass
class Daemon:
    """A process that is to run all the time."""

    name: str
    command: list[str]
    folder: Path
    """Its data, and the working directory."""
    process: "subprocess.Popen[bytes]" = field(init=False)
    fell: list[str] = field(default_factory=list)
    """How it ended, whenever it did so unasked."""

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )

    def kill(self) -> None:
        """SIGKILL, and gone when this returns."""
        self.look()
        self.process.kill()
        self.process.wait()

    def look(self) -> None:
        """Take note if it has ended by itself."""
        code = self.process.poll()
        if code is not None:
            last = self.log.read_text(errors="replace").splitlines()[-5:]
            self.fell.append(f"{self.name} ended by itself with {code}: {' / '.join(last)}")

    def stop(self) -> None:
        """SIGTERM; it must end in order."""
        self.look()
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if code != 0:
            self.fell.append(f"{self.name} answered SIGTERM with {code}.")

    def cpu_seconds(self) -> float:
        """What it has used since its start; endless when it is gone."""
        try:
            return sum(psutil.Process(self.process.pid).cpu_times()[:2])
        except psutil.Error:
            return float("inf")


class House:
    """A folder with `server/`, `n1/` … and `runs/`: one file a session, a line for each rank that began."""

    def __init__(self, folder: Path, agents: int, database: URL | None = None) -> None:
        """With its database in a file of the server's, unless it is to be elsewhere."""
        self.folder = folder.resolve()
        self.database: Where = database or self.folder / "server" / "cluster.db"
        self.runs = self.folder / "runs"
        self.runs.mkdir(parents=True)
        command = ["cluster.server", "--data", str(self.folder / "server")]
        if database is not None:
            command += ["--database", database.render_as_string(hide_password=False)]
        self.server = Daemon("server", command, self.folder / "server")
        self.agents = [self._agent(f"n{i + 1}") for i in range(agents)]

    @property
    def daemons(self) -> list[Daemon]:
        return [self.server, *self.agents]

    def _agent(self, name: str) -> Daemon:
        """The first runs plain processes, the others what the host allows."""
        where, server = self.folder / name, self.server.folder
        command = ["cluster.agents", "--name", name, "--data", str(where), "--same-host"]
        command += ["--server", str(server / "server.json"), "--token-file", str(server / "agent.token")]
        return Daemon(name, command + (["--isolation", "process"] if name == "n1" else []), where)

    def connect(self) -> Client:
        """As the person on this machine. Raises `Unavailable` where there is no living server."""
        try:
            said = json.loads((self.server.folder / "server.json").read_text())
            token = Path(said["user_token"]).read_text().strip()
        except FileNotFoundError as e:
            raise Unavailable(S("The server has not started yet.")) from e
        return Client.connect(said["url"], token)

    @property
    def up(self) -> bool:
        """The server that runs now has announced itself."""
        file = self.server.folder / "server.json"
        return file.exists() and json.loads(file.read_text())["pid"] == self.server.process.pid

    def started(self, session: str) -> list[str]:
        """What the ranks of `session` wrote as they began: `ATTEMPT RANK`, one line each time."""
        file = self.runs / session
        return file.read_text().splitlines() if file.exists() else []

    def supervisors(self) -> list[tuple[Path, psutil.Process]]:
        """Those that live, each with the record of its work, in order of the records' names."""
        found = []
        for process in psutil.process_iter():
            *words, record = _command(process)
            if SUPERVISOR in words and self._is_ours(record):
                found.append((Path(record), process))
        return sorted(found, key=lambda pair: pair[0].name)

    def leftovers(self) -> list[str]:
        """Living processes of the work here, and control groups that were made for it."""
        made = {f"helmsman-{r.name}-{zlib.crc32(str(r).encode()):08x}" for r in self.folder.glob("n*/work/*")}
        groups = [g for g in Path("/sys/fs/cgroup").glob("**/helmsman-*") if g.name in made]
        return [f"process {p.pid}" for p in self._working()] + [f"control group {g}" for g in groups]

    def close(self) -> None:
        """Stop the daemons, and kill what is left of the work."""
        for daemon in self.daemons:
            daemon.stop()
        processes.send(self._working(), signal.SIGKILL)

    def _working(self) -> list[psutil.Process]:
        supervisors = [process for _, process in self.supervisors()]
        return supervisors + [p for p in psutil.process_iter() if self._is_ours(_mark(p))]

    def _is_ours(self, path: str) -> bool:
        return path.startswith(f"{self.folder}{os.sep}")


def _command(process: psutil.Process) -> list[str]:
    """Its words; one empty word for what is a kernel thread or has ended."""
    try:
        return process.cmdline() or [""]
    except psutil.Error:
        return [""]


def _mark(process: psutil.Process) -> str:
    """The directory of the work that it belongs to; empty for what belongs to none, or has ended."""
    try:
        return str(process.environ().get(processes.MARK, ""))
    except (psutil.Error, OSError):
        return ""
