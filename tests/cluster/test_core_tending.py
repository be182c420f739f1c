"""What is changed of sessions and nodes that are there: priority, a restart, another resource group."""

import pytest

from cluster.db.tables import GroupRow
from cluster.models import (
    AddProjectMember,
    MoveNode,
    Outcome,
    RestartSession,
    SessionResult,
    SessionState,
    SetSchedulingPolicy,
    SetSessionPriority,
    StartSession,
    Undo,
)
from cluster.simulator.lab import HandAgent, Lab


def told(outcome: Outcome) -> list[str]:
    return [str(e.message) for e in outcome.effects]


def why(outcome: Outcome) -> list[tuple[str, str]]:
    return [(r.code, str(r.message)) for r in outcome.refused]


@pytest.fixture
async def queue(lab: Lab) -> HandAgent:
    """One node that is full; `early` and `late` wait for it."""
    node = await lab.node("n1", cpu=4)
    await lab.ann.execute(StartSession(command="x", name="runs", cpu=4, time_limit=3600))
    await node.obey()
    for name in ("early", "late"):
        await lab.ann.execute(StartSession(command="x", name=name, cpu=4, time_limit=3600))
    return node


async def started_next(lab: Lab, node: HandAgent) -> str:
    """The session that gets the node when the one there ends."""
    await node.exit(node.running[0], 0)
    await lab.core.schedule_pass()
    work = (await node.obey()).start[0]
    return (await lab.ann.session(work.id.session)).name


# ── priority ─────────────────────────────────────────────────────────────────────────────────────


async def test_who_is_given_a_lower_priority_goes_later_and_the_plan_says_who_gains(lab: Lab, queue: HandAgent) -> None:
    before = await lab.ann.preview(SetSessionPriority(session="early", priority=1))
    assert told(before)[:2] == [
        "early has priority 1 now, not 10.",
        "Waiting in default with a higher priority: 1; with a lower one: 0.",
    ]
    assert "late starts about 1 h sooner." in told(before)
    assert "early waits about 1 h longer." in told(before)
    assert (await lab.ann.session("early")).priority == 10, "it was only looked at"
    await lab.ann.execute(SetSessionPriority(session="early", priority=1))
    assert await started_next(lab, queue) == "late"


async def test_undo_gives_the_former_priority_back_and_not_after_somebody_else_changed_it(
    lab: Lab, queue: HandAgent
) -> None:
    done = await lab.ann.execute(SetSessionPriority(session="early", priority=1))
    await lab.boss.execute(SetSessionPriority(session="early", priority=5))
    refused = await lab.ann.execute(Undo(action=done.audit_id))
    assert why(refused) == [("conflict", "early has priority 5 by now, not 1; nothing is taken back.")]
    await lab.boss.execute(Undo())
    await lab.ann.execute(Undo(action=done.audit_id))
    assert (await lab.ann.session("early")).priority == 10
    assert await started_next(lab, queue) == "early"


async def test_more_than_usual_is_given_by_leaders_and_admins_only(lab: Lab, queue: HandAgent) -> None:
    refused = await lab.ann.execute(SetSessionPriority(session="late", priority=11))
    assert [code for code, _ in why(refused)] == ["not_allowed"]
    assert "up to 10 is yours to give, more is for an admin of red or an admin" in why(refused)[0][1]
    at_once = await lab.ann.execute(StartSession(command="x", name="pushy", priority=11))
    assert [code for code, _ in why(at_once)] == ["not_allowed"], "nor when it is started"
    await lab.boss.execute(AddProjectMember(project="red", user="bob", role="project_admin"))
    assert (await lab.bob.execute(SetSessionPriority(session="late", priority=50))).refused == []
    lower = await lab.ann.execute(SetSessionPriority(session="late", priority=40))
    assert lower.refused == [], "an owner may always lower it"
    back = await lab.ann.execute(SetSessionPriority(session="late", priority=50))
    assert [code for code, _ in why(back)] == ["not_allowed"]
    assert await started_next(lab, queue) == "late"


