"""What the scheduler decides and says, example by example."""

from datetime import UTC, datetime, timedelta

import pytest

from cluster.errors import Invalid
from cluster.scheduler import SELECTORS, Plan, feasible, matches_model, plan
from cluster.scheduler.state import Group, Limit, NodeView, Placement, Request, Running, Snapshot

NOW = datetime(2026, 3, 2, 0, 0, tzinfo=UTC)
GIB = 2**30


def node(name: str, gpu: int = 8, **more: object) -> NodeView:
    values: dict[str, object] = {
        "group": "train",
        "schedulable": True,
        "cpu": 64.0,
        "memory": 512 * GIB,
        "cpu_free": 64.0,
        "memory_free": 512 * GIB,
        "devices": (1.0,) * gpu,
        "gpu_model": "A100-80G" if gpu else None,
    }
    return NodeView(name=name, **{**values, **more})  # type: ignore[arg-type]


def ask(name: str, gpu: float = 1, minutes: int = 0, **more: object) -> Request:
    """A request submitted `minutes` before now."""
    values: dict[str, object] = {
        "id": f"s-{name}",
        "user": "alice",
        "project": "vision",
        "group": "train",
        "submitted": NOW - timedelta(minutes=minutes),
        "cpu": 1.0,
        "memory": GIB,
    }
    return Request(name=name, gpu=gpu, **{**values, **more})  # type: ignore[arg-type]


def runs(name: str, on: str, devices: dict[int, float], ends: float | None = None, **more: object) -> Running:
    """A running session that ends in `ends` minutes at the latest."""
    values: dict[str, object] = {"id": f"s-{name}", "user": "bob", "project": "vision", "group": "train"}
    return Running(
        name=name,
        placements=(Placement(on, 1.0, GIB, devices),),
        started=NOW - timedelta(hours=1),
        ends_by=None if ends is None else NOW + timedelta(minutes=ends),
        **{**values, **more},  # type: ignore[arg-type]
    )


def world(
    nodes: list[NodeView], pending: list[Request], running: list[Running] | None = None, **more: object
) -> Snapshot:
    """A snapshot in which what runs is taken off what its nodes have free."""
    group = more.pop("group", Group("train"))
    return Snapshot(
        now=NOW,
        nodes=[_less(each, running or []) for each in nodes],
        pending=pending,
        running=running or [],
        groups={group.name: group},  # type: ignore[attr-defined]
        **more,  # type: ignore[arg-type]
    )


def _less(view: NodeView, running: list[Running]) -> NodeView:
    held = [p for r in running for p in r.placements if p.node == view.name]
    devices = [free - sum(p.devices.get(i, 0) for p in held) for i, free in enumerate(view.devices)]
    return NodeView(
        name=view.name, group=view.group, schedulable=view.schedulable, cpu=view.cpu, memory=view.memory,
        cpu_free=view.cpu_free - sum(p.cpu for p in held), memory_free=view.memory_free - sum(p.memory for p in held),
        devices=tuple(devices), gpu_model=view.gpu_model, rack=view.rack, power=view.power,
        temperature=view.temperature,
    )  # fmt: skip


def said(result: Plan, name: str) -> list[str]:
    return [str(reason.message) for reason in {**result.wait, **result.hold}[f"s-{name}"]]


def where(result: Plan, name: str) -> list[tuple[str, dict[int, float]]]:
    return [(p.node, dict(p.devices)) for p in result.start[f"s-{name}"]]


# ── placing ──────────────────────────────────────────────────────────────────────────────────────


def test_a_session_starts_where_it_fits() -> None:
    result = plan(world([node("a100-01")], [ask("train", gpu=2)]))
    assert where(result, "train") == [("a100-01", {0: 1.0, 1: 1.0})]


def test_fractions_share_one_device_and_whole_gpus_take_free_ones() -> None:
    pending = [ask("half", 0.5, 9), ask("other-half", 0.5, 8), ask("whole", 1, 7), ask("third", 0.6, 6)]
    result = plan(world([node("a100-01", gpu=3)], pending))
    assert where(result, "half") == [("a100-01", {0: 0.5})]
    assert where(result, "other-half") == [("a100-01", {0: 0.5})]
    assert where(result, "whole") == [("a100-01", {1: 1.0})]
    assert where(result, "third") == [("a100-01", {2: 0.6})]


def test_a_fraction_does_not_spread_over_two_half_free_devices() -> None:
    running = [runs("x", "n1", {0: 0.5}), runs("y", "n1", {1: 0.5})]
    result = plan(world([node("n1", gpu=2)], [ask("big", 0.8)], running))
    assert said(result, "big") == ["0.8 GPUs asked, at most 0.5 free on one node of train (n1)."]


