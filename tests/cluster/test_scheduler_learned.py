"""Short first: what is learned from ended sessions, where the others stand, and what the scheduler makes of it."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from cluster.scheduler import Board, plan
from cluster.scheduler.learned import KEPT, PATIENCE, SIZES, RunTimes, ShortFirst, index, line_up
from cluster.scheduler.state import Group, NodeView, Placement, Request, Running

NOW = datetime(2026, 3, 2, tzinfo=UTC)
SHORT_FIRST = Group("train", policy="short_first", backfill=True, preemption=True)


def expected(run_times: RunTimes, submitted: float, ran: float = 0.0, gpus: float = 1) -> float:
    return float(run_times.expect(gpus, np.array([submitted]), np.array([ran]), np.array([0]))[0])


def learned(ended: Iterable[tuple[float, float, float]]) -> RunTimes:
    """From (GPUs, submitted, seconds)."""
    found = RunTimes()
    for each in ended:
        found.observe(*each)
    return found


# ── what is learned ──────────────────────────────────────────────────────────────────────────────


def test_a_session_is_expected_to_run_as_long_as_those_submitted_with_it() -> None:
    run_times = learned([(1, 1000.0 + i, 600.0) for i in range(20)] + [(1, 90_000.0 + i, 20_000.0) for i in range(20)])
    assert 500 < expected(run_times, 1005) < 700
    assert 15_000 < expected(run_times, 90_005) < 25_000


def test_other_sizes_tell_nothing() -> None:
    known_of_one = learned([(1, 1000.0, 600.0)] * 9)
    assert expected(known_of_one, 1000, gpus=8) == expected(RunTimes(), 1000, gpus=8)
    assert expected(known_of_one, 1000, gpus=1) != expected(RunTimes(), 1000, gpus=1)


def test_the_nearer_its_likely_end_the_sooner_it_is_expected_until_it_has_outlived_it() -> None:
    run_times = learned([(1, 1000.0, 5000.0)] * 9)
    new, late, outlived = (expected(run_times, 1000, ran) for ran in (0.0, 4500.0, 5500.0))
    assert late < new / 5
    assert outlived > new


def test_those_that_still_run_tell_that_it_takes_long() -> None:
    """Its neighbours have run for hours: nothing has ended, and yet it is known not to be short."""
    alone = expected(RunTimes(), 1000)
    submitted, ran = np.full(5, 1000.0), np.array([0.0, 30_000, 30_000, 30_000, 30_000])
    assert RunTimes().expect(1, submitted, ran, np.array([0]))[0] > 5 * alone


def test_a_session_is_no_neighbour_of_itself() -> None:
    ran = np.array([7000.0])
    assert RunTimes().expect(1, np.array([0.0]), ran, np.array([0]))[0] == pytest.approx(
        index(np.array([[14_000.0, 70_000.0]]), np.ones((1, 2)), ran)[0]
    )


def test_the_index_is_the_best_chance_for_the_time() -> None:
    """Half end after 10 s, half after 1,000: given 10 s it costs 20 for each end; later only what is left counts."""
    seconds, weights = np.array([[10.0, 1000.0]] * 2), np.ones((2, 2))
    assert index(seconds, weights, np.array([0.0, 10.0])).tolist() == [20.0, 990.0]


def test_its_memory_is_bounded_and_the_latest_stay() -> None:
    run_times = learned([(1, float(i), 9000.0) for i in range(KEPT)] + [(1, float(i), 60.0) for i in range(KEPT)])
    assert expected(run_times, 5) < 100
    many = learned([(1, 0.0, 60.0)] * 9 + [(2.0 + i, 0.0, 60.0) for i in range(SIZES)])
    assert expected(many, 0, gpus=1) == expected(RunTimes(), 0), "the size that ended nothing for longest is forgotten"
    assert expected(many, 0, gpus=2) < 100


# ── where they stand ─────────────────────────────────────────────────────────────────────────────


def test_waiting_and_fewer_gpus_bring_forward_and_a_gang_is_not_set_back_by_its_size() -> None:
    short = ShortFirst()
    for name, gpus, nodes, at in (("one", 1, 1, PATIENCE), ("old", 1, 1, 0), ("node", 8, 1, PATIENCE)):
        short.submitted(name, gpus, nodes, at)
    short.submitted("gang", 64, 8, PATIENCE)
    stand = short.standings(PATIENCE)
    assert stand["old"] == pytest.approx(stand["one"] / 2)
    assert stand["one"] < stand["gang"] < stand["node"]


def test_what_a_stopped_session_has_run_is_not_forgotten() -> None:
    short = ShortFirst()
    short.submitted("a", 1, 1, 0)
    short.started("a", 100)
    short.stopped("a", 5100)
    short.started("a", 6000)
    short.ended("a", 7000)
    short.submitted("b", 1, 1, 0)
    assert short.standings(0)["b"] == pytest.approx(expected(learned([(1, 0.0, 6000.0)]), 0))


def test_standings_of_some_are_those_of_all() -> None:
    short = ShortFirst()
    for i in range(12):
        short.submitted(f"s{i}", 1 + i % 3, 1, 100.0 * i)
        if i % 2:
            short.started(f"s{i}", 2000)
    everybody = short.standings(9000)
    assert len(everybody) == 12
    assert short.standings(9000, {"s3", "s8"}) == {ident: everybody[ident] for ident in ("s3", "s8")}


def test_what_never_ran_teaches_nothing() -> None:
    short = ShortFirst()
    short.submitted("gone", 1, 1, 0)
    short.ended("gone", 500)
    assert expected(short.run_times, 0) == expected(RunTimes(), 0)


# ── what the scheduler makes of it ───────────────────────────────────────────────────────────────


def ask(name: str, gpu: int, standing: float, **more: int) -> Request:
    return Request(
        name, name, "alice", "vision", "train", NOW, cpu=0, memory=0, gpu=gpu, standing=standing, preemptible=True,
        **more,
    )  # fmt: skip


def made(*requests: Request, group: Group = SHORT_FIRST, nodes: int = 1) -> Board:
    board = Board()
    board.set_groups({"train": group})
    for i in range(nodes):
        board.set_node(NodeView(f"n{i}", "train", True, 8, 8, 8, 8, devices=(1.0,) * 8))
    for request in requests:
        board.submit(request)
    return board


def go(board: Board) -> set[str]:
    """Start and stop what the plan says; returns who was stopped."""
    result = plan(board, NOW)
    starts, stopped = dict(result.start), set(result.preempt)
    for name, placements in starts.items():
        board.start(running(board.pending[name], placements))
    for name in stopped:
        was = board.running[name]
        gpus = round(sum(sum(p.devices.values()) for p in was.placements))
        board.end(name)
        board.submit(ask(name, gpus, was.standing))
    return stopped


def running(request: Request, placements: tuple[Placement, ...], *, preemptible: bool = True) -> Running:
    return Running(
        request.id, request.name, "alice", "vision", "train", placements, NOW, preemptible=preemptible,
        standing=request.standing,
    )  # fmt: skip


def test_the_lowest_standing_goes_first_and_priority_before_it() -> None:
    board = made(ask("long", 8, 900), ask("short", 8, 10), group=replace(SHORT_FIRST, preemption=False))
    assert set(plan(board, NOW).start) == {"short"}
    board.submit(ask("urgent", 8, 5000, priority=20))
    assert set(plan(board, NOW).start) == {"urgent"}


def test_a_session_gives_way_to_one_that_stands_clearly_lower_and_says_why() -> None:
    board = made(ask("long", 8, 1000))
    go(board)
    board.submit(ask("nearly", 8, 501))
    assert not plan(board, NOW).preempt
    board.submit(ask("short", 1, 10))
    result = plan(board, NOW)
    assert str(result.preempt["long"].message) == (
        "long makes room for short, which will likely be done much sooner; it is queued again."
    )


def test_nobody_gives_way_who_may_not_be_stopped_or_where_the_group_does_not_preempt() -> None:
    for group, preemptible in ((SHORT_FIRST, False), (replace(SHORT_FIRST, preemption=False), True)):
        board = made(group=group)
        places = (Placement("n0", 0, 0, dict.fromkeys(range(8), 1.0)),)
        board.start(running(ask("long", 8, 1000), places, preemptible=preemptible))
        board.submit(ask("short", 1, 10))
        assert not plan(board, NOW).preempt


def test_of_several_the_last_in_standing_gives_way() -> None:
    board = made(ask("a", 4, 3000), ask("b", 4, 5000))
    go(board)
    board.submit(ask("short", 2, 10))
    assert set(plan(board, NOW).preempt) == {"b"}


def test_what_is_freed_for_the_first_is_not_taken_by_those_behind_it() -> None:
    """Three GPUs are free and one is being freed for `four`; the small ones may not creep in meanwhile, or they would
    stop and start each other for ever."""
    board = made(ask("base", 4, 1), ask("x", 1, 13_000))
    go(board)
    board.submit(ask("four", 4, 5500))
    for name in ("y", "z"):
        board.submit(ask(name, 1, 13_100))
    assert go(board) == {"x"}
    go(board)
    assert "four" in board.running
    assert go(board) == set()
    assert {"x", "y", "z"} == set(board.pending)


def test_while_all_may_be_stopped_no_place_is_kept_for_the_first() -> None:
    """It gets room by right when its standing has fallen; where somebody may not be stopped, its place is kept."""
    for preemptible, starts in ((True, {"small"}), (False, set())):
        board = made()
        board.start(running(ask("long", 4, 15), (_half("n0"),), preemptible=preemptible))
        board.submit(ask("node", 8, 10))
        board.submit(ask("small", 4, 20))
        assert set(plan(board, NOW).start) == starts


def _half(node: str) -> Placement:
    return Placement(node, 0, 0, dict.fromkeys(range(4), 1.0))


def test_the_board_is_told_where_sessions_stand_unless_little_has_changed() -> None:
    board = made(ask("runs", 4, 100), nodes=1)
    go(board)
    board.submit(ask("waits", 8, 100))
    line_up(board, {"runs": 105, "waits": 95, "unknown": 7})
    assert (board.running["runs"].standing, board.pending["waits"].standing) == (100, 100)
    line_up(board, {"runs": 300, "waits": 30})
    assert (board.running["runs"].standing, board.pending["waits"].standing) == (300, 30)
    assert set(plan(board, NOW + timedelta(seconds=1)).preempt) == {"runs"}
