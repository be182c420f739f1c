"""Reasons as one person may read them: a session that they may not see has no name, only a size."""

from collections.abc import Callable, Iterable

from cluster import access
from cluster.ledger import Ledger
from cluster.live import LiveSession
from cluster.models import Reason, User

Sees = Callable[[LiveSession], bool]
NAMED = ("first", "name", "names")
"""Parameters of reasons that hold names of other sessions."""


def seen_by(user: User) -> Sees:
    """Which sessions `user` may see."""
    sees = access.seer(user)
    return lambda session: sees(session.user, session.project)


def seen_from(session: LiveSession) -> Sees:
    """Which sessions everybody may see who sees `session`: for what is written down for all of them."""
    return lambda other: other.project == session.project


def veiled(ledger: Ledger, session: LiveSession, reasons: Iterable[Reason], sees: Sees) -> list[Reason]:
    """Why `session` waits or gives way, without the names of those that `sees` denies; called between two commits."""
    return [_veiled(ledger, session, reason, sees) for reason in reasons]


def label(ledger: Ledger, name: str) -> str:
    """What is said instead of the name: `tools.words` puts it into the reader's language."""
    others = list(ledger.named.get(name, {}).values())
    if not others:
        return "another project's session"
    gpu, cpu = others[0].gpu, others[0].cpu
    return f"another project's session ({gpu:g} GPU)" if gpu else f"another project's session ({cpu:g} CPU)"


def _veiled(ledger: Ledger, session: LiveSession, reason: Reason, sees: Sees) -> Reason:
    if not reason.ahead:
        return reason
    if reason.code == "dependency":
        others = [other for ident in session.depends_on if (other := ledger.dependency(ident)) is not None]
    else:
        others = [other for name in reason.ahead for other in ledger.named.get(name, {}).values()]
    hidden = set(reason.ahead) - {other.name for other in others if sees(other)}
    if not hidden:
        return reason
    params = dict(reason.message.params)
    for key in NAMED:
        if isinstance(told := params.get(key), str):
            params[key] = ", ".join(label(ledger, name) if name in hidden else name for name in told.split(", "))
    message = reason.message.model_copy(update={"params": params})
    ahead = [name for name in reason.ahead if name not in hidden]
    return reason.model_copy(update={"message": message, "ahead": ahead})