def test_a_whole_gpu_is_not_one_that_somebody_uses_a_part_of() -> None:
    result = plan(world([node("n1", gpu=3)], [ask("whole", 2)], [runs("x", "n1", {0: 0.1})]))
    assert where(result, "whole") == [("n1", {1: 1.0, 2: 1.0})]


def test_a_gang_gets_as_many_nodes_as_asked_or_none() -> None:
    nodes = [node("n1"), node("n2"), node("n3")]
    both = plan(world(nodes[:2], [ask("gang", 16, node_count=2)]))
    assert [p.node for p in both.start["s-gang"]] == ["n1", "n2"]
    busy = plan(world(nodes, [ask("gang", 24, node_count=3)], [runs("x", "n2", {0: 1.0})]))
    assert not busy.start
    assert said(busy, "gang") == [
        "3 nodes with 8 GPUs, 0.33 cores and 341.3 MiB free each asked, 2 of train have it now."
    ]


@pytest.mark.parametrize(
    ("asked", "model", "fits"),
    [
        ("a100", "A100-80G", True),
        ("A100-80GB", "A100-80G", True),
        ("a100 80g", "NVIDIA A100-SXM4-80GB", False),
        ("NVIDIA A100", "A100-80G", True),
        ("a10", "A100-80G", False),
        ("l40", "L40S", False),
        ("h100", "NVIDIA H100 80GB HBM3", True),
        ("rtx4090", "NVIDIA GeForce RTX 4090", True),
        ("gpu", "A100-80G", False),
        ("a100", None, False),
    ],
)
def test_gpu_models_match_as_people_say_them(asked: str, model: str | None, fits: bool) -> None:
    assert matches_model(asked, model) is fits


def test_a_gpu_model_is_only_looked_for_where_it_is() -> None:
    nodes = [node("l40s-01", gpu_model="L40S"), node("a100-01")]
    assert where(plan(world(nodes, [ask("x", gpu_model="a100")])), "x") == [("a100-01", {0: 1.0})]


def test_a_cordoned_node_gets_nothing() -> None:
    result = plan(world([node("n1", schedulable=False), node("n2")], [ask("x")]))
    assert where(result, "x")[0][0] == "n2"


# ── order ────────────────────────────────────────────────────────────────────────────────────────


def started(result: Plan) -> set[str]:
    return {ref.removeprefix("s-") for ref in result.start}


def test_fifo_starts_the_oldest_and_lifo_the_newest() -> None:
    pending = [ask("old", 8, 20), ask("new", 8, 10)]
    assert started(plan(world([node("n1")], pending))) == {"old"}
    assert started(plan(world([node("n1")], pending, group=Group("train", policy="lifo")))) == {"new"}


def test_priority_goes_before_age() -> None:
    pending = [ask("old", 8, 20), ask("urgent", 8, 1, priority=50)]
    result = plan(world([node("n1")], pending))
    assert started(result) == {"urgent"}


def test_drf_gives_two_users_with_twelve_jobs_each_four_and_four_of_eight() -> None:
    pending = [ask(f"a{i}", 1, 60 - i, user="alice") for i in range(12)]
    pending += [ask(f"b{i}", 1, 20 - i, user="bob") for i in range(12)]
    result = plan(world([node("n1")], pending, group=Group("train", policy="drf")))
    assert sorted(name[0] for name in started(result)) == ["a"] * 4 + ["b"] * 4


def test_fair_share_lets_the_one_who_used_less_go_first() -> None:
    pending = [ask("a", 8, 60, user="alice"), ask("b", 8, 1, user="bob")]
    fair = Group("train", policy="fair_share")
    assert started(plan(world([node("n1")], pending, group=fair, past_use={"alice": 5e5, "bob": 10.0}))) == {"b"}
    assert started(plan(world([node("n1")], pending, group=fair))) == {"a"}


def test_without_backfill_a_small_session_does_not_pass_the_head() -> None:
    pending = [ask("big", 8, 20), ask("small", 1, 10)]
    result = plan(world([node("n1")], pending, [runs("x", "n1", {0: 1.0})]))
    assert not result.start
    assert said(result, "big") == ["8 GPUs asked, at most 7 free on one node of train (n1)."]
    assert said(result, "small") == [
        "Would fit now, but big is ahead of it in train, which keeps the order (backfill is off)."
    ]
    assert result.wait["s-small"][0].ahead == ["big"]


