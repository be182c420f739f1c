"""Which folders a session gets, and how: to write, or only to read."""

from collections import Counter

from cluster.live import LiveSession
from cluster.models import Reason
from cluster.sentence import S, Sentence
from cluster.storage import rights
from cluster.storage.ready import must_be_ready
from cluster.transaction import Refused, Transaction

FENCED = ("bubblewrap", "simulated")
"""Beginnings of the kinds of isolation that keep a session from writing to what it may only read."""
ENGINES = ("podman", "docker")
"""These do so too, for a session with an image; others run there as well as the node can."""


async def mounted(tx: Transaction, refs: list[str]) -> tuple[list[str], list[str]]:
    """The folders as `project/name`, each once, and those of them that the person may only read."""
    if not refs:
        return [], []  # most sessions: no look at the database
    rows = {row.id: row for row in [await tx.folder(ref) for ref in refs]}
    async with tx.look() as db:
        known = await rights.grants(db)
    for row in rows.values():
        must_be_ready(row)
    places = [f"{row.project}/{row.name}" for row in rows.values()]
    if twice := next((name for name, count in Counter(inside(places).values()).items() if count > 1), None):
        message = S("Two of the folders would be called {name} in the session; mount one of them.", name=twice)
        raise Refused(Reason(code="conflict", message=message))
    return places, [f"{r.project}/{r.name}" for r in rows.values() if not rights.writes(tx.user, r, known)]


def inside(mounts: list[str]) -> dict[str, str]:
    """What each folder is called in a session: by its name, and those of one name with their project before it."""
    names = Counter(mount.split("/", 1)[1] for mount in mounts)
    alone = {mount for mount in mounts if names[mount.split("/", 1)[1]] == 1}
    return {mount: mount.split("/", 1)[1] if mount in alone else mount.replace("/", "-", 1) for mount in mounts}


def unprotected(tx: Transaction, session: LiveSession) -> list[Sentence]:
    """Where plain processes run, nothing keeps them from writing to a folder that is to be read only: said before."""
    if not session.read_only:
        return []
    nodes = [node for node in tx.ledger.nodes.values() if node.resource_group == session.resource_group]
    fenced = FENCED + ENGINES if session.image is not None else FENCED
    if all(node.isolation.startswith(fenced) for node in nodes):
        return []
    names = ", ".join(session.read_only)
    return [S("{folders} may only be read, but some nodes here run plain processes, which nothing keeps from writing.",
              folders=names)]  # fmt: skip
