"""The environment variables of a session's processes."""

import os
from collections.abc import Sequence
from pathlib import Path

from cluster.agents import accelerators, containers
from cluster.agents.processes import MARK
from cluster.models import Device, Work

_PASSED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
"""What a session on a shared node sees of the agent's own environment."""
_OURS = "HELMSMAN_"
LISTEN = "HELMSMAN_LISTEN"
"""The address on which a session's own server is to listen: where the node is the server's machine, for that only."""


def on_the_machine(work: Work, home: Path, devices: Sequence[Device], *, inherit: bool) -> dict[str, str]:
    """The whole environment of `work` as plain processes.

    `inherit`: node and person share a machine, so it sees what the person's shell has, but nothing of Helmsman's own.
    """
    base = {k: v for k, v in os.environ.items() if (inherit or k in _PASSED) and not k.startswith(_OURS)}
    listen = {LISTEN: "127.0.0.1" if inherit else "0.0.0.0"}
    return base | _common(work, home, str(home / "files")) | listen | accelerators.visible(devices)


def in_bubblewrap(work: Work, home: Path, devices: Sequence[Device], *, inherit: bool) -> dict[str, str]:
    """The same behind a fence that hides the other accelerators, so that its own count from 0, and the agent's home."""
    base = on_the_machine(work, home, devices, inherit=inherit)
    if not inherit:
        base["HOME"] = work.env.get("HOME", str(home / "files"))
        base.pop("TMPDIR", None)
    return base | accelerators.visible(devices, fenced=all(d.files for d in devices))


def in_container(work: Work, home: Path, devices: Sequence[Device]) -> dict[str, str]:
    """What is added to the image's own environment."""
    return _common(work, home, containers.FOLDERS) | {LISTEN: "0.0.0.0"} | accelerators.visible(devices, fenced=True)


def _common(work: Work, home: Path, folders: str) -> dict[str, str]:
    """Unbuffered Python, so that output can be followed; as many threads as cores; who it is, where its peers are."""
    defaults = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(max(1, int(work.cpu)))}
    fixed = {
        "HELMSMAN_SESSION": work.id.session,
        "HELMSMAN_SESSION_NAME": work.name,
        "HELMSMAN_USER": work.user,
        "HELMSMAN_ATTEMPT": str(work.id.attempt),
        "HELMSMAN_RANK": str(work.id.rank),
        "HELMSMAN_FOLDERS": folders,
        MARK: str(home),
    }
    return defaults | _rendezvous(work) | work.env | fixed


def _rendezvous(work: Work) -> dict[str, str]:
    """How the ranks of a session over several nodes find each other, as torch.distributed's `env://` reads it.

    One process a node, so that ranks count nodes; `torchrun --nnodes $NNODES --node_rank $NODE_RANK …` starts more.
    """
    if len(work.hosts) < 2:
        return {}
    return {
        "MASTER_ADDR": work.hosts[0],
        "MASTER_PORT": str(work.port),
        "NNODES": str(len(work.hosts)),
        "NODE_RANK": str(work.id.rank),
        "WORLD_SIZE": str(len(work.hosts)),
        "RANK": str(work.id.rank),
        "HELMSMAN_HOSTS": ",".join(work.hosts),
    }