def test_backfill_lets_through_what_ends_before_the_heads_reservation_and_nothing_longer() -> None:
    pending = [
        ask("big", 8, 20),
        ask("short", 1, 10, time_limit=1800),
        ask("long", 1, 9, time_limit=7200),
        ask("endless", 1, 8),
    ]
    running = [runs("x", "n1", {0: 1.0}, ends=60)]
    result = plan(world([node("n1")], pending, running, group=Group("train", backfill=True)))
    assert started(result) == {"short"}
    assert said(result, "long") == ["Would fit now, but it would delay big, which is ahead of it in train."]
    assert result.estimated["s-big"] == NOW + timedelta(hours=1)


def test_backfill_uses_nodes_that_the_head_does_not_need() -> None:
    pending = [ask("big", 8, 20), ask("endless", 4, 10)]
    nodes = [node("n1"), node("small", gpu=4)]
    result = plan(world(nodes, pending, [runs("x", "n1", {0: 1.0}, ends=60)], group=Group("train", backfill=True)))
    assert where(result, "endless")[0][0] == "small"


def test_what_passes_the_head_leaves_room_for_it_also_together() -> None:
    pending = [ask("big", 6, 20), *(ask(f"endless-{i}", 1, 10 - i) for i in range(4))]
    running = [runs("x", "n1", dict.fromkeys(range(3), 1.0), ends=60)]
    result = plan(world([node("n1")], pending, running, group=Group("train", backfill=True)))
    assert started(result) == {"endless-0", "endless-1"}


def test_a_head_behind_a_session_without_time_limit_keeps_its_place_too() -> None:
    pending = [ask("big", 8, 20), ask("endless", 1, 10)]
    result = plan(world([node("n1")], pending, [runs("x", "n1", {0: 1.0})], group=Group("train", backfill=True)))
    assert not result.start
    assert result.estimated == {}


def test_what_could_never_run_blocks_nobody() -> None:
    result = plan(world([node("n1")], [ask("nine", 9, 20), ask("small", 1, 10)]))
    assert started(result) == {"small"}
    assert said(result, "nine") == ["9 GPUs on one node asked, but the largest node of train (n1) has 8."]


# ── holds and other waits ────────────────────────────────────────────────────────────────────────


def test_a_quota_holds_and_the_next_may_go() -> None:
    pending = [ask("over", 4, 20), ask("within", 2, 10), ask("bobs", 1, 5, user="bob")]
    running = [runs("mine", "n1", dict.fromkeys(range(3), 1.0), user="alice")]
    result = plan(world([node("n1")], pending, running, user_limits={"alice": Limit(gpu=6)}))
    assert started(result) == {"within", "bobs"}
    assert said(result, "over") == ["alice holds 5 of 6 GPUs of their quota; 4 more would exceed it."]
    assert result.hold["s-over"][0].ahead == ["mine", "within"]


def test_what_starts_in_the_pass_counts_against_the_projects_quota() -> None:
    pending = [ask(f"j{i}", 1, 20 - i) for i in range(4)]
    result = plan(world([node("n1")], pending, project_limits={"vision": Limit(sessions=3)}))
    assert started(result) == {"j0", "j1", "j2"}
    assert said(result, "j3") == ["Project vision runs 3 of 3 sessions of its quota; 1 more would exceed it."]


def test_a_dependency_holds_and_a_start_time_waits() -> None:
    pending = [ask("after", waiting_for=("prepare",)), ask("later", start_at=NOW + timedelta(hours=2)), ask("now")]
    result = plan(world([node("n1")], pending))
    assert started(result) == {"now"}
    assert said(result, "after") == ["Waits until prepare ends with success."]
    assert said(result, "later") == ["Asked to start at 2026-03-02T02:00+00:00, not before."]
    assert result.estimated == {"s-later": NOW + timedelta(hours=2)}


def test_estimates_follow_the_time_limits_of_those_ahead() -> None:
    pending = [ask("first", 8, 20, time_limit=3600), ask("second", 8, 10)]
    result = plan(world([node("n1")], pending, [runs("x", "n1", {0: 1.0}, ends=30)]))
    assert result.estimated == {"s-first": NOW + timedelta(minutes=30), "s-second": NOW + timedelta(minutes=90)}


def test_only_closed_nodes_could_hold_it() -> None:
    nodes = [node("n1", schedulable=False), node("small", gpu=2)]
    result = plan(world(nodes, [ask("big", 8)]))
    assert said(result, "big") == ["The nodes of train that could hold it take no new work: n1."]
    assert result.wait["s-big"][0].code == "no_alive_node"


def test_what_is_short_is_said_of_the_nearest_node_when_each_amount_is_free_somewhere() -> None:
    nodes = [node("gpus", cpu_free=1.0), node("cores", gpu=8, devices=(0.0,) * 8)]
    result = plan(world(nodes, [ask("x", 2, cpu=8.0)]))
    assert said(result, "x") == ["gpus comes nearest in train, but has 1 of the 8 cores free."]


