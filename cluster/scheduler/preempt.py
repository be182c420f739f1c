"""Who gives way: sessions of lower priority for the first that waits, under short_first also those that stand clearly
behind it, and borrowers for those whose quota they use.

Only sessions that may be stopped and queued again are chosen, the lowest priority, the last standing and the latest
start first, and no more than it takes. Nothing is chosen while those that are being stopped already will do.
"""

from collections.abc import Collection
from datetime import datetime, timedelta

import numpy as np

from cluster.models import Reason
from cluster.scheduler import reasons
from cluster.scheduler.board import Board, held_by
from cluster.scheduler.fleet import Bools, Ints
from cluster.scheduler.holdings import Giving, Holdings
from cluster.scheduler.place import Wish, place
from cluster.scheduler.queue import amounts
from cluster.scheduler.quota import RESOURCES, Over
from cluster.scheduler.room import Room
from cluster.scheduler.selectors import Mood, Selector
from cluster.scheduler.state import Request, Running

PATIENCE = timedelta(seconds=15)
"""Borrowers are given so much time to end by themselves, from the submission of who wants its own back."""

CLEARLY = 2.0
"""Under short_first a session gives way to one whose standing is so many times lower."""


def for_room(
    board: Board,
    head: Request,
    wish: Wish,
    selector: Selector,
    mood: Mood,
    leaving: Collection[str],
    now: datetime,
) -> dict[str, Reason]:
    """Sessions to stop so that `head`, which finds no room, gets it. `leaving` are chosen already in this pass."""
    holdings = board.holdings
    rows = holdings.of_group(head.group)
    if not holdings.soft[rows].any():
        return {}
    going = holdings.stopping[rows] | holdings.of(leaving)[rows]
    borrowers = {r.id for r in _borrowers(board, head, {holdings.session[row] for row in rows[going]}, now)}
    soft = holdings.of(borrowers)[rows]
    if board.groups[head.group].preemption:
        soft |= holdings.soft[rows] & _behind(board, holdings, rows, head)
    if not soft.any():
        return {}
    order = [*rows[going], *_cheapest(holdings, rows[soft & ~going])]
    giving = Giving(holdings, np.array(order, np.int64))
    count = giving.until(board.room, wish)
    surely = int(going.sum())
    if count is None or count <= surely:
        return {}
    room = board.room.copy()
    giving.give(room, 0, count)
    spots = place(room, wish, selector, mood)
    if spots is None:
        return {}
    chosen = _needed(holdings, room, wish, {spot.node for spot in spots}, giving.rows[surely:count])
    why = {ident: reasons.gives_back if ident in borrowers else reasons.gives_way for ident in chosen}
    return {ident: say(board.running[ident], head) for ident, say in why.items()}


def _behind(board: Board, holdings: Holdings, rows: Ints, head: Request) -> Bools:
    """Which of the rows go after `head` by right."""
    found: Bools = holdings.priority[rows] < head.priority
    if board.groups[head.group].policy == "short_first":
        equal = holdings.priority[rows] == head.priority
        found |= equal & (holdings.standing[rows] > CLEARLY * head.standing)
    return found


def by_right(board: Board, group: str, leaving: Collection[str]) -> bool:
    """Whoever waits in the group gets room by waiting: every session there may be stopped for it sooner or later, and
    none is being stopped for somebody now."""
    rules, holdings = board.groups[group], board.holdings
    rows = holdings.of_group(group)
    leave = holdings.stopping[rows] | holdings.of(leaving)[rows]
    return rules.policy == "short_first" and rules.preemption and bool(holdings.soft[rows].all() and not leave.any())


def _cheapest(holdings: Holdings, rows: Ints) -> Ints:
    return rows[np.lexsort((rows, -holdings.began[rows], -holdings.standing[rows], holdings.priority[rows]))]


def _needed(holdings: Holdings, room: Room, wish: Wish, nodes: set[int], rows: Ints) -> list[str]:
    """Of the sessions in `rows`, all of which have left `room`, those that must really leave for `nodes` to fit."""
    mine: dict[str, list[int]] = {}
    for row in rows:
        mine.setdefault(holdings.session[row], []).append(int(row))
    wanted = np.array(sorted(nodes))
    chosen: list[str] = []
    for ident, held in reversed(mine.items()):
        here = np.array([row for row in held if int(holdings.node[row]) in nodes], np.int64)
        if not len(here):
            continue
        _shift(holdings, room, here, -1)
        if not room.fits(wish.need, wanted).all():
            _shift(holdings, room, here, 1)
            chosen.append(ident)
    return chosen


def _shift(holdings: Holdings, room: Room, rows: Ints, sign: int) -> None:
    part = holdings.node[rows], sign * holdings.cpu[rows], sign * holdings.memory[rows], sign * holdings.devices[rows]
    room.add(*part)


# ── borrowed quota ───────────────────────────────────────────────────────────────────────────────


def for_quota(
    board: Board, head: Request, over: list[Over], leaving: Collection[str], now: datetime
) -> dict[str, Reason]:
    """Sessions to stop so that `head` gets what others of its cohort have borrowed of its own quota."""
    if not all(each.lent for each in over) or not _may_claim(board, head, now):
        return {}
    short = dict.fromkeys(RESOURCES, 0) | {each.resource: each.used + each.asked - each.cap for each in over}
    cohort = board.quotas.cohort(head.project)
    going = [r for r in board.running.values() if r.stopping or r.id in leaving]
    for running in going:
        if board.quotas.cohort(running.project) == cohort:
            _less(short, running)
    chosen: dict[str, Reason] = {}
    for running in _borrowers(board, head, [r.id for r in going], now):
        if max(short.values()) <= 0:
            break
        _less(short, running)
        chosen[running.id] = reasons.gives_back(running, head)
    return chosen if max(short.values()) <= 0 else {}


def _borrowers(board: Board, head: Request, going: Collection[str], now: datetime) -> list[Running]:
    """What projects of `head`'s cohort run beyond their own quotas, the cheapest to stop first, when those that are
    `going` have gone; none when `head` would borrow itself."""
    if not _may_claim(board, head, now):
        return []
    quotas = board.quotas
    cohort = quotas.cohort(head.project)
    soft = [
        r
        for r in board.running.values()
        if r.preemptible and r.priority <= head.priority and quotas.cohort(r.project) == cohort
    ]
    gone = [board.running[ident] for ident in going]
    found: list[Running] = []
    try:
        for running in gone:
            quotas.charge(running.user, running.project, held_by(running), -1)
        for running in sorted(soft, key=lambda r: (r.priority, -r.started.timestamp(), r.id)):
            if running.id not in going and quotas.borrows(running.project):
                quotas.charge(running.user, running.project, held_by(running), -1)
                found.append(running)
    finally:
        for running in [*gone, *found]:
            quotas.charge(running.user, running.project, held_by(running))
    return found


def _may_claim(board: Board, head: Request, now: datetime) -> bool:
    """It wants what is its project's own of a cohort's, and has waited long enough."""
    quotas = board.quotas
    shared = quotas.cohort(head.project) is not None
    return shared and now - head.submitted >= PATIENCE and not quotas.borrows(head.project, amounts(head))


def _less(short: dict[str, int], running: Running) -> None:
    for resource, amount in zip(RESOURCES, (*held_by(running), 1), strict=True):
        short[resource] -= amount
