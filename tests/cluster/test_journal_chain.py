"""The journal says who, what, on which, with what result; and shows when somebody has changed it."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from structlog.testing import capture_logs

from cluster import house
from cluster.core import Core
from cluster.db.engine import Where
from cluster.db.tables import AuditRow
from cluster.errors import Invalid, NotAllowed, Unavailable
from cluster.journal import refusals
from cluster.journal.chain import Checker, Link, chained
from cluster.journal.chain import contents as contents_of
from cluster.models import (
    CordonNode,
    CreateFolder,
    StartSession,
    TerminateSessions,
    Undo,
    User,
)
from cluster.sentence import S
from cluster.simulator.lab import Lab

BOSS = User(name="boss", role="admin")


async def on_disk(lab: Lab, sql: str) -> None:
    """As somebody does who has the database."""
    async with lab.core.db.write() as db:
        await db.execute(text(sql))


async def some_history(lab: Lab) -> None:
    """Seven rows: done, undone, refused."""
    await lab.node("n1")
    await lab.ann.execute(StartSession(command="job", cpu=0.5, env={"A": "é"}))
    await lab.ann.execute(Undo())
    await lab.boss.execute(CordonNode(node="n1", reason="disk"))
    await lab.ann.execute(CordonNode(node="n1"))
    await lab.boss.execute(Undo())
    await lab.ann.execute(CreateFolder(name="cats"))
    await lab.ann.execute(CreateFolder(name="cats"))


# ── what is in it ────────────────────────────────────────────────────────────────────────────────


async def test_a_refusal_is_a_row_that_says_who_what_and_why(lab: Lab) -> None:
    await lab.node("n1")
    outcome = await lab.ann.execute(CordonNode(node="n1", reason="mine"))
    (entry,) = (await lab.boss.audit()).items
    assert (entry.user, entry.action, entry.result) == ("ann", "cordon_node", "refused")
    assert entry.operation == CordonNode(node="n1", reason="mine")
    assert entry.targets == ["n1"]
    assert entry.reasons == outcome.refused
    assert [e.id for e in (await lab.ann.audit(result="refused")).items] == [entry.id]
    assert (await lab.bob.audit()).total == 0


async def test_a_preview_leaves_no_row_whether_it_is_refused_or_not(lab: Lab) -> None:
    await lab.node("n1")
    await lab.ann.preview(CordonNode(node="n1"))
    await lab.boss.preview(CordonNode(node="n1"))
    assert (await lab.boss.audit()).total == 0


async def test_what_fails_by_a_bug_is_a_row_too(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("cluster.execution.apply", breaks)
    with pytest.raises(RuntimeError):
        await lab.ann.execute(CreateFolder(name="cats"))
    (entry,) = (await lab.boss.audit()).items
    assert (entry.user, entry.action, entry.result) == ("ann", "create_folder", "failed")


async def test_a_refused_action_cannot_be_undone_and_hides_none_before_it(lab: Lab) -> None:
    await lab.node("n1")
    await lab.boss.execute(CordonNode(node="n1"))
    await lab.boss.execute(CordonNode(node="n1"))
    refused = await lab.boss.execute(Undo(action="a-0002"))
    assert str(refused.refused[0].message) == "a-0002 was refused or failed; there is nothing to undo."
    assert not (await lab.boss.execute(Undo())).refused
    assert (await lab.boss.node("n1")).status == "alive"


async def test_a_flood_of_refusals_is_thirty_rows_a_minute_and_one_that_says_how_many_more(lab: Lab) -> None:
    await lab.node("n1")
    await asyncio.gather(*[lab.ann.execute(CordonNode(node="n1")) for _ in range(100)])
    await lab.bob.execute(CordonNode(node="n1"))
    assert (await lab.boss.audit(user="ann")).total == refusals.MOST
    assert (await lab.boss.audit(user="bob")).total == 1
    assert lab.core.refusals.due() == lab.clock.now() + timedelta(minutes=1)
    await lab.later(61)
    newest = (await lab.boss.audit(user="ann", limit=1)).items[0]
    assert (newest.action, newest.result) == ("refusals_left_out", "refused")
    assert newest.operation["count"] == 70  # type: ignore[index]
    assert lab.core.refusals.due() is None
    assert (await lab.boss.verify_audit()).whole


async def test_while_the_journal_can_not_be_written_that_is_said_once_until_it_can(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise Unavailable(S("The database does not answer."))

    await lab.node("n1")
    with capture_logs() as said:
        for _ in range(2):
            with monkeypatch.context() as down:
                down.setattr(lab.core.db, "append", away)
                for _ in range(3):
                    assert (await lab.ann.execute(CordonNode(node="n1"))).refused
            assert (await lab.ann.execute(CordonNode(node="n1"))).refused
    told = [(line["log_level"], line.get("missing")) for line in said if "in the journal" in line["event"]]
    assert told == [("error", None), ("warning", 3)] * 2
    assert (await lab.boss.audit(user="ann")).total == 2


async def test_a_refused_operation_as_long_as_a_book_is_kept_by_its_beginning(lab: Lab) -> None:
    await lab.ann.execute(TerminateSessions(sessions=["x" * 100_000]))
    (entry,) = (await lab.boss.audit()).items
    assert isinstance(entry.operation, dict)
    assert len(entry.operation["beginning"]) == refusals.LONGEST
    assert len(json.dumps(entry.operation)) < 2 * refusals.LONGEST


async def test_pages_of_the_journal_go_back_from_an_id_and_are_cut_by_time(lab: Lab) -> None:
    await some_history(lab)
    await lab.later(3600)
    await lab.boss.execute(CordonNode(node="n1"))
    first = await lab.boss.audit(limit=3)
    second = await lab.boss.audit(limit=3, before=first.items[-1].id)
    assert [e.id for e in (*first.items, *second.items)] == [f"a-{n:04d}" for n in (8, 7, 6, 5, 4, 3)]
    since = (lab.clock.now() - timedelta(minutes=1)).isoformat()
    assert [e.id for e in (await lab.boss.audit(since=since)).items] == ["a-0008"]
    with pytest.raises(Invalid, match="not the id of an action"):
        await lab.boss.audit(before="yesterday")


async def test_rows_of_operations_that_this_version_does_not_know_are_still_listed(lab: Lab) -> None:
    await some_history(lab)
    await on_disk(lab, """UPDATE audit SET operation = '{"op": "melt_node"}' WHERE id = 3""")
    assert (await lab.boss.audit(limit=100)).total == 7


# ── the chain ────────────────────────────────────────────────────────────────────────────────────


async def test_a_journal_that_nobody_touched_is_whole_also_after_a_restart(lab: Lab, where: Where) -> None:
    await some_history(lab)
    check = await lab.boss.verify_audit()
    assert (check.whole, check.rows, check.unchained, check.newest) == (True, 7, 0, "a-0007")
    again = await Core.open(where, clock=lab.clock, data_dir=lab.core.data_dir, name="again")
    later = await again.journal.verify(BOSS, check.newest, check.hash)
    await again.close()
    assert (later.whole, later.hash) == (True, check.hash)


async def test_only_an_admin_may_verify_the_journal(lab: Lab) -> None:
    with pytest.raises(NotAllowed):
        await lab.ann.verify_audit()


@pytest.mark.parametrize(
    ("sql", "at", "kind"),
    [
        ("UPDATE audit SET \"user\" = 'bob' WHERE id = 3", "a-0003", "changed"),
        ("UPDATE audit SET result = 'done' WHERE id = 4", "a-0004", "changed"),
        ("UPDATE audit SET at = '2026-03-02 08:59:59.000000' WHERE id = 5", "a-0005", "changed"),
        ("""UPDATE audit SET targets = '["n2"]' WHERE id = 3""", "a-0003", "changed"),
        ("UPDATE audit SET inverse = NULL WHERE id = 3", "a-0003", "changed"),
        ("UPDATE audit SET reasons = '[]' WHERE id = 4", "a-0004", "changed"),
        ("UPDATE audit SET undone_by = 7 WHERE id = 6", "a-0006", "undone_by"),
        ("UPDATE audit SET undone_by = NULL WHERE id = 1", "a-0001", "undone_by"),
        ("UPDATE audit SET chain = NULL WHERE id = 2", "a-0002", "unchained"),
        ("DELETE FROM audit WHERE id = 1", "a-0001", "missing"),
        ("DELETE FROM audit WHERE id IN (3, 4)", "a-0003", "missing"),
        ("DELETE FROM audit WHERE id > 5", "a-0006", "end"),
        ("UPDATE audit SET id = 99 WHERE id = 7", "a-0007", "missing"),
    ],
)
async def test_what_somebody_changes_in_the_file_is_found_and_named(lab: Lab, sql: str, at: str, kind: str) -> None:
    await some_history(lab)
    await on_disk(lab, sql)
    check = await lab.boss.verify_audit()
    assert check.fault is not None
    assert (check.whole, check.fault.at, check.fault.kind) == (False, at, kind)


async def test_a_cut_end_is_known_after_a_restart_only_from_a_hash_kept_elsewhere(lab: Lab, where: Where) -> None:
    await some_history(lab)
    kept = await lab.boss.verify_audit()
    await on_disk(lab, "DELETE FROM audit WHERE id > 5")
    again = await Core.open(where, clock=lab.clock, data_dir=lab.core.data_dir, name="cut")
    alone = await again.journal.verify(BOSS)
    compared = await again.journal.verify(BOSS, kept.newest, kept.hash)
    await again.close()
    assert alone.whole
    assert any("cut off" in str(said) for said in alone.not_known)
    assert compared.fault is not None
    assert (compared.fault.at, compared.fault.kind) == ("a-0006", "end")


async def test_a_journal_made_wholly_anew_is_known_from_the_beginning_of_a_hash(lab: Lab) -> None:
    await some_history(lab)
    kept = await lab.boss.verify_audit()
    assert kept.hash is not None
    false = "0" + kept.hash[1:13] if kept.hash[0] != "0" else "1" + kept.hash[1:13]
    assert (await lab.boss.verify_audit(kept.newest, kept.hash[:13])).whole
    assert not (await lab.boss.verify_audit(kept.newest, false)).whole
    with pytest.raises(Invalid):
        await lab.boss.verify_audit(kept.newest, "ab")


async def test_clearing_old_rows_keeps_the_rest_verifiable_to_the_oldest(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house, "BITE", 3)
    await some_history(lab)
    await lab.later(89 * 86400)
    await lab.boss.execute(CordonNode(node="n1"))
    await lab.later(2 * 86400)
    check = await lab.boss.verify_audit()
    assert (check.whole, check.oldest, check.rows) == (True, "a-0004", 5)
    await on_disk(lab, "UPDATE audit SET \"user\" = 'eve' WHERE id = 4")
    assert not (await lab.boss.verify_audit()).whole


async def test_rows_from_before_the_chain_are_said_to_be_unknown(lab: Lab, where: Where) -> None:
    await some_history(lab)
    await on_disk(lab, "UPDATE audit SET chain = NULL")
    await on_disk(lab, "DELETE FROM audit WHERE id < 3")
    core = await Core.open(where, clock=lab.clock, data_dir=lab.core.data_dir, name="old")
    check = await core.journal.verify(BOSS)
    await core.close()
    assert (check.whole, check.rows, check.unchained) == (True, 5, 5)


async def test_a_row_that_is_changed_together_with_its_hash_is_found_at_the_next_one(lab: Lab) -> None:
    await some_history(lab)
    async with lab.core.db.write() as db:
        row = await db.get_one(AuditRow, 3)
        before = await db.get_one(AuditRow, 2)
        row.user = "bob"
        row.chain = chained(before.chain, contents_of(row))
    check = await lab.boss.verify_audit()
    assert check.fault is not None
    assert (check.fault.at, check.fault.kind) == ("a-0004", "changed")


async def test_what_a_server_wrote_is_missed_also_when_it_has_read_everything_anew(lab: Lab) -> None:
    await some_history(lab)
    await on_disk(lab, "DELETE FROM audit WHERE id > 5")
    lab.core.db.touched.add(AuditRow)  # as an undo does
    await lab.boss.execute(CordonNode(node="n1"))
    check = await lab.boss.verify_audit()
    assert check.fault is not None
    assert (check.fault.at, check.fault.kind) == ("a-0006", "missing")


async def test_what_a_round_takes_back_is_in_no_chain(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = lab.core.draft
    draft.audit(lab.clock.now(), "ann", "undo", "{}", [], None)
    kept = draft.head
    draft.mark()
    draft.audit(lab.clock.now(), "ann", "undo", "{}", [], None)
    draft.back()
    assert draft.head == kept
    draft.abandon()
    assert draft.head == Link()
    await lab.node("n1")
    append, times = lab.core.db.append, iter(range(9))

    async def fails_first(*args: Any) -> None:
        if next(times) == 0:
            raise RuntimeError("the disk")
        await append(*args)

    monkeypatch.setattr(lab.core.db, "append", fails_first)
    jobs = [StartSession(command="x", name=f"j{number}", cpu=0.1) for number in range(3)]
    assert not any(done.refused for done in await asyncio.gather(*map(lab.ann.execute, jobs)))
    check = await lab.boss.verify_audit()
    assert (check.whole, check.rows) == (True, 3)


# ── any change at all ────────────────────────────────────────────────────────────────────────────


class Kept:
    """A row as the database gives it back."""

    def __init__(self, number: int, before: str | None, values: dict[str, Any]) -> None:
        self.id, self.at = number, datetime(2026, 3, 2, tzinfo=UTC) + timedelta(microseconds=number)
        self.user, self.action, self.result = values["user"], "cordon_node", values["result"]
        self.operation, self.targets, self.reasons = values["operation"], values["targets"], values["reasons"]
        self.inverse, self.undone_by = values["inverse"], None
        told = (self.id, self.at, self.user, self.action, self.operation, self.targets, self.inverse, self.result)
        self.chain = chained(before, (*told, self.reasons))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.text(max_size=5), json_values, max_size=3)
contents = st.fixed_dictionaries(
    {
        "user": st.text(max_size=8),
        "result": st.sampled_from(["done", "refused", "failed"]),
        "operation": objects,
        "targets": st.lists(st.text(max_size=8), max_size=3),
        "reasons": st.lists(objects, max_size=2),
        "inverse": st.none() | objects,
    }
)


def journal_of(values: list[dict[str, Any]]) -> list[Kept]:
    rows: list[Kept] = []
    for number, each in enumerate(values, 1):
        rows.append(Kept(number, rows[-1].chain if rows else None, each))
    return rows


def checked(rows: list[Kept], newest: Link) -> Checker:
    checker = Checker()
    for row in rows:
        checker.take(row)
    checker.end(newest)
    return checker


@settings(max_examples=200, deadline=None)
@given(values=st.lists(contents, min_size=1, max_size=6), data=st.data())
def test_any_single_change_of_any_row_or_of_their_order_is_found(values: list[dict[str, Any]], data: Any) -> None:
    rows = journal_of(values)
    newest = Link(rows[-1].id, rows[-1].chain)
    assert checked(rows, newest).fault is None
    at = data.draw(st.integers(0, len(rows) - 1))
    what = data.draw(st.sampled_from([*_CHANGES]))
    changed = _CHANGES[what](rows, at, data)
    assert checked(changed, newest).fault is not None, what


def _alter(name: str, values: Any) -> Callable[[list[Kept], int, Any], list[Kept]]:
    def change(rows: list[Kept], at: int, data: Any) -> list[Kept]:
        now = getattr(rows[at], name)
        setattr(rows[at], name, data.draw(values.filter(lambda other: json.dumps(other) != json.dumps(now))))
        return rows

    return change


def _later(rows: list[Kept], at: int, _: Any) -> list[Kept]:
    rows[at].at += timedelta(microseconds=1)
    return rows


def _swapped(rows: list[Kept], at: int, _: Any) -> list[Kept]:
    """Two rows exchange their places, or the only one gets another number."""
    other = (at + 1) % len(rows)
    rows[at].id, rows[other].id = rows[other].id, rows[at].id if other != at else 2
    return sorted(rows, key=lambda row: row.id)


def _dropped(rows: list[Kept], at: int, _: Any) -> list[Kept]:
    return rows[:at] + rows[at + 1 :]


def _added(rows: list[Kept], at: int, _: Any) -> list[Kept]:
    """One more at the end, rightly chained."""
    fields = {
        name: getattr(rows[at], name) for name in ("user", "result", "operation", "targets", "reasons", "inverse")
    }
    return [*rows, Kept(rows[-1].id + 1, rows[-1].chain, fields)]


_CHANGES = {
    "user": _alter("user", st.text(max_size=8)),
    "result": _alter("result", st.sampled_from(["done", "refused", "failed"])),
    "operation": _alter("operation", objects),
    "targets": _alter("targets", st.lists(st.text(max_size=8), max_size=3)),
    "reasons": _alter("reasons", st.lists(objects, max_size=2)),
    "inverse": _alter("inverse", st.none() | objects),
    "undone_by": _alter("undone_by", st.integers(1, 9)),
    "chain": _alter("chain", st.none() | st.text("0123456789abcdef", min_size=64, max_size=64)),
    "at": _later,
    "order": _swapped,
    "dropped": _dropped,
    "added": _added,
}