async def test_a_lower_priority_lets_others_take_the_place_of_what_runs(lab: Lab) -> None:
    node = await lab.node("n1", cpu=4)
    await lab.boss.execute(SetSchedulingPolicy(resource_group="default", preemption=True))
    await lab.ann.execute(StartSession(command="x", name="soft", cpu=4, preemptible=True))
    await node.obey()
    await lab.ann.execute(StartSession(command="x", name="waits", cpu=4))
    before = await lab.ann.preview(SetSessionPriority(session="soft", priority=3))
    assert "It goes on; those that wait in default with a higher priority may take its place (1)." in told(before)
    assert "soft, which runs, is stopped to make room, and waits again." in told(before)
    await lab.ann.execute(SetSessionPriority(session="soft", priority=3))
    await lab.core.schedule_pass()
    await node.obey()
    await lab.core.schedule_pass()
    assert (await lab.ann.session("soft")).state is SessionState.PENDING
    assert [w.id.session for w in (await node.obey()).start] == [(await lab.ann.session("waits")).id]


async def test_a_changed_priority_outlives_the_server(lab: Lab, queue: HandAgent) -> None:
    await lab.ann.execute(SetSessionPriority(session="runs", priority=2))
    await lab.core._load()
    assert (await lab.ann.session("runs")).priority == 2


async def test_what_has_ended_or_has_it_already_is_refused(lab: Lab, queue: HandAgent) -> None:
    same = await lab.ann.execute(SetSessionPriority(session="early", priority=10))
    assert why(same) == [("conflict", "early has priority 10 already; nothing to do.")]
    await queue.exit(queue.running[0], 0)
    ended = await lab.ann.execute(SetSessionPriority(session="runs", priority=1))
    assert why(ended) == [("conflict", "runs has ended already (terminated).")]


# ── restart ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_running_session_begins_again_in_its_old_place(lab: Lab, queue: HandAgent) -> None:
    ident = (await lab.ann.session("runs")).id
    await lab.later(600)
    before = await lab.ann.preview(RestartSession(session="runs"))
    assert told(before) == [
        "runs is stopped, and waits in its old place in the queue to start again.",
        "runs starts again on n1 once it is stopped.",
        "early waits about 10 min longer.",
        "late waits about 10 min longer.",
    ]
    assert [str(w) for w in before.warnings] == [
        "runs has run for 10 min; what it has not saved is lost, and undo can't bring it back."
    ]
    assert before.undo is None
    assert (await lab.ann.session("runs")).state is SessionState.RUNNING, "it was only looked at"
    await lab.ann.execute(RestartSession(session="runs"), expect=before.digest)
    await queue.obey()
    await lab.core.schedule_pass()
    work = (await queue.obey()).start
    assert [(w.id.session, w.id.attempt) for w in work] == [(ident, 2)], "it goes before those that came after it"
    assert (await lab.ann.session("runs")).state is SessionState.RUNNING


async def test_a_restart_that_would_wait_says_so(lab: Lab, queue: HandAgent) -> None:
    await lab.boss.execute(SetSessionPriority(session="early", priority=90))
    before = await lab.ann.preview(RestartSession(session="runs"))
    assert told(before)[1] == "runs does not start again at once: others have a right to its place."
    assert "early, which waits, starts on n1 once it is stopped." in told(before)


async def test_what_waited_for_another_that_has_ended_is_not_cancelled_when_it_is_restarted(lab: Lab) -> None:
    node = await lab.node("n1", cpu=4)
    await lab.ann.execute(StartSession(command="x", name="first", cpu=1))
    await node.obey()
    await lab.ann.execute(StartSession(command="x", name="second", cpu=1, depends_on=["first"]))
    await node.exit(node.running[0], 0)
    await lab.core.schedule_pass()
    await node.obey()
    await lab.ann.execute(RestartSession(session="second"))
    await node.obey()
    await lab.core.schedule_pass()
    assert (await lab.ann.session("second")).state is SessionState.SCHEDULED


async def test_an_ended_session_is_started_anew_with_its_name_and_definition(lab: Lab) -> None:
    node = await lab.node("n1", cpu=4)
    await lab.ann.execute(StartSession(command="train.sh", name="bert", cpu=2, env={"LR": "3"}, time_limit=60))
    await node.obey()
    await node.exit(node.running[0], 1)
    done = await lab.ann.execute(RestartSession(session="bert"))
    assert told(done) == [
        "bert has ended (terminated); bert is started as a new session of the same definition.",
        "bert starts now on n1.",
    ]
    assert done.session is not None
    made = done.session
    assert (made.name, made.command, made.env, made.time_limit) == ("bert", "train.sh", {"LR": "3"}, 60)
    assert (made.resources.cpu, made.result) == (2, None)
    old = next(s for s in (await lab.ann.sessions(status="terminated")).items if s.name == "bert")
    assert (old.id != made.id, old.result) == (True, SessionResult.FAILURE)
    twin = await lab.ann.execute(RestartSession(session=old.id))
    assert twin.session is not None
    assert twin.session.name == "bert-2", "the name is taken"
    await lab.ann.execute(Undo())
    assert (await lab.ann.session("bert-2")).state in (SessionState.CANCELLED, SessionState.TERMINATED)


