"""What it means for endpoints that sessions are stopped which are their replicas, told beforehand.

Only what `Serving` holds in memory is asked, since stopping sessions and draining nodes share their commit with others.
"""

from collections.abc import Sequence

from cluster.live import LiveSession
from cluster.models import Effect, SessionState
from cluster.sentence import Param, S, Sentence
from cluster.serving.endpoints import Known
from cluster.transaction import Done, Transaction
from cluster.units import human_duration


def stopped(tx: Transaction, sessions: Sequence[LiveSession]) -> Done:
    """Effects and warnings of stopping `sessions`: which of them are replaced, and which endpoints can't be reached."""
    told = Done(effects=[], targets=[])
    for known, mine in _by_endpoint(tx, sessions):
        missing = known.row.replicas - len(_staying(tx, known, mine))
        for session in mine[: max(0, missing)]:
            words: dict[str, Param] = {"replica": session.name, "name": known.row.name}
            message = S("{replica} is a replica of {name}; another is started in its place.", **words)
            told.effects.append(_effect(tx, known, session, message))
        if _left(tx, known, mine) == 0:
            told.warnings.append(S("{name} can't be reached until a new replica is ready.", name=known.row.name))
    return told


def moved(tx: Transaction, sessions: Sequence[LiveSession]) -> Done:
    """As `stopped`, of those that leave their node when they have been replaced: `movable`."""
    told = Done(effects=[], targets=[])
    for known, mine in _by_endpoint(tx, sessions):
        span = human_duration(known.wish.moves_within.total_seconds())
        for session in mine:
            words: dict[str, Param] = {"replica": session.name, "name": known.row.name, "span": span}
            message = S(
                "{replica}, a replica of {name}, serves on until another is ready elsewhere ({span} at most).", **words
            )
            told.effects.append(_effect(tx, known, session, message))
        if _left(tx, known, mine) == 0:
            words = {"name": known.row.name, "span": span}
            told.warnings.append(S("If there is no room for another within {span}, {name} can't be reached.", **words))
    return told


def movable(tx: Transaction, session: LiveSession) -> bool:
    """It may be serving, so that it is replaced before it is stopped."""
    return session.state == SessionState.RUNNING and tx.core.serving.endpoint_of(session) is not None


def _by_endpoint(tx: Transaction, sessions: Sequence[LiveSession]) -> list[tuple[Known, list[LiveSession]]]:
    found: dict[int, tuple[Known, list[LiveSession]]] = {}
    for session in sessions:
        if known := tx.core.serving.endpoint_of(session):
            found.setdefault(known.row.id, (known, []))[1].append(session)
    return list(found.values())


def _staying(tx: Transaction, known: Known, going: Sequence[LiveSession]) -> list[LiveSession]:
    """Its replicas that are not `going`."""
    live = [tx.ledger.sessions[row.session] for row in known.replicas if row.session in tx.ledger.sessions]
    return [s for s in live if s not in going and tx.core.serving.endpoint_of(s)]


def _left(tx: Transaction, known: Known, going: Sequence[LiveSession]) -> int | None:
    """How many take requests without those that are `going`; None when none does even now."""
    serving = tx.core.serving.serving(known.row.name)
    return len(serving - {session.id for session in going}) if serving else None


def _effect(tx: Transaction, known: Known, session: LiveSession, message: Sentence) -> Effect:
    return Effect(kind="changes", target=session.name, message=message, owner=tx.other(known.row.owner))
