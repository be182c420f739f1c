"""Who gives way to whom: priorities, borrowed quota; and where gangs and other accelerators sit."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest

from cluster.scheduler import Board, Plan, feasible, plan, selectors
from cluster.scheduler.state import Group, Limit, NodeView, Placement, Request, Running, Snapshot

NOW = datetime(2026, 3, 2, 0, 0, tzinfo=UTC)
GIB = 2**30
YIELDING = Group("train", preemption=True)


def node(name: str, gpu: int = 8, **more: Any) -> NodeView:
    values: dict[str, Any] = {"cpu": 64.0, "memory": 512 * GIB, "cpu_free": 64.0, "memory_free": 512 * GIB}
    model = {"gpu_model": "A100-80G"} if gpu else {}
    return NodeView(name, "train", True, **{**values, "devices": (1.0,) * gpu, **model, **more})


def ask(name: str, gpu: float = 1, minutes: float = 0, **more: Any) -> Request:
    values: dict[str, Any] = {"user": "alice", "project": "vision", "cpu": 1.0, "memory": GIB}
    return Request(
        id=f"s-{name}", name=name, group="train", gpu=gpu, submitted=NOW - timedelta(minutes=minutes),
        **{**values, **more},
    )  # fmt: skip


def runs(name: str, on: Mapping[str, int], minutes: float = 60, **more: Any) -> Running:
    """Whole GPUs on each node, from its first device on unless `first` says otherwise; may be stopped."""
    first = more.pop("first", 0)
    placements = tuple(
        Placement(n, 1.0, GIB, dict.fromkeys(range(first, first + count), 1.0)) for n, count in on.items()
    )
    values: dict[str, Any] = {"user": "bob", "project": "vision", "preemptible": True}
    return Running(
        f"s-{name}", name, group="train", placements=placements, started=NOW - timedelta(minutes=minutes),
        **{**values, **more},
    )  # fmt: skip


def board(nodes: list[NodeView], pending: list[Request], running: list[Running], **more: Any) -> Board:
    group = more.pop("group", Group("train"))
    made = Board.of(Snapshot(NOW, nodes, pending, [], {"train": group}, **more))
    for each in running:
        made.start(each)
    return made


def names(result: Plan) -> set[str]:
    return {ref.removeprefix("s-") for ref in result.preempt}


def nodes_of(result: Plan, name: str) -> list[str]:
    return [p.node for p in result.start[f"s-{name}"]]


# ── preemption ───────────────────────────────────────────────────────────────────────────────────


def test_the_urgent_one_gets_room_from_the_lowest_priority_that_started_last() -> None:
    running = [
        runs("old", {"n1": 2}, 90, priority=5), runs("young", {"n1": 2}, 10, first=2, priority=5),
        runs("mine", {"n1": 4}, 5, first=4, priority=10),
    ]  # fmt: skip
    result = plan(board([node("n1")], [ask("urgent", 2, priority=50)], running, group=YIELDING), NOW)
    assert names(result) == {"young"}
    assert not result.start
    assert str(result.preempt["s-young"].message) == (
        "young makes room for urgent, which has a higher priority; it is queued again."
    )


def test_nobody_gives_way_to_an_equal_or_where_it_is_off_or_who_may_not_be_stopped() -> None:
    full = [runs("x", {"n1": 8}, priority=10)]
    urgent = [ask("urgent", 2, priority=50)]
    assert not plan(board([node("n1")], [ask("same", 2, priority=10)], full, group=YIELDING), NOW).preempt
    assert not plan(board([node("n1")], urgent, full), NOW).preempt
    kept = [runs("x", {"n1": 8}, priority=10, preemptible=False)]
    assert not plan(board([node("n1")], urgent, kept, group=YIELDING), NOW).preempt


def test_nobody_gives_way_when_even_all_of_them_would_not_do() -> None:
    running = [runs("soft", {"n1": 4}, priority=1), runs("hard", {"n1": 4}, first=4, preemptible=False)]
    assert not plan(board([node("n1")], [ask("urgent", 8, priority=50)], running, group=YIELDING), NOW).preempt


def test_nobody_more_is_stopped_while_those_that_are_being_stopped_will_do() -> None:
    leaving = runs("leaving", {"n1": 4}, priority=1, stopping=True, ends_by=NOW + timedelta(seconds=10))
    running = [leaving, runs("other", {"n1": 4}, first=4, priority=1)]
    asked = board([node("n1")], [ask("urgent", 4, priority=50)], running, group=YIELDING)
    assert not plan(asked, NOW).preempt
    asked.end("s-leaving")
    assert nodes_of(plan(asked, NOW), "urgent") == ["n1"]


def test_a_gang_takes_no_more_than_it_needs() -> None:
    running = [runs(f"x{i}", {f"n{i}": 8}, 10 + i, priority=1) for i in range(4)]
    nodes = [node(f"n{i}") for i in range(4)]
    result = plan(board(nodes, [ask("gang", 16, node_count=2, priority=50)], running, group=YIELDING), NOW)
    assert names(result) == {"x0", "x1"}


def test_what_passes_the_urgent_one_does_not_take_the_room_that_is_made_for_it() -> None:
    leaving = runs("leaving", {"n1": 8}, priority=1, stopping=True, ends_by=NOW + timedelta(seconds=10))
    pending = [ask("urgent", 8, priority=50), ask("endless", 1, 30)]
    group = Group("train", preemption=True, backfill=True)
    asked = board([node("n1"), node("n2", gpu=4)], pending, [leaving], group=group)
    assert nodes_of(plan(asked, NOW), "endless") == ["n2"]
    alone = board([node("n1")], pending, [runs("leaving", {"n1": 7}, stopping=True)], group=group)
    assert not plan(alone, NOW).start


# ── quotas of a cohort ───────────────────────────────────────────────────────────────────────────

LENT: dict[str, Any] = {
    "project_limits": {"vision": Limit(gpu=4), "nlp": Limit(gpu=4)},
    "cohorts": {"vision": "lab", "nlp": "lab"},
}


def test_a_project_borrows_what_the_others_leave_idle_and_no_more() -> None:
    pending = [ask(f"v{i}", 1, 20 - i) for i in range(10)]
    result = plan(board([node("n1", 16)], pending, [], **LENT), NOW)
    assert len(result.start) == 8
    assert [str(r.message) for r in result.hold["s-v9"]] == [
        "The projects of lab hold 8 of their 8 GPUs together; 1 more would exceed it."
    ]


def test_borrowing_has_its_own_limit() -> None:
    limits = {"vision": Limit(gpu=4, borrow_gpu=2), "nlp": Limit(gpu=4)}
    pending = [ask(f"v{i}", 1, 20 - i) for i in range(10)]
    result = plan(board([node("n1", 16)], pending, [], project_limits=limits, cohorts=LENT["cohorts"]), NOW)
    assert len(result.start) == 6


def test_who_wants_its_own_back_gets_it_from_the_borrower_that_started_last() -> None:
    running = [runs(f"v{i}", {"n1": 1}, 60 - i, first=i) for i in range(8)]
    asked = board([node("n1", 16)], [ask("own", 2, 1, project="nlp")], running, **LENT)
    result = plan(asked, NOW)
    assert names(result) == {"v6", "v7"}
    assert str(result.preempt["s-v7"].message) == (
        "v7 gives back what project vision had borrowed, for own; it is queued again."
    )
    for name in names(result):
        asked.end(f"s-{name}")
    assert nodes_of(plan(asked, NOW), "own") == ["n1"]


def test_borrowers_are_given_a_moment_to_end_by_themselves() -> None:
    running = [runs(f"v{i}", {"n1": 1}, 60 - i, first=i) for i in range(8)]
    asked = board([node("n1", 16)], [ask("own", 2, project="nlp")], running, **LENT)
    assert names(plan(asked, NOW + timedelta(seconds=14))) == set()
    assert names(plan(asked, NOW + timedelta(seconds=15))) == {"v6", "v7"}


def test_a_borrower_of_higher_priority_keeps_what_it_has() -> None:
    running = [runs(f"v{i}", {"n1": 1}, 60 - i, first=i, priority=20 if i else 10) for i in range(8)]
    asked = board([node("n1", 16)], [ask("own", 1, 1, project="nlp")], running, **LENT)
    assert names(plan(asked, NOW)) == {"v0"}


def test_borrowers_give_back_room_too_and_only_down_to_what_is_theirs() -> None:
    running = [runs(f"v{i}", {"n1": 1}, 60 - i, first=i) for i in range(6)]
    limits = {"vision": Limit(gpu=4), "nlp": Limit(gpu=8)}
    lent: dict[str, Any] = {"project_limits": limits, "cohorts": LENT["cohorts"]}
    asked = board([node("n1", 6)], [ask("own", 2, 1, project="nlp")], running, **lent)
    assert names(plan(asked, NOW)) == {"v4", "v5"}
    more = board([node("n1", 6)], [ask("own", 3, 1, project="nlp")], running, **lent)
    assert names(plan(more, NOW)) == set(), "three would reach into what is vision's own"


def test_a_borrower_takes_nothing_from_a_borrower() -> None:
    limits = {"vision": Limit(gpu=2), "nlp": Limit(gpu=2), "audio": Limit(gpu=4)}
    cohorts = dict.fromkeys(limits, "lab")
    running = [runs(f"v{i}", {"n1": 1}, first=i) for i in range(8)]
    asked = board(
        [node("n1", 16)], [ask("more", 3, project="nlp", priority=90)], running, project_limits=limits, cohorts=cohorts
    )
    assert not plan(asked, NOW).preempt


def test_what_exceeds_all_of_the_cohort_is_never_possible() -> None:
    asked = board([node("n1", 16)], [], [], **LENT)
    assert not feasible(asked, ask("x", 8))
    found = feasible(asked, ask("x", 9))
    assert [str(r.message) for r in found] == ["9 GPUs asked, but the quota of project vision is 8 in all."]


# ── racks ────────────────────────────────────────────────────────────────────────────────────────

RACKS = [node("n1", rack="r1"), node("n2", rack="r2"), node("n3", rack="r2"), node("n4", rack="r2")]


def test_a_gang_sits_on_one_rack_where_it_must_and_where_it_can() -> None:
    for rack in ("required", "preferred"):
        result = plan(board(RACKS, [ask("gang", 16, node_count=2, rack=rack)], []), NOW)
        assert nodes_of(result, "gang") == ["n2", "n3"]
    assert nodes_of(plan(board(RACKS, [ask("gang", 16, node_count=2)], []), NOW), "gang") == ["n1", "n2"]


def test_the_rack_with_the_fewest_to_spare_is_taken() -> None:
    nodes = [*(node(f"a{i}", rack="r1") for i in range(4)), *(node(f"b{i}", rack="r2") for i in range(2))]
    result = plan(board(nodes, [ask("gang", 16, node_count=2, rack="required")], []), NOW)
    assert nodes_of(result, "gang") == ["b0", "b1"]


def test_a_gang_that_would_rather_be_on_one_rack_goes_on_two_and_one_that_must_waits_and_says_why() -> None:
    busy = [runs("x", {"n3": 8}), runs("y", {"n4": 1})]
    spread = plan(board(RACKS, [ask("gang", 16, node_count=2, rack="preferred")], busy), NOW)
    assert nodes_of(spread, "gang") == ["n1", "n2"]
    strict = plan(board(RACKS, [ask("gang", 16, node_count=2, rack="required")], busy), NOW)
    assert [str(r.message) for r in strict.wait["s-gang"]] == [
        "2 nodes with room on one rack of train asked; there are as many, but on different racks."
    ]
    found = feasible(board(RACKS, [], []), ask("wide", 32, node_count=4, rack="required"))
    assert [str(r.message) for r in found] == [
        "4 nodes on one rack asked, but no rack of train has more than 3 that could hold a part of it."
    ]


# ── other accelerators ───────────────────────────────────────────────────────────────────────────

MIXED = [
    node("gaudi-01", gpu_model="HL-225", kind="gaudi"), node("mi-01", gpu_model="MI300X", kind="rocm"),
    node("npu-01", gpu_model="ATOM", kind="atom"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "on"),
    [
        ({"kind": "gaudi"}, "gaudi-01"),
        ({"kind": "atom"}, "npu-01"),
        ({"gpu_model": "mi300x"}, "mi-01"),
        ({"gpu_model": "atom"}, "npu-01"),
        ({"gpu_model": "gaudi"}, "gaudi-01"),
        ({}, "mi-01"),
    ],
)
def test_a_gpu_is_a_gpu_and_others_are_asked_for_by_name(more: dict[str, str], on: str) -> None:
    assert nodes_of(plan(board(MIXED, [ask("x", **more)], []), NOW), "x") == [on]


def test_where_there_is_only_one_kind_it_need_not_be_named() -> None:
    assert nodes_of(plan(board(MIXED[2:], [ask("x")], []), NOW), "x") == ["npu-01"]


def test_a_kind_that_is_not_there_is_said() -> None:
    found = feasible(board(MIXED, [], []), ask("x", kind="rngd"))
    assert [str(r.message) for r in found] == ["No node of train has a rngd GPU; it has ATOM, HL-225, MI300X."]


# ── plugins ──────────────────────────────────────────────────────────────────────────────────────


def last_by_name(room: Any, need: Any, nodes: Any, mood: Any) -> Any:
    return -nodes.astype(np.float64)


def test_a_selector_from_elsewhere_is_chosen_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("last_by_name", f"{__name__}:last_by_name", selectors.PLUGINS)
    monkeypatch.setattr(EntryPoint, "load", lambda self: last_by_name)
    monkeypatch.setattr(selectors, "entry_points", lambda group: [entry])
    selectors.known.cache_clear()
    try:
        group = Group("train", selector="last_by_name")
        result = plan(board([node("n1"), node("n2")], [ask("x")], [], group=group), NOW)
        assert nodes_of(result, "x") == ["n2"]
    finally:
        selectors.known.cache_clear()


def test_reasons_are_asked_before_the_board_changes() -> None:
    asked = board([node("n1")], [ask("x", 9)], [])
    late = plan(asked, NOW)
    asked.submit(ask("y"))
    with pytest.raises(RuntimeError, match="the board has changed"):
        late.wait  # noqa: B018
