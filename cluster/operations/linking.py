"""Who somebody is at the OpenID Connect provider: by hand for those who are here, and at a first login."""

from sqlalchemy import select

from cluster import access
from cluster.db.tables import UserRow
from cluster.models import CreateUser, Effect, LinkUser, Reason
from cluster.operations import people
from cluster.sentence import S, Sentence
from cluster.transaction import Done, Refused, Transaction


async def link(tx: Transaction, op: LinkUser) -> Done:
    """A subject is one person's; a person has one at most."""
    access.must_may(tx.user, "link", "user")
    row = await people.find_user(tx, op.user)
    if op.subject == row.subject:
        raise Refused(Reason(code="conflict", message=S("The login of {user} is so already.", user=row.name)))
    other = await subject_of(tx, op.subject)
    if other is not None:
        message = S("Whoever that is at the login server is {user} here; take it from them first.", user=other)
        raise Refused(Reason(code="conflict", message=message))
    return await _linked(tx, row, op.subject)


async def _linked(tx: Transaction, row: UserRow, subject: str | None) -> Done:
    before, row.subject = row.subject, subject
    await tx.db.flush()
    tx.event("user_linked", row.name, _said(tx, row), owner=row.name)
    return Done(
        effects=[Effect(kind="changes", target=row.name, message=_meant(row))],
        targets=[row.name],
        undo=S("undo gives {user} the login back that there was before.", user=row.name),
        inverse={"op": "link_user", "user": row.name, "subject": before},
    )


async def first_login(tx: Transaction, op: CreateUser, subject: str) -> str:
    """Somebody new, known to the login server as `subject`: made and linked, with a row in the journal for each.

    Their name here. Refused when it is somebody's already: it isn't taken over.
    """
    made = await people.create_user(tx, op)
    name = made.targets[0]
    linked = await _linked(tx, await tx.db.get_one(UserRow, name), subject)
    for asked, done in ((op, made), (LinkUser(user=name, subject=subject), linked)):
        tx.core.draft.audit(tx.now, tx.user.name, asked.op, asked.model_dump_json(), done.targets, done.inverse)
    return name


async def subject_of(tx: Transaction, subject: str | None) -> str | None:
    """Whose it is."""
    if subject is None:
        return None
    return await tx.db.scalar(select(UserRow.name).where(UserRow.subject == subject))


def _said(tx: Transaction, row: UserRow) -> Sentence:
    if row.subject is None:
        return S("{admin} took the login at the login server from {user}.", admin=tx.user.name, user=row.name)
    return S("{admin} linked {user} to {issuer}.", admin=tx.user.name, user=row.name, issuer=_issuer(row.subject))


def _meant(row: UserRow) -> Sentence:
    if row.subject is None:
        return S("{user} can't log in by the login server any more; tokens made so far still work.", user=row.name)
    return S(
        "Whoever logs in at {issuer} as {subject} is {user} here.",
        issuer=_issuer(row.subject),
        subject=row.subject.partition(" ")[2],
        user=row.name,
    )


def _issuer(subject: str) -> str:
    return subject.partition(" ")[0]
