"""What holds of every plan, whatever the cluster looks like."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.models import Reason
from cluster.scheduler import SELECTORS, Board, Plan, feasible, plan
from cluster.scheduler.state import Group, Limit, NodeView, Placement, Request, Running, Snapshot

NOW = datetime(2026, 3, 2, tzinfo=UTC)
GIB = 2**30
USERS = ["alice", "bob", "minho"]
GROUPS = ["train", "serve"]
NEAR = 1e-6


@st.composite
def nodes(draw: st.DrawFn) -> NodeView:
    devices = draw(st.integers(0, 4))
    return NodeView(
        name=f"n{draw(st.integers(0, 10**6))}",
        group=draw(st.sampled_from(["train", "train", "serve"])),
        schedulable=draw(st.sampled_from([True] * 5 + [False])),
        cpu=16.0, memory=64 * GIB, cpu_free=16.0, memory_free=64 * GIB,
        devices=(1.0,) * devices,
        gpu_model=draw(st.sampled_from(["A100-80G", "L40S"])) if devices else None,
        temperature=draw(st.none() | st.floats(20, 90)),
    )  # fmt: skip


@st.composite
def requests(draw: st.DrawFn, i: int) -> Request:
    count = draw(st.sampled_from([1, 1, 1, 1, 2, 3]))
    return Request(
        id=f"s-{i}", name=f"job-{i}", user=draw(st.sampled_from(USERS)), project=draw(st.sampled_from(["p", "q"])),
        group=draw(st.sampled_from([*GROUPS, *["train"] * 4, "none"])),
        submitted=NOW - timedelta(minutes=draw(st.integers(0, 100))),
        cpu=count * draw(st.sampled_from([0.5, 0.5, 1.0, 4.0, 16.0])),
        memory=count * draw(st.sampled_from([1, 1, 16, 64])) * GIB,
        gpu=count * draw(st.sampled_from([0, 0.3, 0.5, 0.5, 1, 1, 2, 4, 1.5, 5])), node_count=count,
        gpu_model=draw(st.sampled_from([None, None, None, "a100", "l40s"])),
        priority=draw(st.sampled_from([10, 10, 50])),
        time_limit=draw(st.none() | st.sampled_from([600.0, 7200.0])),
        start_at=draw(st.sampled_from([None] * 6 + [NOW + timedelta(hours=1)])),
        waiting_for=draw(st.sampled_from([()] * 6 + [("prepare",)])),
    )  # fmt: skip


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """A cluster at some moment: what runs in it was placed by the plan of a moment before."""
    fleet = draw(st.lists(nodes(), min_size=1, max_size=6, unique_by=lambda node: node.name))
    groups = {
        name: Group(
            name,
            draw(st.sampled_from(["fifo", "lifo", "drf", "fair_share"])),
            draw(st.sampled_from(sorted(SELECTORS))),
            draw(st.booleans()),
        )
        for name in GROUPS
    }
    count = draw(st.integers(2, 14))
    everyone = [draw(requests(i)) for i in range(count)]
    limits = {"alice": Limit(gpu=draw(st.sampled_from([1, 4])), sessions=3)}
    before = Snapshot(NOW, fleet, everyone[: count // 2], [], groups, limits, {"p": Limit(cpu=20.0)})
    placed = plan(before)
    running = [
        Running(r.id, r.name, r.user, r.project, r.group, placed.start[r.id], NOW, r.priority, _end(r))
        for r in before.pending
        if r.id in placed.start
    ]
    pending = [r for r in everyone if r.id not in placed.start]
    return Snapshot(
        NOW, [_left(node, running) for node in fleet], pending, running, groups, limits, {"p": Limit(cpu=20.0)}
    )


@st.composite
def histories(draw: st.DrawFn) -> tuple[Board, Snapshot]:
    """A board that was told of everything one by one, in some order and with detours, and the snapshot it equals."""
    there = draw(snapshots())
    board = Board()
    board.set_groups(there.groups)
    for node in draw(st.permutations(list(there.nodes))):
        board.set_node(replace(node, cpu_free=node.cpu, memory_free=node.memory, devices=(1.0,) * len(node.devices)))
    late = draw(st.booleans())
    if not late:
        board.set_limits(there.user_limits, there.project_limits, there.cohorts)
    detours = draw(st.lists(st.sampled_from(there.pending), max_size=4)) if there.pending else []
    for running in draw(st.permutations(list(there.running))):
        if draw(st.booleans()):
            board.submit(_asked(running))
        board.start(replace(running, priority=draw(st.integers(0, 9))))
        board.change(running)
    for request in draw(st.permutations(list(there.pending))):
        board.submit(request)
    for request in detours:
        board.withdraw(request.id)
        with board.trial():
            board.submit(replace(request, priority=99))
            plan(board, NOW)
        board.submit(request)
    if late:
        board.set_limits(there.user_limits, there.project_limits, there.cohorts)
    return board, there


def _asked(running: Running) -> Request:
    return Request(
        running.id, running.name, running.user, running.project, running.group, NOW,
        sum(p.cpu for p in running.placements), sum(p.memory for p in running.placements),
        sum(s for p in running.placements for s in p.devices.values()), len(running.placements),
    )  # fmt: skip


def _end(request: Request) -> datetime | None:
    return NOW + timedelta(seconds=request.time_limit) if request.time_limit else None


def _left(node: NodeView, running: list[Running]) -> NodeView:
    held = [p for r in running for p in r.placements if p.node == node.name]
    devices = [1.0 - sum(p.devices.get(i, 0.0) for p in held) for i in range(len(node.devices))]
    return NodeView(
        node.name, node.group, node.schedulable, node.cpu, node.memory,
        node.cpu - sum(p.cpu for p in held), node.memory - sum(p.memory for p in held),
        tuple(devices), node.gpu_model, node.rack, node.power, node.temperature,
    )  # fmt: skip


def placed_on(snapshot: Snapshot, result: Plan) -> list[tuple[Request, Placement]]:
    asked = {request.id: request for request in snapshot.pending}
    return [(asked[ref], p) for ref, ranks in result.start.items() for p in ranks]


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_every_pending_session_is_in_exactly_one_place_with_a_reason(snapshot: Snapshot) -> None:
    result = plan(snapshot)
    counts = Counter([*result.start, *result.wait, *result.hold])
    assert counts == Counter(request.id for request in snapshot.pending)
    assert all(
        reasons and all(str(reason.message) for reason in reasons)
        for reasons in {**result.wait, **result.hold}.values()
    )
    assert all(when >= snapshot.now for when in result.estimated.values())
    assert set(result.estimated) <= set(result.wait)


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_nothing_is_given_twice(snapshot: Snapshot) -> None:
    views = {node.name: node for node in snapshot.nodes}
    cpu, memory, devices = Counter[str](), Counter[str](), Counter[tuple[str, int]]()
    for request, placement in placed_on(snapshot, plan(snapshot)):
        node = views[placement.node]
        assert node.schedulable
        assert node.group == request.group
        cpu[node.name] += placement.cpu  # type: ignore[assignment]
        memory[node.name] += placement.memory
        for device, share in placement.devices.items():
            devices[node.name, device] += share  # type: ignore[assignment]
            assert share < 1 or node.devices[device] >= 1 - NEAR, "a whole GPU on a device somebody uses"
    assert all(used <= views[name].cpu_free + NEAR for name, used in cpu.items())
    assert all(used <= views[name].memory_free for name, used in memory.items())
    assert all(used <= views[name].devices[device] + NEAR for (name, device), used in devices.items())


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_a_gang_is_whole_and_a_share_sits_on_one_device(snapshot: Snapshot) -> None:
    result = plan(snapshot)
    for request in snapshot.pending:
        ranks = result.start.get(request.id)
        if ranks is None:
            continue
        assert len({p.node for p in ranks}) == len(ranks) == request.node_count
        per_node = request.gpu / request.node_count
        for placement in ranks:
            assert abs(sum(placement.devices.values()) - per_node) < NEAR
            assert per_node >= 1 or len(placement.devices) <= 1


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_the_same_snapshot_gives_the_same_plan_in_whatever_order_it_is_told(snapshot: Snapshot) -> None:
    told_backwards = Snapshot(
        snapshot.now, list(reversed(snapshot.nodes)), list(reversed(snapshot.pending)),
        list(reversed(snapshot.running)),
        snapshot.groups, snapshot.user_limits, snapshot.project_limits, snapshot.past_use,
    )  # fmt: skip
    first, second = plan(snapshot), plan(told_backwards)
    assert (first.start, first.estimated) == (second.start, second.estimated)
    assert set(first.hold) == set(second.hold)


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_no_quota_is_exceeded(snapshot: Snapshot) -> None:
    gpu, sessions, cpu = Counter[str](), Counter[str](), Counter[str]()
    for running in snapshot.running:
        gpu[running.user] += sum(s for p in running.placements for s in p.devices.values())  # type: ignore[assignment]
        cpu[running.project] += sum(p.cpu for p in running.placements)  # type: ignore[assignment]
        sessions[running.user] += 1
    started = set(plan(snapshot).start)
    for request in snapshot.pending:
        if request.id in started:
            gpu[request.user] += request.gpu  # type: ignore[assignment]
            cpu[request.project] += request.cpu  # type: ignore[assignment]
            sessions[request.user] += 1
    limit = snapshot.user_limits["alice"]
    assert gpu["alice"] <= (limit.gpu or 0) + NEAR
    assert sessions["alice"] <= (limit.sessions or 0)
    assert cpu["p"] <= 20.0 + NEAR


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_without_backfill_nobody_passes_a_waiting_one_of_higher_priority(snapshot: Snapshot) -> None:
    result = plan(snapshot)
    in_line = {
        ref for ref, reasons in result.wait.items() if reasons[0].code in ("insufficient_resources", "queued_behind")
    }
    for waiting in (r for r in snapshot.pending if r.id in in_line):
        if snapshot.groups[waiting.group].backfill:
            continue
        passed = [r for r in snapshot.pending if r.id in result.start and r.group == waiting.group]
        assert all(r.priority >= waiting.priority for r in passed)


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_what_starts_was_feasible_and_backfill_never_moves_the_head_back(snapshot: Snapshot) -> None:
    result = plan(snapshot)
    assert all(not feasible(snapshot, r) for r in snapshot.pending if r.id in result.start)
    strict = {name: Group(g.name, g.policy, g.selector, False) for name, g in snapshot.groups.items()}
    without = plan(Snapshot(
        snapshot.now, snapshot.nodes, snapshot.pending, snapshot.running, strict,
        snapshot.user_limits, snapshot.project_limits,
    ))  # fmt: skip
    for head in _heads(snapshot, without):
        if head in without.estimated and head in result.wait and len(result.wait[head]) == 1:
            assert result.estimated[head] <= without.estimated[head]


def _heads(snapshot: Snapshot, strict: Plan) -> list[str]:
    """The first waiting session of each group: it lacks room, and nobody is ahead of it."""
    short = [
        r for r in snapshot.pending if r.id in strict.wait and strict.wait[r.id][-1].code == "insufficient_resources"
    ]
    return [r.id for r in short]


@settings(max_examples=80, deadline=None)
@given(histories())
def test_a_board_told_change_by_change_plans_as_one_made_of_the_whole(history: tuple[Board, Snapshot]) -> None:
    board, there = history
    told, whole = plan(board, NOW), plan(there)
    assert (told.start, told.estimated, set(told.wait), set(told.hold)) == (
        whole.start, whole.estimated, set(whole.wait), set(whole.hold),
    )  # fmt: skip
    assert {ref: [str(r.message) for r in why] for ref, why in told.wait.items()} == {
        ref: [str(r.message) for r in why] for ref, why in whole.wait.items()
    }


@settings(max_examples=60, deadline=None)
@given(histories())
def test_a_plan_leaves_the_board_as_it_was(history: tuple[Board, Snapshot]) -> None:
    board, _ = history
    room = board.room
    before = room.cpu.tolist(), room.memory.tolist(), room.devices.tolist(), room.whole.tolist(), room.total.tolist()
    first = plan(board, NOW)
    said = first.start, set(first.wait), set(first.hold), first.estimated
    assert (
        room.cpu.tolist(),
        room.memory.tolist(),
        room.devices.tolist(),
        room.whole.tolist(),
        room.total.tolist(),
    ) == (before)
    again = plan(board, NOW)
    assert (again.start, set(again.wait), set(again.hold), again.estimated) == said


@settings(max_examples=80, deadline=None)
@given(snapshots())
def test_who_is_held_is_known_without_the_reasons(snapshot: Snapshot) -> None:
    result = plan(snapshot)
    assert result.held == set(result.hold)


@settings(max_examples=80, deadline=None)
@given(snapshots())
def test_why_one_waits_is_told_in_short_as_it_is_told_in_full(snapshot: Snapshot) -> None:
    result = plan(snapshot)
    for ref, why in [*result.wait.items(), *result.hold.items()]:
        short = result.why(ref)
        assert short
        assert _alone(short) == _alone(why)


def _alone(why: tuple[Reason, ...]) -> list[tuple[str, str]]:
    """What is so whoever is ahead."""
    return [(reason.code, str(reason.message)) for reason in why if reason.code != "queued_behind"]
