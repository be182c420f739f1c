"""The journal as a chain: each row has the SHA-256 of the row before's and of its contents. Pure.

Whoever changes, adds, drops or moves a row without making the rest anew is found by `Checker`. Of somebody who can
write to the whole database and makes everything anew, only a hash tells that was kept elsewhere (`JournalCheck.hash`).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, Literal, Protocol

from cluster.models import JournalFault
from cluster.sentence import S, Sentence

Kind = Literal["changed", "missing", "unchained", "undone_by", "end"]


@dataclass(frozen=True, slots=True)
class Link:
    """A row's number and its hash; number 0 is before the first."""

    number: int = 0
    chain: str | None = None


class Row(Protocol):
    """What of a row counts: `cluster.db.tables.AuditRow`."""

    id: Any
    at: Any
    user: Any
    action: Any
    operation: Any
    targets: Any
    inverse: Any
    undone_by: Any
    result: Any
    reasons: Any
    chain: Any


def chained(before: str | None, values: Sequence[Any]) -> str:
    """The hash of a row with `values` (number, time, user, action, operation, targets, inverse, result, reasons; the
    last five as JSON has them), after one with the hash `before`."""
    number, at, *rest = values
    told = [number, at.astimezone(UTC).isoformat(timespec="microseconds"), *rest]
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{before or ''}\n{text}".encode()).hexdigest()


def contents(row: Row) -> tuple[Any, ...]:
    """What `chained` takes; not `undone_by`, which comes later and follows from the row of the undo."""
    return (row.id, row.at, row.user, row.action, row.operation, row.targets, row.inverse, row.result, row.reasons)


def audit_id(number: int) -> str:
    return f"a-{number:04d}"


def number_of(ref: str) -> int | None:
    """Of an id as `audit_id` writes it, or of the bare number."""
    digits = ref.removeprefix("a-")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 15 else None


@dataclass(slots=True)
class Checker:
    """Give it every row in order, then `end`. `cleared`: the last row that was cleared away for its age."""

    cleared: Link = Link()
    known: Link = Link()
    """A row's number and (the beginning of) its hash as somebody kept them elsewhere; number 0: nobody did."""
    rows: int = 0
    unchained: int = 0
    """Rows from before there was a chain."""
    last: Link = Link()
    fault: JournalFault | None = None
    _undone: dict[int, int] = field(default_factory=dict)
    """Row -> the undo that it says took it back, until that has come."""

    def take(self, row: Row) -> None:
        """The next row; nothing is looked at after the first fault."""
        if self.fault is not None:
            return
        before = self.last if self.rows else self.cleared
        self._in_order(row, before)
        self._unchanged(row, before)
        self._undone_rightly(row)
        self.rows += 1
        self.last = Link(row.id, row.chain)
        if row.id == self.known.number and not (row.chain or "").startswith(self.known.chain or ""):
            self._wrong(
                row.id, "changed", S("{name} is not what it was when its hash was kept.", name=audit_id(row.id))
            )

    def end(self, newest: Link) -> None:
        """After the last row: `newest` is what this server wrote last."""
        if self.fault is None and self._undone:
            number = min(self._undone)
            self._wrong(
                number, "undone_by", S("{name} says that it was undone, and it was not.", name=audit_id(number))
            )
        latest = max(newest.number, self.known.number)
        if self.fault is None and self.last.number < latest:
            words = {"first": audit_id(self.last.number + 1), "last": audit_id(latest)}
            self._wrong(self.last.number + 1, "end", S("The end is cut off: {first} to {last} are missing.", **words))
        if self.fault is None and self.last != newest:
            self._wrong(self.last.number, "end", S("The journal ends with a row that this server did not write."))

    # ── one row ──────────────────────────────────────────────────────────────────────────────────

    def _in_order(self, row: Row, before: Link) -> None:
        first_of_all = not self.rows and not self.cleared.number
        if row.id == before.number + 1 or (first_of_all and row.chain is None):
            return
        words = {"first": audit_id(before.number + 1), "last": audit_id(row.id - 1)}
        self._wrong(before.number + 1, "missing", S("{first} to {last} are missing.", **words))

    def _unchanged(self, row: Row, before: Link) -> None:
        if row.chain is None and before.chain is None:
            self.unchained += 1
        elif row.chain is None:
            self._wrong(row.id, "unchained", S("{name} has no hash, and the row before it has.", name=audit_id(row.id)))
        elif not _fits(row, before):
            self._wrong(row.id, "changed", S("{name} is not as it was written.", name=audit_id(row.id)))

    def _undone_rightly(self, row: Row) -> None:
        """An undo names what it took back; that row must say so, and no other."""
        if row.undone_by is not None:
            self._undone[row.id] = row.undone_by
        if row.action != "undo" or row.result != "done":
            return
        of = number_of(str(row.targets[0])) if row.targets else None
        if of is not None and of > self.cleared.number and self._undone.pop(of, None) != row.id:
            self._wrong(of, "undone_by", S("{name} was undone, and does not say so.", name=audit_id(of)))

    def _wrong(self, number: int, kind: Kind, message: Sentence) -> None:
        if self.fault is None:
            self.fault = JournalFault(at=audit_id(number), kind=kind, message=message)


def _fits(row: Row, before: Link) -> bool:
    try:
        return bool(chained(before.chain, contents(row)) == row.chain)
    except (AttributeError, TypeError, ValueError):  # somebody has put something there that no row of ours holds
        return False
