"""Which machine may speak as which node: a name belongs to the machine whose secret came with it first.

The agents' token lets a machine join; the node's own secret keeps other machines, which hold the same token, from
taking its name. The database keeps hashes only, in `meta`: `cluster_id`, and `node_secret:NAME`.
"""

import hashlib
import hmac
import re
import secrets
from typing import TYPE_CHECKING

from cluster.db.tables import NodeRow
from cluster.errors import Conflict, Invalid
from cluster.models import NodeInfo, NodeStatus, Registered
from cluster.sentence import S

if TYPE_CHECKING:
    from cluster.core import Core

_NAME = re.compile(r"[^\s/\x00-\x1f]{1,100}")


class Enrolment:
    """Asked at each registration and each beat that comes over the network."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._known: dict[str, str | None] = {}
        """Node -> hash of its secret, as far as it was asked for."""

    async def admit(self, info: NodeInfo) -> Registered:
        """Bind the name to the machine. Raises `Conflict` when it is another, living machine's, or the machine's data
        is another cluster's; `Invalid` for what cannot be a name."""
        if not _NAME.fullmatch(info.name):
            raise Invalid(S("{name} can't be a node's name.", name=info.name))
        ident = await self._ident()
        if info.cluster not in (None, ident):
            raise Conflict(
                S("This machine's data belongs to another cluster; give the agent another --data to join this one.")
            )
        known = await self._secret_of(info.name)
        if known is None or not _same(known, info.secret):
            if known is not None and (info.secret is None or await self._lives(info.name)):
                raise Conflict(
                    S("Another machine is {name} here, and is alive; give this one another --name.", name=info.name)
                )
            await self._bind(info.name, info.secret)
        return Registered(cluster=ident)

    async def check(self, node: str, secret: str | None) -> None:
        """Raises `Conflict` when a beat comes from another machine than the one that `node` is."""
        known = await self._secret_of(node)
        if known is not None and not _same(known, secret):
            raise Conflict(S("{name} is another machine by now.", name=node))

    async def _ident(self) -> str:
        return await self._core.meta("cluster_id") or str(await self._core.meta("cluster_id", secrets.token_hex(8)))

    async def _secret_of(self, node: str) -> str | None:
        """Its hash. None for a node that has none: the first machine that comes with one gets the name."""
        if node not in self._known:
            self._known[node] = await self._core.meta(f"node_secret:{node}")
        return self._known[node]

    async def _bind(self, node: str, secret: str | None) -> None:
        if secret is not None:
            await self._core.meta(f"node_secret:{node}", _hashed(secret))
            self._known[node] = _hashed(secret)

    async def _lives(self, node: str) -> bool:
        async with self._core.db.read() as db:
            row = await db.get(NodeRow, node)
        return row is not None and row.status != NodeStatus.LOST


def _same(known: str, secret: str | None) -> bool:
    return secret is not None and hmac.compare_digest(known, _hashed(secret))


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
