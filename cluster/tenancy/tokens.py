"""API tokens: `hm_<id>_<secret>`. The database keeps the id and the Argon2 hash of the secret; a token is shown once.

A verified token is remembered in memory by its SHA-256, so that only its first request pays for Argon2. What it opens
is looked up at each request: a token that was revoked, has expired or is a deactivated person's opens nothing.
"""

import asyncio
import hashlib
import secrets
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from cluster.db.tables import TokenRow
from cluster.errors import NotAuthenticated
from cluster.models import TokenMade
from cluster.sentence import S

if TYPE_CHECKING:
    from cluster.core import Core

_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
"""OWASP's least for passwords. Our secrets have 256 random bits, so more would only cost."""
AT_ONCE = 2
"""So many hashes are made at the same time: each takes 19 MiB and a core."""
MOST_WRONG = 10
"""So many wrong secrets of one token are looked at within `WINDOW`."""
WINDOW = timedelta(minutes=1)


class Fresh(NamedTuple):
    """A token that was just made: its row, not added to anything yet, and the token itself."""

    row: TokenRow
    token: str

    @property
    def made(self) -> TokenMade:
        """For the one who asked for it."""
        row = self.row
        return TokenMade(
            id=row.id, user=row.owner, name=row.name, created=row.created, expires=row.expires, token=self.token
        )


class Tokens:
    """Makes tokens, and says whose they are."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._verified: dict[str, tuple[str, str | None]] = {}
        """SHA-256 of a token -> its id and the hash that it was found to fit."""
        self._passing: dict[str, str] = {}
        """SHA-256 of a token that is not written down -> whose it is."""
        self._looking: dict[str, asyncio.Task[bool]] = {}
        self._wrong: dict[str, tuple[datetime, int]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def fresh(self, owner: str, name: str = "", expires: datetime | None = None) -> Fresh:
        """A new token of a user's ("" for the agents'); it is good as soon as its row is committed."""
        ident, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        async with self._slots:
            hashed = await asyncio.to_thread(_HASHER.hash, secret)
        token = f"hm_{ident}_{secret}"
        self._verified[_digest(token)] = ident, hashed
        now = self._core.clock.now()
        return Fresh(TokenRow(id=ident, secret=hashed, owner=owner, name=name, created=now, expires=expires), token)

    async def make(self, owner: str, name: str = "") -> str:
        """As `fresh`, written down at once, by the server itself."""
        made = await self.fresh(owner, name)
        async with self._core.db.write() as db:
            db.add(made.row)
        return made.token

    def passing(self, owner: str) -> str:
        """A token that is good until this process ends, and is written nowhere; for callers in the process itself."""
        token = f"hm_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"
        self._passing[_digest(token)] = owner
        return token

    async def owner_of(self, token: str) -> str:
        """Whose it is; "" for the agents'. Raises `NotAuthenticated`."""
        digest = _digest(token)
        if digest in self._passing:
            return self._passing[digest]
        rows = (await self._core.fresh_directory()).tokens
        row = rows.get(digest) or rows.get(_ident(token))
        if row is None or not await self._fits(row, token, digest) or self._late(row):
            raise NotAuthenticated(S("This token is not known here; log in again or restart `helmsman`."))
        return row.owner

    def _late(self, row: TokenRow) -> bool:
        return row.expires is not None and row.expires <= self._core.clock.now()

    async def _fits(self, row: TokenRow, token: str, digest: str) -> bool:
        """Is `token` the one that `row` is of? Argon2 is asked once for each, however many ask at the same time."""
        if row.secret is None:
            return row.id == digest  # from before there were two halves
        if self._verified.get(digest) == (row.id, row.secret):
            return True
        if digest not in self._looking:
            self._count(row.id)
            self._looking[digest] = asyncio.create_task(self._look(row, token, digest))
        return await asyncio.shield(self._looking[digest])

    async def _look(self, row: TokenRow, token: str, digest: str) -> bool:
        try:
            async with self._slots:
                fits = await asyncio.to_thread(_verified, row.secret or "", token.rpartition(f"{row.id}_")[2])
        finally:
            del self._looking[digest]
        if fits:
            self._wrong.pop(row.id, None)
            self._verified[digest] = row.id, row.secret
        return fits

    def _count(self, ident: str) -> None:
        """Another secret is tried for this token. Raises `NotAuthenticated` when it has been too many."""
        now = self._core.clock.now()
        since, tries = self._wrong.get(ident, (now, 0))
        if now - since > WINDOW:
            since, tries = now, 0
        if tries >= MOST_WRONG:
            raise NotAuthenticated(S("Too many wrong tokens; wait a minute and try again."))
        self._wrong[ident] = since, tries + 1


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _ident(token: str) -> str:
    """The public half; empty for what is no token of ours."""
    kind, _, rest = token.partition("_")
    return rest.partition("_")[0] if kind == "hm" else ""


def _verified(hashed: str, secret: str) -> bool:
    try:
        return _HASHER.verify(hashed, secret)
    except (VerificationError, InvalidHashError):
        return False
