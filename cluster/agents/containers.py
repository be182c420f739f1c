"""The fence of a container engine, podman or docker: the session's image, its own network, the engine's limits.

The supervisor starts `ENGINE run` in the foreground, so that output and exit code come the same way as everywhere.
The container carries the work's name and the node's label: whoever comes later finds it by them.
"""

import csv
import io
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from cluster.agents import processes
from cluster.agents.fence import Launch, Stopped, start_clean
from cluster.agents.record import Spec

WORK = "/work"
FOLDERS = "/folders"
_PROBE = "localhost/helmsman-probe"
_EMPTY_TAR = bytes(10240)
_BOOT = "/proc/sys/kernel/random/boot_id"
_TRY = 8.0
"""Seconds for each step of trying an engine; one that hangs in the first is not asked again."""
_HANGS = 124
_ASK = 30.0
"""Seconds that the engine may take for a short order."""
_OFTEN = 1.0
_MOST_PROCESSES = 16_384
_MOST_FILES = 65_536
_LEAST_MEMORY = 16 << 20
_REFERENCE = re.compile(r"[\w][\w.-]*(:\d+)?(/[\w][\w.-]*)*(:[\w][\w.-]*)?(@sha256:[0-9a-f]{64})?", re.ASCII)
"""An image's name. Not more: podman also takes paths of the host (`dir:/…`), and flags begin with a dash."""


