"""The environment variables of a session's processes."""

import os
from pathlib import Path

from cluster.agents.processes import MARK
from cluster.models import Work

_PASSED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
"""What a session on a shared node sees of the agent's own environment."""
_OURS = "HELMSMAN_"


def environment(work: Work, home: Path, private: Path, *, inherit: bool) -> dict[str, str]:
    """The whole environment of `work`.

    `inherit`: node and person share a machine, so it sees what the person's shell has, but nothing of Helmsman's own.
    Unbuffered Python, so that its output can be followed; threads as many as cores; no GPU but its own.
    """
    base = {k: v for k, v in os.environ.items() if (inherit or k in _PASSED) and not k.startswith(_OURS)}
    devices = ",".join(str(d) for d in sorted(work.devices))
    defaults = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(max(1, int(work.cpu)))}
    fixed = {
        "CUDA_VISIBLE_DEVICES": devices,
        "NVIDIA_VISIBLE_DEVICES": devices or "void",
        "HELMSMAN_SESSION": work.id.session,
        "HELMSMAN_SESSION_NAME": work.name,
        "HELMSMAN_USER": work.user,
        "HELMSMAN_ATTEMPT": str(work.id.attempt),
        "HELMSMAN_RANK": str(work.id.rank),
        "HELMSMAN_FOLDERS": str(private),
        MARK: str(home),
    }
    return base | defaults | work.env | fixed