async def test_a_new_session_takes_no_more_priority_than_its_owner_may_give(lab: Lab) -> None:
    node = await lab.node("n1", cpu=4)
    await lab.ann.execute(StartSession(command="x", name="bert", cpu=2))
    await lab.boss.execute(SetSessionPriority(session="bert", priority=80))
    await node.obey()
    await node.exit(node.running[0], 0)
    done = await lab.ann.execute(RestartSession(session="bert"))
    assert done.session is not None
    assert done.session.priority == 10
    assert [str(w) for w in done.warnings] == ["It starts with priority 10; 80 was given to the one that has ended."]


async def test_only_its_owner_starts_an_ended_session_again(lab: Lab) -> None:
    node = await lab.node("n1", cpu=4)
    await lab.ann.execute(StartSession(command="x", name="bert", cpu=2))
    await node.obey()
    await node.exit(node.running[0], 0)
    refused = await lab.boss.execute(RestartSession(session="bert"))
    assert [code for code, _ in why(refused)] == ["not_allowed"]


async def test_what_waits_or_is_being_stopped_is_not_restarted(lab: Lab, queue: HandAgent) -> None:
    waits = await lab.ann.execute(RestartSession(session="early"))
    assert why(waits) == [("conflict", "early has not started yet; there is nothing to restart.")]
    await lab.ann.execute(RestartSession(session="runs"))
    again = await lab.ann.execute(RestartSession(session="runs"))
    assert why(again) == [("conflict", "runs is being stopped; start it again when it has ended.")]


# ── a node's resource group ──────────────────────────────────────────────────────────────────────


@pytest.fixture
async def groups(lab: Lab) -> None:
    async with lab.core.db.write() as db:
        db.add(GroupRow(name="dev"))


async def test_a_moved_node_serves_the_other_group_and_what_runs_there_goes_on(
    lab: Lab, queue: HandAgent, groups: None
) -> None:
    await lab.node("n2", cpu=4)
    await lab.core.schedule_pass()
    await lab.ann.execute(StartSession(command="x", name="third", cpu=4, resource_group="default"))
    before = await lab.boss.preview(MoveNode(node="n1", resource_group="dev"))
    assert told(before)[0] == "n1 moves from default to dev; what runs there goes on (1)."
    assert before.warnings == [], "n2 can still hold them"
    await lab.boss.execute(MoveNode(node="n1", resource_group="dev"))
    assert (await lab.ann.session("runs")).state is SessionState.RUNNING
    await queue.exit(queue.running[0], 0)
    await lab.core.schedule_pass()
    assert (await queue.obey()).start == [], "those of default wait for nodes of default"
    done = await lab.ann.execute(StartSession(command="x", name="deving", cpu=4, resource_group="dev"))
    assert told(done)[0] == "deving starts now on n1."


async def test_what_could_never_run_any_more_is_named_before_and_undo_moves_the_node_back(
    lab: Lab, queue: HandAgent, groups: None
) -> None:
    await lab.node("n2", cpu=1)
    before = await lab.boss.preview(MoveNode(node="n1", resource_group="dev"))
    assert [str(w) for w in before.warnings] == [
        "No node of default could hold these any more, and they wait in vain: early, late."
    ]
    done = await lab.boss.execute(MoveNode(node="n1", resource_group="dev"))
    await lab.boss.execute(Undo(action=done.audit_id))
    assert (await lab.ann.node("n1")).resource_group == "default"
    assert await started_next(lab, queue) == "early"


async def test_a_node_is_not_moved_to_where_it_is_nor_to_nowhere(lab: Lab, queue: HandAgent, groups: None) -> None:
    here = await lab.boss.execute(MoveNode(node="n1", resource_group="default"))
    assert why(here) == [("conflict", "n1 is in default already; nothing to do.")]
    nowhere = await lab.boss.execute(MoveNode(node="n1", resource_group="dew"))
    assert [(r.code, r.candidates) for r in nowhere.refused] == [("not_found", ["default", "dev"])]


async def test_an_agent_that_comes_back_does_not_move_its_node_back(lab: Lab, queue: HandAgent, groups: None) -> None:
    await lab.boss.execute(MoveNode(node="n1", resource_group="dev"))
    await queue.join(cpu=4)
    assert (await lab.ann.node("n1")).resource_group == "dev"