class ContainerIsolation:
    """One container by `engine` ("podman", "docker")."""

    def __init__(self, spec: Spec, engine: str) -> None:
        self._spec = spec
        self._engine = engine
        self._killed_at = 0.0

    @property
    def _name(self) -> str:
        return f"helmsman-{self._spec.unique}"

    def open(self) -> None:
        """Have the image here. What an earlier try left under the same name goes."""
        image = self._spec.image or ""
        if not _REFERENCE.fullmatch(image):
            raise OSError(f"{image} is not an image's name")
        self.close()
        if self._ask("image", "inspect", image).returncode != 0:
            self._pull(image)

    def launch(self) -> Launch | None:
        """Also a session without a command is a container that one can look into."""
        path = Path(self._spec.home) / "environment"
        simple, long = _split(self._spec.env)
        with open(path, "w", encoding="utf-8", opener=_private) as file:
            file.write("".join(f"{k}={v}\n" for k, v in simple.items()))
        argv = command_line(self._engine, self._spec, path, long, cdi=_has_cdi())
        return Launch(argv, {**os.environ, processes.MARK: self._spec.home}, self._spec.home)

    def enter(self) -> None:
        start_clean(self._spec)

    def send(self, family: Iterable[psutil.Process], number: signal.Signals) -> None:
        """By the engine; where it knows of no such container, or does not answer, its own processes are ended."""
        if number == signal.SIGKILL and time.monotonic() - self._killed_at < _OFTEN:
            return
        done = self._ask("kill", "--signal", number.name.removeprefix("SIG"), self._name)
        if number == signal.SIGKILL:
            self._killed_at = time.monotonic()
        if done.returncode != 0:
            processes.send(family, number)

    def over_memory(self, held: Callable[[], int]) -> bool:
        """The kernel looks after it."""
        return False

    def ran_out(self) -> bool:
        """As far as the engine has noticed (podman on version 1 control groups does not)."""
        return self._ask("inspect", "--format", "{{.State.OOMKilled}}", self._name).stdout.strip() == "true"

    def close(self) -> None:
        """Remove the container, running or not."""
        self._ask("rm", "--force", "--volumes", self._name)

    def _pull(self, image: str) -> None:
        """Get the image, however long that takes; an order to stop ends it."""
        with subprocess.Popen(
            [self._engine, "pull", "--quiet", image],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as pull:
            said = _until_done(pull)
        if pull.returncode != 0:
            raise OSError(f"image {image} cannot be had ({_last_line(said)})")

    def _ask(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return _ask(self._engine, *words)


def command_line(engine: str, spec: Spec, env_file: Path, env: dict[str, str], *, cdi: bool) -> list[str]:
    """`ENGINE run …` for `spec`. `env`: variables that a file can't hold; `cdi`: the host describes its NVIDIA GPUs."""
    line = [engine, "run", "--init", "--pull", "never", "--name", f"helmsman-{spec.unique}"]
    line += ["--label", f"helmsman.node={node_label(spec)}", "--label", f"helmsman.work={spec.unique}"]
    line += [*_limits(spec), *_devices(engine, spec, cdi), "--env-file", str(env_file)]
    read_only = {f"{FOLDERS}/{name}" for name in spec.read_only} | {*spec.shown}
    for name, value in env.items():
        line += ["--env", f"{name}={value}"]
    for source, target in _mounts(spec):
        kept = ["readonly"] if target in read_only else []
        line += ["--mount", _csv("type=bind", f"source={source}", f"target={target}", *kept)]
    if spec.host_network:
        line += ["--network", "host"]
    command = ["sleep", "infinity"] if spec.command is None else ["/bin/sh", "-c", spec.command]
    return [*line, "--workdir", workdir(spec), "--entrypoint", "", spec.image or "", *command]


def workdir(spec: Spec) -> str:
    """Where the command starts, inside: its private directory, or the person's on an embedded cluster."""
    return WORK if spec.cwd == str(Path(spec.home) / "files") else spec.cwd


def node_label(spec: Spec) -> str:
    """What all containers of one agent's data directory carry."""
    return str(Path(spec.home).parent)


def sweep(engine: str, root: Path, keep: Iterable[str]) -> list[str]:
    """Remove containers of the work under `root` that nobody looks after: all but those whose work's name is kept."""
    listed = _ask(engine, "ps", "--all", "--filter", f"label=helmsman.node={root}", "--format", "{{.Names}}")
    left = sorted(set(listed.stdout.split()) - {f"helmsman-{unique}" for unique in keep})
    if left:
        _ask(engine, "rm", "--force", "--volumes", *left)
    return left


def why_not(engine: str) -> str:
    """Why it does not work here, in the system's words; empty when a container with all its limits could be started.

    Needs no image and no network: an empty image, with the host's programs mounted. Takes about a second.
    """
    if shutil.which(engine) is None:
        return f"{engine} is not installed"
    known = _ask(engine, "image", "inspect", _PROBE, seconds=_TRY)
    if known.returncode == _HANGS:
        return _last_line(known.stderr)
    if known.returncode != 0:
        made = _ask(engine, "import", "-", _PROBE, seconds=_TRY, given=_EMPTY_TAR)
        if made.returncode != 0:
            return _last_line(made.stderr)
    home = f"/try.{os.getpid()}"
    core = sorted(os.sched_getaffinity(0))[:1]
    spec = Spec(home, "try", 0, 0, "true", "/", {}, {}, core, 1, 256 << 20, None, engine, image=_PROBE)
    line = [engine, "run", "--rm", "--init", "--pull", "never", *_limits(spec)]
    for path in ("/usr", "/lib", "/lib64"):
        line += ["--volume", f"{path}:{path}:ro"] if os.path.isdir(path) else []
    done = _ask(*line, _PROBE, "/usr/bin/cat", _BOOT, seconds=_TRY)
    if done.returncode != 0:
        return _last_line(done.stderr)
    return "" if done.stdout == Path(_BOOT).read_text() else "its containers run on another machine"


def _limits(spec: Spec) -> list[str]:
    memory = max(spec.memory, _LEAST_MEMORY)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    line = ["--log-driver", "none", "--cpus", f"{spec.cpu:g}"]
    line += ["--cpuset-cpus", ",".join(str(c) for c in spec.cores)] if spec.cores else []
    line += ["--memory", f"{memory}b", "--memory-swap", f"{memory}b", "--shm-size", f"{memory}b"]
    line += ["--pids-limit", str(_MOST_PROCESSES), "--security-opt", "no-new-privileges"]
    for name, most in (("core", 0), ("nofile", files), ("nproc", _MOST_PROCESSES)):
        line += ["--ulimit", f"{name}={most}:{most}"]
    return line


def _devices(engine: str, spec: Spec, cdi: bool) -> list[str]:
    """NVIDIA GPUs the way the engine has for them, which brings their libraries; others by their device files."""
    if spec.gpus and engine == "docker":
        return ["--gpus", _csv(f"device={','.join(spec.gpus)}")]
    if spec.gpus and cdi:
        return [word for gpu in spec.gpus for word in ("--device", f"nvidia.com/gpu={gpu}")]
    return [word for path in spec.device_files if os.path.exists(path) for word in ("--device", path)]


def _mounts(spec: Spec) -> list[tuple[str, str]]:
    private = str(Path(spec.home) / "files")
    mounts = [(private, WORK)] + [(path, f"{FOLDERS}/{name}") for name, path in spec.folders.items()]
    mounts += [(path, path) for path in spec.shown if os.path.isdir(path)]
    return mounts if spec.cwd == private else [*mounts, (spec.cwd, spec.cwd)]


def _csv(*fields: str) -> str:
    """As both engines read it: a field with a comma is in quotes."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def _split(env: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What a file with a variable a line can hold, and the rest. In a file other users of the host don't see them."""
    simple = {k: v for k, v in env.items() if "\n" not in k + v}
    return simple, {k: v for k, v in env.items() if k not in simple}


def _has_cdi() -> bool:
    return any(p.suffix in (".yaml", ".json") for d in ("/etc/cdi", "/var/run/cdi") for p in Path(d).glob("*nvidia*"))


def _until_done(pull: "subprocess.Popen[str]") -> str:
    """What it said on stderr. The signals that a supervisor wakes for are blocked, so that they wait for this."""
    while pull.poll() is None:
        if signal.sigtimedwait({signal.SIGUSR1, signal.SIGTERM}, 0.2) is not None:
            pull.kill()
            raise Stopped
    return pull.stderr.read() if pull.stderr else ""


def _ask(
    engine: str, *words: str, seconds: float = _ASK, given: bytes | None = None
) -> "subprocess.CompletedProcess[str]":
    """A short order. An engine that is away answers with 1 and why, one that hangs with `_HANGS`."""
    try:
        done = subprocess.run([engine, *words], capture_output=True, timeout=seconds, check=False, input=given or b"")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess([engine, *words], _HANGS, "", f"it does not answer within {seconds:g} s")
    except OSError as e:
        return subprocess.CompletedProcess([engine, *words], 1, "", str(e))
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1].removeprefix("Error: ").rstrip(".")[:300] if lines else "it gave no reason"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
