"""The fence of bubblewrap: the machine read-only, and writable only what belongs to the session.

```
/            the machine's, read-only              /tmp, /var/tmp, /run   empty, its own
/dev         only its own accelerators             /proc                  only its own processes
the agent's data and home: empty, but its Python    private directory, folders: writable, but what is to be read only
```

Network, users and host name are the machine's. The limits come from the plain fence inside which bubblewrap runs.
"""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from cluster.agents import processes
from cluster.agents.fence import Isolation, Launch
from cluster.agents.record import Spec

_EMPTY = ("/tmp", "/var/tmp", "/run")
_NEEDED = ("/run/systemd/resolve", "/run/resolvconf", "/run/netconfig", "/run/nvidia-persistenced")
"""Of /run: how names are looked up, and what a driver needs. The rest has sockets of daemons that obey root."""
_SECRET = ("/etc/shadow", "/etc/gshadow", "/etc/ssh")
_TRY = 5.0
_NOT_FOR_BWRAP = ("LD_", "GLIBC_TUNABLES")
"""Variables that would change bubblewrap itself, which runs outside of the fence; they are set inside."""


class BubblewrapIsolation:
    """Around `plain`, which holds memory, CPU and number of processes."""

    def __init__(self, spec: Spec, plain: Isolation) -> None:
        self._spec = spec
        self._plain = plain

    def open(self) -> None:
        self._plain.open()

    def launch(self) -> Launch | None:
        launch = self._plain.launch()
        if launch is None:
            return None
        inside = {k: v for k, v in launch.env.items() if k.startswith(_NOT_FOR_BWRAP)}
        outside = {k: v for k, v in launch.env.items() if k not in inside}
        return Launch(command_line(_found(), self._spec, launch.argv, inside), outside, "/")

    def enter(self) -> None:
        self._plain.enter()

    def send(self, family: Iterable[psutil.Process], number: signal.Signals) -> None:
        """bubblewrap's own processes are not asked to end: they do when the command has, and all dies with them."""
        everybody = list(family)
        inside = [p for p in everybody if processes.name(p) != "bwrap"]
        processes.send(inside if inside and number == signal.SIGTERM else everybody, number)

    def over_memory(self, held: Callable[[], int]) -> bool:
        return self._plain.over_memory(held)

    def ran_out(self) -> bool:
        return self._plain.ran_out()

    def close(self) -> None:
        self._plain.close()


def command_line(bwrap: str, spec: Spec, argv: list[str], env: dict[str, str]) -> list[str]:
    """`argv` inside the fence of `spec`, with `env` added to the environment there."""
    line = [bwrap, "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--cap-drop", "ALL"]
    line += ["--ro-bind", "/", "/", *_devices(spec), "--proc", "/proc"]
    for path in (*_EMPTY, *spec.hidden):
        line += ["--tmpfs", path]
    for path in (*_NEEDED, sys.base_prefix, sys.prefix):
        line += ["--ro-bind-try", path, path]
    for path in _SECRET:
        line += _masked(Path(path))
    for path in dict.fromkeys((str(Path(spec.home) / "files"), *spec.folders.values(), spec.cwd)):
        line += ["--bind", path, path]
    for name in spec.read_only:
        line += ["--ro-bind", spec.folders[name], spec.folders[name]]
    for path in spec.shown:
        line += ["--ro-bind-try", path, path]
    for name, value in env.items():
        line += ["--setenv", name, value]
    return [*line, "--chdir", spec.cwd, "--", *argv]


def why_not() -> str:
    """Why it does not work here, in the system's words; empty when it does. Starts a process."""
    if shutil.which("bwrap") is None:
        return "bwrap is not installed"
    tried = [_found(), "--unshare-pid", "--unshare-ipc", "--cap-drop", "ALL", "--ro-bind", "/", "/"]
    tried += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", "/run", "--", "true"]
    try:
        done = subprocess.run(tried, capture_output=True, text=True, timeout=_TRY, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        return str(e)
    return (done.stderr.strip() or f"it ended with {done.returncode}") if done.returncode else ""


def _found() -> str:
    return shutil.which("bwrap") or "/usr/bin/bwrap"


def _devices(spec: Spec) -> list[str]:
    """Its own accelerators; all of /dev when the files of one that it holds are not known."""
    if spec.every_device:
        return ["--dev-bind", "/dev", "/dev"]
    line = ["--dev", "/dev"]
    for path in spec.device_files:
        line += ["--dev-bind-try", path, path]
    return line


def _masked(path: Path) -> list[str]:
    if path.is_dir():
        return ["--tmpfs", str(path)]
    return ["--ro-bind", "/dev/null", str(path)] if path.exists() else []