def test_an_unknown_group_is_named_with_the_known_ones() -> None:
    result = plan(world([node("n1")], [ask("x", group="trian")]))
    assert said(result, "x") == ["There is no resource group trian."]
    assert result.wait["s-x"][0].candidates == ["train"]


# ── feasible ─────────────────────────────────────────────────────────────────────────────────────


def could(request: Request, nodes: list[NodeView], **more: object) -> list[tuple[str, str]]:
    return [(r.code, str(r.message)) for r in feasible(world(nodes, [], **more), request)]


def test_a_full_or_cordoned_cluster_could_hold_it_some_day() -> None:
    busy = [node("n1", schedulable=False, devices=(0.0,) * 8, cpu_free=0.0)]
    assert could(ask("x", 8), busy) == []


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (ask("x", 9), ("impossible", "9 GPUs on one node asked, but the largest node of train (n1) has 8.")),
        (
            ask("x", 1, cpu=99.0),
            ("impossible", "99 cores on one node asked, but the largest node of train (n1) has 64."),
        ),
        (
            ask("x", 1, memory=2**40),
            ("impossible", "1 TiB memory on one node asked, but the largest node of train (n1) has 512 GiB."),
        ),
        (ask("x", 24, node_count=3), ("impossible", "3 nodes asked, but only 2 of train could hold a part of it.")),
        (ask("x", 1, gpu_model="h100"), ("impossible", "No node of train has a h100 GPU; it has A100-80G.")),
        (
            ask("x", 1.5),
            (
                "impossible",
                "1.5 GPUs on one node asked, but a share sits on one device: ask for less than 1 or a whole number.",
            ),
        ),
    ],
)
def test_the_impossible_is_refused_with_the_number_that_makes_it_so(request_: Request, reason: tuple[str, str]) -> None:
    assert could(request_, [node("n1"), node("n2")]) == [reason]


def test_more_than_the_whole_quota_is_never_possible() -> None:
    found = could(ask("x", 8), [node("n1")], user_limits={"alice": Limit(gpu=4)})
    assert found == [("quota", "8 GPUs asked, but the quota of alice is 4 in all.")]


# ── selectors ────────────────────────────────────────────────────────────────────────────────────


def pick(selector: str, nodes: list[NodeView], request: Request, running: list[Running] | None = None) -> str:
    return plan(world(nodes, [request], running, group=Group("train", selector=selector))).start[request.id][0].node


def test_concentrated_fills_and_dispersed_spreads() -> None:
    nodes, running = [node("n1"), node("n2")], [runs("x", "n2", {0: 1.0})]
    assert pick("concentrated", nodes, ask("x2"), running) == "n2"
    assert pick("dispersed", nodes, ask("x2"), running) == "n1"


def test_round_robin_goes_on_after_the_latest_session() -> None:
    nodes, running = [node("n1"), node("n2"), node("n3")], [runs("x", "n2", {0: 1.0})]
    assert pick("round_robin", nodes, ask("x2"), running) == "n3"


def test_least_fragmentation_keeps_whole_nodes_for_large_requests() -> None:
    nodes, running = [node("n1"), node("n2")], [runs("x", "n2", {0: 0.5})]
    assert pick("least_fragmentation", nodes, ask("half", 0.5), running) == "n2"


def test_least_power_takes_the_frugal_gpu_and_wakes_nobody() -> None:
    nodes = [node("h100-01", gpu_model="H100-80G"), node("l4-01", gpu_model="L4")]
    assert pick("least_power", nodes, ask("x")) == "l4-01"
    awake = [runs("y", "n2", {0: 1.0})]
    assert pick("least_power", [node("n1"), node("n2")], ask("x"), awake) == "n2"


def test_coolest_takes_the_coolest_known() -> None:
    nodes = [node("n1", temperature=70.0), node("n2", temperature=50.0), node("n3")]
    assert pick("coolest", nodes, ask("x")) == "n2"


def test_a_mistyped_selector_or_policy_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(Invalid, match=r"There is no selector coldest; there are concentrated, .*coolest\."):
        pick("coldest", [node("n1")], ask("x"))
    with pytest.raises(Invalid, match="There is no scheduling policy fofi; there are fifo"):
        plan(world([node("n1")], [ask("x")], group=Group("train", policy="fofi")))
    assert set(SELECTORS) == {
        "concentrated",
        "dispersed",
        "round_robin",
        "least_fragmentation",
        "least_power",
        "coolest",
    }
