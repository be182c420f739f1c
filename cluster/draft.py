"""What has been changed on the ledger since the last commit: how it was, to be taken back, and what is to be written.

`mark` and `back` are for one operation, `abandon` and `settle` for all that is committed at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import Any

from pydantic_core import from_json

from cluster.db import log
from cluster.db.log import Statement, as_json, as_utc
from cluster.journal.chain import Link, chained
from cluster.ledger import Ledger, Usage
from cluster.live import (
    NODE_COLUMNS,
    SESSION_COLUMNS,
    LiveNode,
    LiveSession,
    Rank,
    node_values,
    rank_values,
    session_values,
)
from cluster.sentence import Sentence

Values = tuple[Any, ...]
Ranks = tuple[tuple[Rank, str, int | None], ...]
"""The ranks, each with its state and exit code then."""
_begun = attrgetter(*log.BEGUN, "id")
_changing = attrgetter(*log.CHANGING, "id")
_node_changing = attrgetter(*log.NODE_CHANGING, "name")
_now = attrgetter(*log.CHANGING)
_then = itemgetter(*(SESSION_COLUMNS.index(name) for name in log.CHANGING))
_ENDED = SESSION_COLUMNS.index("ended")


@dataclass(slots=True)
class Before:
    """A session as it was; `values` is None when it was not there."""

    session: LiveSession
    values: Values | None
    ranks: Ranks


@dataclass(slots=True)
class Saved:
    """How things were, by id, name and user."""

    sessions: dict[str, Before] = field(default_factory=dict)
    nodes: dict[str, tuple[LiveNode, Values | None]] = field(default_factory=dict)
    usage: dict[str, Usage | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.sessions or self.nodes or self.usage)


class Draft:
    """Changes of `ledger` not yet committed. `events`: how many were ever written; `newest`: the journal's last row."""

    def __init__(self, ledger: Ledger, events: int, newest: Link) -> None:
        self.ledger = ledger
        self._events_before, self._newest = events, newest
        self._first, self._since_mark = Saved(), Saved()
        self._events: list[Values] = []
        self._audits: list[Values] = []
        self._links: list[Link] = []
        """Of the rows in `_audits`."""
        self._keys: list[Values] = []
        self._lengths = (0, 0, 0)

    # ── changing ─────────────────────────────────────────────────────────────────────────────────

    def edit(self, session: LiveSession) -> LiveSession:
        """Before the first change of a session."""
        if session.id not in self._since_mark.sessions:
            ranks = tuple((rank, rank.state, rank.exit_code) for rank in session.ranks)
            before = Before(session, session_values(session), ranks)
            self._since_mark.sessions[session.id] = before
            self._first.sessions.setdefault(session.id, before)
        return session

    def add(self, session: LiveSession) -> None:
        """A new session."""
        before = Before(session, None, ())
        self._since_mark.sessions[session.id] = self._first.sessions[session.id] = before
        self.ledger.enter(session)

    def edit_node(self, node: LiveNode) -> LiveNode:
        """Before the first change of a node."""
        if node.name not in self._since_mark.nodes:
            self._since_mark.nodes[node.name] = before = (node, node_values(node))
            self._first.nodes.setdefault(node.name, before)
        return node

    def add_node(self, node: LiveNode) -> None:
        self._since_mark.nodes[node.name] = self._first.nodes[node.name] = (node, None)
        self.ledger.set_node(node)

    def charge(self, user: str, used: float, now: datetime) -> None:
        """Add `used` device-seconds to what `user` has used."""
        before = self.ledger.usage.get(user)
        self._since_mark.usage.setdefault(user, before)
        self._first.usage.setdefault(user, before)
        self.ledger.usage[user] = Usage(used + (before.by(now) if before else 0.0), now)
        self.ledger.used.add(user)

    def event(
        self,
        at: datetime,
        kind: str,
        severity: str,
        target: str,
        message: Sentence,
        owner: str | None = None,
        project: str | None = None,
    ) -> None:
        said = as_json({"text": message.text, "params": message.params})
        self._events.append((as_utc(at), kind, severity, target, said, owner, project))

    @property
    def newest_event(self) -> int:
        """The number of the newest event that is committed."""
        return self._events_before

    @property
    def written(self) -> Link:
        """The journal's newest row that is committed."""
        return self._newest

    @property
    def head(self) -> Link:
        """The journal's newest row, written or about to be."""
        return self._links[-1] if self._links else self._newest

    def audit(
        self,
        at: datetime,
        user: str,
        action: str,
        operation: str,
        targets: list[str],
        inverse: Mapping[str, Any] | None,
        result: str = "done",
        reasons: Sequence[Any] = (),
    ) -> int:
        """A row of the journal, `operation` as JSON, chained to the one before it; its number."""
        number = self.head.number + 1
        undo = None if inverse is None else as_json(dict(inverse))
        on, why = as_json(targets), as_json([*reasons])
        read = [from_json(operation), from_json(on), None if undo is None else from_json(undo), result, from_json(why)]
        chain = chained(self.head.chain, (number, at, user, action, *read))
        self._audits.append((number, as_utc(at), user, action, operation, on, undo, None, result, why, chain))
        self._links.append(Link(number, chain))
        return number

    def key(self, user: str, key: str, outcome: str, at: datetime) -> None:
        self._keys.append((user, key, outcome, as_utc(at)))

    def ended(self, ref: str) -> list[LiveSession]:
        """Those of this id or name that ended in this draft: the database does not know yet."""
        gone = (b.session for b in self._first.sessions.values() if b.session.id not in self.ledger.sessions)
        return [session for session in gone if ref in (session.id, session.name)]

    def touches(self, ident: str) -> bool:
        return ident in self._first.sessions

    # ── taking back ──────────────────────────────────────────────────────────────────────────────

    def mark(self) -> None:
        """From here on `back` takes back."""
        self._since_mark = Saved()
        self._lengths = (len(self._events), len(self._audits), len(self._keys))

    def back(self) -> None:
        """As it was at `mark`."""
        self._restore(self._since_mark)
        for ident, before in self._since_mark.sessions.items():
            if before.values is None:
                del self._first.sessions[ident]
        for name, (_, values) in self._since_mark.nodes.items():
            if values is None:
                del self._first.nodes[name]
        for rows, length in zip((self._events, self._audits, self._keys), self._lengths, strict=True):
            del rows[length:]
        del self._links[self._lengths[1] :]
        self._since_mark = Saved()

    def abandon(self) -> None:
        """As it was at the last commit."""
        self._restore(self._first)
        self._forget()

    def _restore(self, saved: Saved) -> None:
        for session in saved.sessions.values():
            self._restore_session(session)
        for name, (node, values) in saved.nodes.items():
            if values is None:
                self.ledger.drop_node(name)
            else:
                _set(node, NODE_COLUMNS, values)
                self.ledger.set_node(node)
        for user, usage in saved.usage.items():
            self.ledger.used.add(user)
            if usage is None:
                self.ledger.usage.pop(user, None)
            else:
                self.ledger.usage[user] = usage

    def _restore_session(self, before: Before) -> None:
        session = before.session
        self.ledger.leave(session)
        if before.values is None:
            return
        _set(session, SESSION_COLUMNS, before.values)
        session.ranks = [rank for rank, _, _ in before.ranks]
        for rank, state, code in before.ranks:
            rank.state, rank.exit_code = state, code
        self.ledger.enter(session)

    def _forget(self) -> None:
        self._first, self._since_mark = Saved(), Saved()
        self._events, self._audits, self._keys, self._links = [], [], [], []
        self._lengths = (0, 0, 0)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────

    @property
    def events(self) -> int:
        """How many events it holds."""
        return len(self._events)

    def statements(self) -> list[Statement]:
        """What the database has to be told, in an order that foreign keys allow; empty when nothing changed."""
        sessions = [*self._first.sessions.values()]
        ranks = _RankChanges.of(sessions)
        old = [b for b in sessions if b.values is not None and _changed(b)]
        ended = [b.session for b in old if b.session.ended or (b.values or ())[_ENDED]]
        begun = [b.session for b in old if not (b.session.ended or (b.values or ())[_ENDED])]
        nodes = self._first.nodes.values()
        first = self._events_before + 1
        found: list[Statement] = [
            log.GONE_RANK.of((r.session, r.rank) for r in ranks.gone),
            log.NEW_NODE.of(node_values(node) for node, values in nodes if values is None),
            log.CHANGED_NODE.of(_node_changing(n) for n, values in nodes if values and node_values(n) != values),
            log.NEW_SESSION.of(session_values(b.session) for b in sessions if b.values is None),
            log.BEGUN_SESSION.of(map(_begun, begun)),
            log.CHANGED_SESSION.of(map(_changing, ended)),
            log.NEW_RANK.of(map(rank_values, ranks.new)),
            log.CHANGED_RANK.of((r.state, r.exit_code, r.session, r.rank) for r in ranks.moved),
            log.USAGE.of(
                (user, use.value, use.at) for user in self._first.usage if (use := self.ledger.usage.get(user))
            ),
            (log.EVENT.sql, [(seq, *row) for seq, row in enumerate(self._events, first)]),
            (log.AUDIT.sql, list(self._audits)),
            (log.KEY.sql, list(self._keys)),
        ]
        return [statement for statement in found if statement[1]]

    def settle(self) -> None:
        """It is committed."""
        self._events_before += len(self._events)
        self._newest = self.head
        past = self.ledger.past
        for ident in [ident for ident in past if ident not in self.ledger.dependents]:
            del past[ident]
        self._forget()


def _set(thing: LiveSession | LiveNode, columns: Sequence[str], values: Values) -> None:
    for name, value in zip(columns, values, strict=True):
        setattr(thing, name, value)


def _changed(before: Before) -> bool:
    return before.values is not None and _then(before.values) != _now(before.session)


@dataclass(slots=True)
class _RankChanges:
    """Rows of `allocations` to be deleted, made and changed."""

    gone: list[Rank] = field(default_factory=list)
    new: list[Rank] = field(default_factory=list)
    moved: list[Rank] = field(default_factory=list)

    @classmethod
    def of(cls, sessions: Iterable[Before]) -> "_RankChanges":
        found = cls()
        for before in sessions:
            found._compare(before)
        return found

    def _compare(self, before: Before) -> None:
        """The same object is the same row."""
        now = {id(rank): rank for rank in before.session.ranks}
        for rank, state, code in before.ranks:
            if now.pop(id(rank), None) is None:
                self.gone.append(rank)
            elif (rank.state, rank.exit_code) != (state, code):
                self.moved.append(rank)
        self.new += now.values()
