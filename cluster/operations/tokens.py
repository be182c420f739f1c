"""Making and revoking API tokens. The secret is in the answer of the one who asked, and nowhere else."""

from datetime import timedelta

from cluster import access
from cluster.db.tables import TokenRow
from cluster.errors import NotFound
from cluster.models import CreateToken, Effect, RevokeToken
from cluster.operations.people import find_user
from cluster.sentence import S, Sentence
from cluster.transaction import Done, Transaction

SHOWN = 30
"""Letters of a token's name in a sentence."""


async def create(tx: Transaction, op: CreateToken) -> Done:
    """For oneself; an admin for anybody, and for the agents (`user` is empty)."""
    owner = tx.user.name if op.user is None else op.user
    if owner:
        owner = (await find_user(tx, owner)).name
    _must_have_rights(tx, owner)
    done = Done(
        effects=[Effect(kind="creates", target=op.name or owner or "agents", message=_said(owner, op.days))],
        targets=[],
        undo=S("undo revokes it."),
    )
    if tx.dry_run:
        return done  # nobody will ever hear of it, and Argon2 takes its time
    expires = tx.now + timedelta(days=op.days) if op.days is not None else None
    made = await tx.core.tokens.fresh(owner, op.name, expires)
    tx.db.add(made.row)
    await tx.db.flush()
    done.targets, done.made = [made.row.id], made.made
    done.inverse = {"op": "revoke_token", "token": made.row.id}
    return done


async def revoke(tx: Transaction, op: RevokeToken) -> Done:
    """It opens nothing from now on."""
    row = await tx.db.get(TokenRow, op.token)
    if row is None or not access.has_token_rights(tx.user, row.owner):
        raise NotFound(S("There is no token {token}.", token=op.token[:SHOWN]))
    await tx.db.delete(row)
    await tx.db.flush()
    message = S("Token {token} of {user} opens nothing any more.", token=row.id[:12], user=row.owner or "agents")
    return Done(
        effects=[Effect(kind="removes", target=row.id[:12], message=message, owner=row.owner or None)],
        targets=[row.id],
        warnings=[S("A revoked token can't be brought back; make a new one.")],
    )


def _must_have_rights(tx: Transaction, owner: str) -> None:
    if not access.has_token_rights(tx.user, owner):
        access.must_be_admin(tx.user)


def _said(owner: str, days: float | None) -> Sentence:
    if not owner:
        return S("A token with which machines join this cluster is made.")
    if days is None:
        return S("A token is made with which programs act as {user}; it does not expire.", user=owner)
    return S("A token is made with which programs act as {user}, for {days} days.", user=owner, days=f"{days:g}")
