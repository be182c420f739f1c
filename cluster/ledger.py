"""Everything that is live, in memory, with what it is found by. The database is its log and what it is loaded from.

Only `Draft` and `Transaction` change it, so that every change can be taken back until it is committed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from cluster.db.tables import AllocationRow, NodeRow, SessionRow, UsageRow
from cluster.lifecycle import ENDED, WAITING
from cluster.live import LiveNode, LiveSession, Rank, rank_of
from cluster.models import SessionState

HALF_LIFE = timedelta(days=7)
"""After so long, past use counts half."""
ORDERED = frozenset({SessionState.SCHEDULED.value, SessionState.TERMINATING.value})
"""States in which agents have something to do."""


@dataclass(frozen=True, slots=True)
class Usage:
    """A user's past use: device-seconds, as they counted at `at`."""

    value: float
    at: datetime

    def by(self, now: datetime) -> float:
        """As it counts now."""
        return self.value * float(0.5 ** ((now - self.at) / HALF_LIFE))


class Ledger:
    """Live sessions and nodes, and indexes over them. `enter` and `leave` keep the indexes in step."""

    def __init__(self) -> None:
        self.sessions: dict[str, LiveSession] = {}
        """All live ones by id."""
        self.waiting: dict[str, LiveSession] = {}
        self.holding: dict[str, LiveSession] = {}
        self.held: set[str] = set()
        self.timed: dict[str, LiveSession] = {}
        """Those that wait and have a `start_at`."""
        self.named: dict[str, dict[str, LiveSession]] = {}
        """Name -> id -> session."""
        self.dependents: dict[str, dict[str, LiveSession]] = {}
        """Id of what is waited for -> those that wait for it."""
        self.past: dict[str, LiveSession] = {}
        """Ended ones that are still waited for."""
        self.nodes: dict[str, LiveNode] = {}
        self.on_node: dict[str, dict[tuple[str, int], Rank]] = {}
        self.usage: dict[str, Usage] = {}
        self.latest: datetime | None = None
        """When the latest session was submitted."""
        self.stirred: set[str] = set()
        """Sessions of which the scheduler's picture has not been told the latest."""
        self.stirred_nodes: set[str] = set()
        self.used: set[str] = set()
        """Users whose past use has grown since the scheduler was told."""
        self.nudged: set[str] = set()
        """Nodes that may have got orders since somebody looked."""
        self.measured_nodes: set[str] = set()
        """Nodes with measurements that are not in the database; they are no promise, and are written now and then."""
        self.measured: set[str] = set()
        """Sessions likewise."""
        self._numbers: dict[str, int] = {}

    # ── indexes ──────────────────────────────────────────────────────────────────────────────────

    def enter(self, session: LiveSession) -> None:
        """Index `session` by what it is now; one that has ended is only told to those who wait for it."""
        ident = session.id
        self.stirred.add(ident)
        if session.state in ENDED:
            self._remember(session)
            return
        self.sessions[ident] = session
        self.named.setdefault(session.name, {})[ident] = session
        if session.state in WAITING:
            self._enter_waiting(session)
            return
        self.holding[ident] = session
        for rank in session.ranks:
            self.on_node.setdefault(rank.node, {})[ident, rank.rank] = rank
        if session.state in ORDERED:
            self.nudged.update(rank.node for rank in session.ranks)

    def _enter_waiting(self, session: LiveSession) -> None:
        self.waiting[session.id] = session
        if session.state == SessionState.HELD:
            self.held.add(session.id)
        if session.start_at is not None:
            self.timed[session.id] = session
        for ident in session.depends_on:
            self.dependents.setdefault(ident, {})[session.id] = session

    def _remember(self, session: LiveSession) -> None:
        if waiting := self.dependents.get(session.id):
            self.past[session.id] = session
            self.stirred.update(waiting)

    def leave(self, session: LiveSession) -> None:
        """Take it out of the indexes. Call it before its state or ranks change, and `enter` afterwards."""
        ident = session.id
        self.stirred.add(ident)
        if self.sessions.pop(ident, None) is None:
            return
        self._unname(session)
        if self.waiting.pop(ident, None) is not None:
            self._leave_waiting(session)
            return
        del self.holding[ident]
        for rank in session.ranks:
            del self.on_node[rank.node][ident, rank.rank]

    def _leave_waiting(self, session: LiveSession) -> None:
        self.held.discard(session.id)
        self.timed.pop(session.id, None)
        for ident in session.depends_on:
            if waiting := self.dependents.get(ident):
                waiting.pop(session.id, None)
                if not waiting:
                    del self.dependents[ident]

    def _unname(self, session: LiveSession) -> None:
        name = session.name
        same = self.named[name]
        del same[session.id]
        if not same:
            del self.named[name]
            base, _, tail = name.rpartition("-")
            if name in self._numbers:
                self._numbers[name] = 1
            elif base in self._numbers and tail.isdigit():
                self._numbers[base] = min(self._numbers[base], int(tail))

    def set_node(self, node: LiveNode) -> None:
        """A new node, or one of which something changed that matters to the scheduler."""
        self.nodes[node.name] = node
        self.stirred_nodes.add(node.name)

    def drop_node(self, name: str) -> None:
        del self.nodes[name]
        self.stirred_nodes.add(name)

    # ── finding ──────────────────────────────────────────────────────────────────────────────────

    def called(self, ref: str) -> list[LiveSession]:
        """The live one with this id, else all with this name."""
        if ref in self.sessions:
            return [self.sessions[ref]]
        return list(self.named.get(ref, {}).values())

    def free_name(self, base: str) -> str:
        """`base`, or with the lowest number that no live session has."""
        number = self._numbers.get(base, 1)
        while (name := base if number == 1 else f"{base}-{number}") in self.named:
            number += 1
        self._numbers[base] = number
        return name

    def ranks_on(self, node: str) -> Iterable[Rank]:
        return self.on_node.get(node, {}).values()

    def sessions_on(self, node: str) -> list[LiveSession]:
        """Those that hold something there, by name."""
        idents = dict.fromkeys(rank.session for rank in self.ranks_on(node))
        return sorted((self.sessions[ident] for ident in idents), key=lambda session: (session.name, session.id))

    def dependency(self, ident: str) -> LiveSession | None:
        """What a live session waits for, live or ended."""
        return self.sessions.get(ident) or self.past.get(ident)

    def unmet(self, session: LiveSession) -> Iterator[str]:
        """Names of those it waits for that have not ended well."""
        for ident in session.depends_on:
            other = self.dependency(ident)
            if other is not None and other.result != "success":
                yield other.name

    def next_start(self, now: datetime) -> datetime | None:
        """The earliest `start_at` after `now` of those that wait."""
        return min((s.start_at for s in self.timed.values() if s.start_at and s.start_at > now), default=None)

    def with_orders(self) -> set[str]:
        """Nodes whose agents have something to start or to stop."""
        sessions = (s for s in self.holding.values() if s.state in ORDERED)
        return {rank.node for session in sessions for rank in session.ranks if rank.state != "exited"}

    def in_order(self) -> list[LiveSession]:
        """All live ones, oldest first."""
        return sorted(self.sessions.values(), key=lambda session: (session.submitted, session.id))

    # ── loading ──────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def load(cls, db: Session) -> "Ledger":
        """From the database, as it was at the last commit."""
        ledger = cls()
        for row in db.execute(select(NodeRow.__table__).order_by(NodeRow.name)).mappings():
            ledger.set_node(LiveNode.of(row))
        table = SessionRow.__table__
        live = select(table).where(table.c.ended.is_(None)).order_by(table.c.submitted, table.c.id)
        sessions = {row["id"]: LiveSession.of(row) for row in db.execute(live).mappings()}
        for row in db.execute(select(AllocationRow.__table__).order_by(AllocationRow.rank)).mappings():
            sessions[row["session"]].ranks.append(rank_of(row))
        for session in sessions.values():
            ledger.enter(session)
            ledger.latest = session.submitted
        ledger._load_past(db)
        for use in db.execute(select(UsageRow.__table__)).mappings():
            ledger.usage[use["user"]] = Usage(use["value"], use["at"])
            ledger.used.add(use["user"])
        return ledger

    def _load_past(self, db: Session) -> None:
        table = SessionRow.__table__
        wanted = [ident for ident in self.dependents if ident not in self.sessions]
        for start in range(0, len(wanted), 500):
            for row in db.execute(select(table).where(table.c.id.in_(wanted[start : start + 500]))).mappings():
                self.past[row["id"]] = LiveSession.of(row)
