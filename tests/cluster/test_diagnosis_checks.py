"""Checks whose faults a scenario can't show: what is judged from shapes alone."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cluster.diagnosis import checks, nodes, sessions
from cluster.diagnosis.reads import MOST_LOGS, current, worth_reading
from cluster.diagnosis.seen import Disk, Seen
from cluster.errors import NotFound
from cluster.models import (
    Endpoint,
    EndpointHealth,
    EndpointMetrics,
    EndpointState,
    Node,
    NodeStatus,
    Reason,
    Resources,
    Session,
    SessionState,
    Traffic,
)
from cluster.sentence import S
from cluster.simulator.lab import Lab

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def node(**more: Any) -> Node:
    size = Resources(cpu=8, memory=2**36, gpu=4)
    plain = {"name": "n-01", "resource_group": "train", "status": NodeStatus.ALIVE, "capacity": size, "free": size}
    return Node(**{**plain, "last_beat": NOW, **more})


def session(name: str = "job", **more: Any) -> Session:
    plain = {"id": f"s-{name}", "name": name, "user": "ann", "project": "red", "state": SessionState.RUNNING}
    times = {"submitted": NOW - timedelta(hours=9), "started": NOW - timedelta(hours=9)}
    return Session(**{**plain, **times, "resources": Resources(cpu=1, memory=2**30, gpu=1), "resource_group": "train",
                      **more})  # fmt: skip


def seen(**more: Any) -> Seen:
    return Seen(**{"now": NOW, "user": "boss", "admin": True, **more})


def codes(at: Seen) -> list[str]:
    return [f.code for f in checks.everything(at)]


@pytest.mark.parametrize(("quiet", "expected"), [(5, []), (19, []), (25, ["node_silent"])])
def test_a_node_that_says_nothing_is_noticed_before_it_is_lost(quiet: int, expected: list[str]) -> None:
    assert codes(seen(nodes=[node(last_beat=NOW - timedelta(seconds=quiet))])) == expected


@pytest.mark.parametrize(
    ("degrees", "expected"), [(84.9, []), (85, ["warning"]), (91.9, ["warning"]), (92, ["error"])]
)  # fmt: skip
def test_heat_weighs_by_how_hot_it_is(degrees: float, expected: list[str]) -> None:
    assert [f.severity for f in nodes.hot(seen(nodes=[node(temperature=degrees)]))] == expected


def test_a_node_closed_for_long_is_forgotten_and_offered_to_be_opened() -> None:
    shut = node(status=NodeStatus.CORDONED, reason="fan")
    lately = seen(nodes=[shut], closed={"n-01": NOW - timedelta(hours=1)})
    long_ago = seen(nodes=[shut], closed={"n-01": NOW - timedelta(days=3)})
    [new], [old] = list(nodes.closed(lately)), list(nodes.closed(long_ago))
    assert (new.severity, new.proposal) == ("info", None)
    assert old.severity == "warning"
    assert old.proposal is not None
    assert old.proposal.tool == "uncordon_node"


def test_a_draining_node_on_which_something_still_runs_is_not_done() -> None:
    busy = node(status=NodeStatus.DRAINING, reason="firmware", free=Resources(cpu=4, memory=2**35, gpu=2))
    assert codes(seen(nodes=[busy], closed={"n-01": NOW - timedelta(hours=1)})) == ["node_draining"]


@pytest.mark.parametrize(("free", "expected"), [(11, []), (9, ["warning"]), (2, ["error"])])
def test_a_nearly_full_disk_of_the_server_is_said_first(free: int, expected: list[str]) -> None:
    at = seen(nodes=[node()], disk=Disk(free=free * 2**30, size=100 * 2**30))
    found = checks.everything(at)
    assert [f.severity for f in found] == expected
    if found:
        assert str(checks.summary(at, found)[0]).startswith("The server's disk is nearly full")


def test_an_update_that_was_given_up_and_errors_that_people_get_are_told() -> None:
    at = Endpoint(
        name="chat", project="red", owner="ann", model="g", revision=1, state=EndpointState.ACTIVE, state_since=NOW,
        health=EndpointHealth.HEALTHY, traffic=Traffic(reachable=True, replicas=1), url="/serve/chat", wanted=1,
        metrics=EndpointMetrics(errors_per_second=0.5), created=NOW,
        reasons=[Reason(code="unavailable", message=S("The update was given up."))],
    )  # fmt: skip
    assert sorted(codes(seen(endpoints=[at]))) == ["endpoint_errors", "endpoint_trouble"]
    stopped = at.model_copy(
        update={"wanted": 0, "health": EndpointHealth.STOPPED, "traffic": Traffic(reachable=False), "reasons": [],
                "metrics": EndpointMetrics()}
    )  # fmt: skip
    assert codes(seen(endpoints=[stopped])) == [], "nobody wants it to answer"


def test_one_that_was_cancelled_because_its_dependency_failed_says_so() -> None:
    why = Reason(code="dependency", message=S("base failed."))
    broken = session(state=SessionState.CANCELLED, ended=NOW, started=None, reasons=[why])
    assert codes(seen(sessions=[broken])) == ["dependency_failed"]


def test_a_replica_that_waits_for_requests_is_not_idle() -> None:
    idle: dict[str, Any] = {"idle": True, "gpu_utilization": 0.0}
    assert [f.code for f in sessions.idle(seen(sessions=[session(**idle)]))] == ["idle_gpu"]
    assert not list(sessions.idle(seen(sessions=[session(type="inference", **idle)])))


@pytest.mark.parametrize(
    ("code", "expected"),
    [(126, "not_executable"), (127, "command_missing"), (134, "aborted"), (137, "killed"), (139, "segfault"),
     (143, "stopped"), (3, "failed"), (None, "failed")],
)  # fmt: skip
def test_without_a_word_in_its_output_the_exit_code_tells(code: int | None, expected: str) -> None:
    bad = session(state=SessionState.ERROR, result="failure", exit_code=code, ended=NOW)
    assert codes(seen(sessions=[bad])) == [expected]


def test_a_larger_gpu_is_offered_where_there_is_one() -> None:
    small, large = [{"index": 0, "model": m, "memory": g * 2**30} for m, g in (("T4", 16), ("A100-80G", 80))]
    bad = session(state=SessionState.ERROR, result="failure", exit_code=1, ended=NOW, gpu_model="T4")
    there = [node(devices=[small]), node(name="n-02", devices=[large])]
    at = Seen(now=NOW, user="ann", nodes=there, sessions=[bad], logs={bad.id: "CUDA out of memory"})
    [found] = checks.everything(at)
    assert found.proposal is not None
    assert (found.proposal.tool, found.proposal.arguments["gpu_model"]) == ("start_session", "A100-80G")
    [found] = checks.everything(Seen(now=NOW, user="ann", nodes=there[:1], sessions=[bad], logs=at.logs))
    assert found.proposal is not None
    assert found.proposal.tool == "get_session_logs"


def test_two_of_one_name_are_told_apart_by_their_ids() -> None:
    twins = [session("book", id=i, user=u, idle=True, gpu_utilization=0.0) for i, u in (("s-1", "ann"), ("s-2", "bob"))]
    calls = [f.proposal.arguments for f in checks.everything(seen(sessions=twins)) if f.proposal]
    assert calls == [{"sessions": ["s-1"]}, {"sessions": ["s-2"]}]


def test_one_that_its_user_started_again_is_not_held_against_them() -> None:
    old = session("job", id="s-1", state=SessionState.ERROR, result="failure", ended=NOW, submitted=NOW - timedelta(1))
    new = session("job", id="s-2")
    others = session("job", id="s-3", user="bob", state=SessionState.ERROR, result="failure", ended=NOW)
    assert [s.id for s in current([old, new, others])] == ["s-2", "s-3"]


def test_of_many_logs_the_failed_and_the_idle_ones_are_read_first_and_not_all() -> None:
    busy = [session(f"b{i}") for i in range(MOST_LOGS)]
    idle = session("idle", idle=True, gpu_utilization=0.0)
    failed = session("failed", state=SessionState.ERROR, result="failure", ended=NOW)
    read = worth_reading([*busy, idle, failed], None)
    assert [s.name for s in read[:2]] == ["failed", "idle"]
    assert len(read) == MOST_LOGS


@pytest.mark.parametrize(("later", "expected"), [(2, []), (3, ["starved"])])
def test_only_who_is_overtaken_by_several_is_said_to_starve(later: int, expected: list[str]) -> None:
    full = Reason(code="insufficient_resources", message=S("No room."))
    waits = session(state=SessionState.PENDING, started=None, reasons=[full])
    others = [session(f"later{i}", submitted=NOW - timedelta(hours=1)) for i in range(later)]
    before = [session(f"before{i}", submitted=NOW - timedelta(hours=10)) for i in range(5)]
    assert codes(seen(sessions=[waits, *others, *before])) == expected


@pytest.mark.parametrize(
    ("status", "tool"), [(NodeStatus.CORDONED, "uncordon_node"), (NodeStatus.LOST, "list_nodes")]
)  # fmt: skip
def test_what_only_closed_nodes_could_hold_is_told_with_the_node_to_open(status: NodeStatus, tool: str) -> None:
    shut = Reason(code="no_alive_node", message=S("n-01 takes no new work."), node="n-01")
    waits = session(state=SessionState.PENDING, started=None, reasons=[shut])
    found = [f for f in checks.everything(seen(nodes=[node(status=status)], sessions=[waits])) if f.kind == "session"]
    assert [f.code for f in found] == ["no_node"]
    assert found[0].proposal is not None
    assert found[0].proposal.tool == tool


async def test_on_a_real_cluster_a_silent_node_is_told_and_the_disk_is_looked_at(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.diagnosis.reads._disk", lambda path: Disk(free=1, size=100))
    await lab.node("n-01")
    await lab.later(3600, silent=True)
    found = (await lab.eve.diagnosis()).findings
    assert [(f.code, f.target) for f in found] == [("server_disk", "server"), ("node_lost", "n-01")]
    assert str(found[1].message) == "n-01 has not answered for 1 h."


async def test_a_target_of_which_there_is_none_is_answered_with_the_nearest(lab: Lab) -> None:
    with pytest.raises(NotFound) as raised:
        await lab.boss.diagnosis("nothing {like} this")
    assert str(raised.value) == "There is no session nothing {like} this."
