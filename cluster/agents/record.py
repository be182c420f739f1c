"""What is known of one piece of work, on disk, so that it outlives the agent, its supervisor and the machine's power.

One directory a piece: `WORK/<session>.<attempt>.<rank>/`. Files are written beside and renamed into place. Only the
standard library here: every supervisor imports this.
"""

import contextlib
import fcntl
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")

State = Literal["preparing", "running", "exited", "lost"]
Why = Literal["", "stopped", "time_limit", "memory", "no_start", "vanished"]


@dataclass(frozen=True)
class Spec:
    """All that a supervisor needs to run one piece of work. Memory in bytes, times in seconds."""

    home: str
    """The record's directory. It marks the processes too: two clusters on one machine may share a session's id."""
    session: str
    attempt: int
    rank: int
    command: str | None
    cwd: str
    env: dict[str, str]
    """The whole environment, nothing is inherited."""
    links: dict[str, str]
    """Folder name -> directory; made as links in the private directory."""
    cores: list[int]
    """The cores it may use; empty for all."""
    cpu: float
    memory: int
    time_limit: float | None
    isolation: str
    nice: int = 0
    image: str | None = None
    folders: dict[str, str] = field(default_factory=dict)
    """Folder name -> its directory on this machine, to be reached from inside the fence."""
    read_only: list[str] = field(default_factory=list)
    """Those of the folders that it may only read, where the fence can see to that."""
    shown: list[str] = field(default_factory=list)
    """Directories of this machine that it may read besides, at their own paths."""
    hidden: list[str] = field(default_factory=list)
    """Directories of this machine that it must not see, where the fence can hide them."""
    devices: list[int] = field(default_factory=list)
    """The numbers of the accelerators that it holds, as the node has them."""
    device_files: list[str] = field(default_factory=list)
    gpus: list[str] = field(default_factory=list)
    """What the driver calls the NVIDIA GPUs that it holds."""
    every_device: bool = False
    """It holds an accelerator whose device files are not known."""
    most_output: int = 256 << 20
    """Bytes of its output that are kept."""
    host_network: bool = False
    """Its ranks on other nodes must reach it."""

    @property
    def key(self) -> str:
        return f"{self.session}.{self.attempt}.{self.rank}"

    @property
    def unique(self) -> str:
        """A name that nothing else on this machine has."""
        return f"{self.key}-{zlib.crc32(self.home.encode()):08x}"


@dataclass(frozen=True)
class Status:
    """Where a piece of work stands. `why` says what ended it other than itself, `words` what the system said."""

    state: State
    at: str
    pid: int | None = None
    begun: str | None = None
    """When the command started."""
    exit_code: int | None = None
    """As a shell says it: 128 + n for signal n."""
    why: Why = ""
    words: str = ""

    @property
    def final(self) -> bool:
        return self.state in ("exited", "lost")


@dataclass(frozen=True)
class Process:
    """A process by number and start: boot and clock ticks since then, which setting the clock does not move."""

    pid: int
    started: str


@dataclass(frozen=True)
class Stop:
    """An order to stop: SIGTERM now, SIGKILL after `grace` seconds."""

    grace: float


@dataclass
class Acknowledged:
    """What the server has confirmed of it."""

    state: str = ""
    offset: int = 0
    """Bytes of output."""
    done: bool = False


@dataclass(frozen=True)
class Record:
    """The directory of one piece of work."""

    path: Path
    output: Path = field(init=False)
    private: Path = field(init=False)
    """Its working directory, unless it was given one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "output", self.path / "output.log")
        object.__setattr__(self, "private", self.path / "files")

    @property
    def spec(self) -> Spec | None:
        return _read(self.path / "spec.json", Spec)

    @property
    def status(self) -> Status | None:
        return _read(self.path / "status.json", Status)

    @property
    def supervisor(self) -> Process | None:
        return _read(self.path / "supervisor.json", Process)

    @property
    def stop(self) -> Stop | None:
        return _read(self.path / "stop.json", Stop)

    @property
    def acknowledged(self) -> Acknowledged:
        return _read(self.path / "acknowledged.json", Acknowledged) or Acknowledged()

    @property
    def launched(self) -> bool:
        """Its command was started, or was about to be: it must never be started again."""
        return (self.path / "launched").exists()

    def put(self, what: Spec | Status | Process | Stop | Acknowledged) -> None:
        """Write one of the files; on return it survives a crash."""
        _write(self.path / f"{type(what).__name__.lower().replace('process', 'supervisor')}.json", asdict(what))

    def accept(self, spec: Spec) -> bool:
        """Make the record; False when it is there already."""
        self.private.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.chmod(0o700)
        if self.spec is not None:
            return False
        self.put(spec)
        return True

    def launch(self) -> None:
        """Note that the command is about to start."""
        handle = os.open(self.path / "launched", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.fsync(handle)
        os.close(handle)
        sync(self.path)

    @contextmanager
    def owned(self) -> Iterator[bool]:
        """Be the only supervisor of it; yields False when another one is. The lock goes with the process."""
        with open(self.path / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def size(self) -> int:
        """Bytes of output so far."""
        with contextlib.suppress(FileNotFoundError):
            return self.output.stat().st_size
        return 0


def now() -> str:
    return datetime.now(UTC).isoformat()


def sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(path: Path, content: dict[str, Any]) -> None:
    beside = path.with_suffix(f".{os.getpid()}")
    with open(beside, "w", encoding="utf-8", opener=_private) as file:
        json.dump(content, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync(path.parent)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _read(path: Path, shape: type[T]) -> T | None:
    """What the file holds; None without one, or if another version of Helmsman wrote one that this one cannot read."""
    try:
        return shape(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, TypeError, ValueError):
        return None
