"""Which fence this host allows: the best that works, found by trying, once, when the agent starts."""

import os
from typing import NamedTuple

from cluster.agents import bubblewrap, containers
from cluster.agents.isolation import CONTAINERS, GROUPS, KINDS
from cluster.errors import Invalid
from cluster.sentence import S


class Choice(NamedTuple):
    """`kind` is what the node shows; `plain` is for sessions without an image (the same unless `kind` is an engine)."""

    kind: str
    plain: str


def choose(wanted: str | None = None, *, same_host: bool = False) -> Choice:
    """The best that works here, found by trying, once; or the one asked for ("bubblewrap": with the best limits).

    Where person and node share a machine, work without an image is not fenced off from the person's own files.
    Raises `Invalid` for a name that there is not, or that does not work here.
    """
    if wanted is None:
        others = plain(same_host)
        return Choice(next((k for k in CONTAINERS if not _why_not(k)), others), others)
    if wanted not in KINDS:
        names = ", ".join(KINDS)
        raise Invalid(S("There is no isolation {name}; it is one of {names}.", name=wanted, names=names))
    asked = [k for k in KINDS if k == wanted or k.startswith(f"{wanted}+")]
    chosen = next((k for k in asked if not _why_not(k)), None)
    if chosen is None:
        raise Invalid(S("Isolation {name} does not work here: {why}.", name=wanted, why=_why_not(wanted)))
    return Choice(chosen, plain(same_host) if chosen in CONTAINERS else chosen)


def plain(same_host: bool = False) -> str:
    """The best of those that need no image; "process" works everywhere."""
    kinds = [k for k in KINDS if k not in CONTAINERS and not (same_host and k.startswith("bubblewrap"))]
    return next(k for k in kinds if not _why_not(k))


def _why_not(kind: str) -> str:
    """Why `kind` does not work here; empty when it does."""
    if kind in CONTAINERS:
        return containers.why_not(kind)
    parts = kind.split("+")
    reasons = (bubblewrap.why_not() if p == "bubblewrap" else _no_groups(p) for p in reversed(parts) if p != "process")
    return next((why for why in reasons if why), "")


def _no_groups(version: str) -> str:
    groups = GROUPS[version](f"try-{os.getpid()}")
    try:
        groups.create(memory=1 << 30, cpu=1)
    except OSError as e:
        return e.strerror or str(e)
    finally:
        groups.remove()
    return ""
