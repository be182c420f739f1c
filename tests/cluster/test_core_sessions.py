"""The life of sessions: started, waited for, stopped, lost; told before and after."""

import asyncio

import pytest

from cluster.models import (
    CordonNode,
    DrainNode,
    Outcome,
    SessionResult,
    SessionState,
    StartSession,
    TerminateSessions,
    Undo,
    WorkId,
)
from cluster.simulator.lab import GIB, Lab


def told(outcome: Outcome) -> list[str]:
    return [str(e.message) for e in outcome.effects]


def why(outcome: Outcome) -> list[tuple[str, str]]:
    return [(r.code, str(r.message)) for r in outcome.refused]


async def state_of(lab: Lab, name: str) -> SessionState:
    return (await lab.boss.session(name)).state


async def test_a_session_is_placed_runs_and_ends(lab: Lab) -> None:
    node = await lab.node("a100-01", gpus=8)
    outcome = await lab.ann.execute(StartSession(command="python train.py", cpu=2, gpu=2))
    assert told(outcome) == ["train starts now on a100-01 (GPU 0, 1)."]
    assert outcome.session is not None
    assert outcome.session.state is SessionState.SCHEDULED
    reply = await node.obey()
    assert [w.command for w in reply.start] == ["python train.py"]
    assert await state_of(lab, "train") is SessionState.RUNNING
    await node.exit(reply.start[0].id, 0)
    ended = await lab.ann.session("train")
    assert (ended.state, ended.result, ended.exit_code) == (SessionState.TERMINATED, SessionResult.SUCCESS, 0)
    assert (await lab.ann.node("a100-01")).free.gpu == 8


async def test_a_failing_command_ends_as_a_failure_with_its_exit_code(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="false", name="bad"))
    work = (await node.obey()).start[0]
    await node.exit(work.id, 3)
    ended = await lab.ann.session("bad")
    assert (ended.result, ended.exit_code) == (SessionResult.FAILURE, 3)


async def test_a_preview_says_what_happens_and_changes_nothing(lab: Lab) -> None:
    await lab.node("n1", cpu=4)
    operation = StartSession(command="sleep 9", cpu=2)
    before = await lab.boss.events(limit=1000)
    preview = await lab.ann.preview(operation)
    assert preview.dry_run
    assert told(preview) == ["sleep starts now on n1."]
    assert (await lab.ann.sessions()).total == 0
    assert (await lab.boss.audit()).total == 0
    assert await lab.boss.events(limit=1000) == before
    done = await lab.ann.execute(operation, expect=preview.digest)
    assert told(done) == told(preview)


async def test_a_plan_that_is_no_longer_true_is_not_carried_out(lab: Lab) -> None:
    await lab.node("n1", cpu=4)
    operation = StartSession(command="sleep 9", cpu=4)
    preview = await lab.ann.preview(operation)
    await lab.bob.execute(StartSession(command="first", cpu=4))
    late = await lab.ann.execute(operation, expect=preview.digest)
    assert why(late) == [("state_changed", "Things have changed since the plan was shown; look at it again.")]
    assert [s.name for s in (await lab.boss.sessions()).items] == ["first"]


async def test_the_same_key_twice_is_one_session(lab: Lab) -> None:
    await lab.node("n1")
    first = await lab.ann.execute(StartSession(command="sleep 1"), key="call-1")
    again = await lab.ann.execute(StartSession(command="sleep 1"), key="call-1")
    assert first == again
    assert (await lab.ann.sessions()).total == 1
    other = await lab.bob.execute(StartSession(command="sleep 1"), key="call-1")
    assert other.session != first.session


async def test_the_same_key_at_the_same_moment_is_one_session(lab: Lab) -> None:
    await lab.node("n1")
    calls = [lab.ann.execute(StartSession(command="sleep 1"), key="call-1") for _ in range(8)]
    outcomes = await asyncio.gather(*calls)
    assert len({o.audit_id for o in outcomes}) == 1
    assert (await lab.ann.sessions()).total == 1


async def test_what_no_node_could_ever_hold_is_refused_with_the_best_node(lab: Lab) -> None:
    await lab.node("a100-01", gpus=8)
    outcome = await lab.ann.execute(StartSession(command="big", gpu=9))
    reason = outcome.refused[0]
    assert (reason.code, reason.asked, reason.available, reason.node) == ("impossible", 9, 8, "a100-01")
    assert "9 GPUs" in str(reason.message)
    assert (await lab.ann.sessions()).total == 0
    assert [e.result for e in (await lab.boss.audit()).items] == ["refused"]


async def test_those_that_come_in_the_same_instant_are_served_as_they_came(lab: Lab) -> None:
    await lab.node("n1", cpu=1)
    names = [f"job-{i}" for i in range(12)]
    for name in names:
        await lab.ann.execute(StartSession(command="x", name=name))
    assert [s.name for s in (await lab.ann.sessions()).items] == names
    assert (await lab.ann.explain("job-11")).ahead[:3] == names[1:4]


async def test_of_several_groups_the_nearest_miss_is_told(lab: Lab) -> None:
    from cluster.db.tables import GroupRow
    from cluster.models import NodeInfo, Resources

    async with lab.core.db.write() as db:
        db.add(GroupRow(name="cpu-only"))
    whole = Resources(cpu=64, memory=256 * GIB)
    await lab.core.agents.register(NodeInfo(name="c1", capacity=whole, resource_group="cpu-only"))
    await lab.node("a100-01", gpus=8)
    outcome = await lab.ann.execute(StartSession(command="big", gpu=9))
    assert "the largest node of default (a100-01) has 8" in str(outcome.refused[0].message)


async def test_a_cluster_without_nodes_says_so(lab: Lab) -> None:
    assert why(await lab.ann.execute(StartSession(command="x"))) == [("no_alive_node", "The cluster has no node yet.")]


async def test_a_waiting_session_is_explained_and_starts_when_there_is_room(lab: Lab) -> None:
    node = await lab.node("a100-01", gpus=2)
    await lab.ann.execute(StartSession(command="one", gpu=2))
    await node.obey()
    waiting = await lab.bob.execute(StartSession(command="two", gpu=1))
    assert told(waiting) == [
        "two does not start yet; it waits.",
        "1 GPU asked, at most 0 free on one node of default (a100-01).",
    ]
    explained = await lab.bob.explain("two")
    assert explained.reasons[0].code == "insufficient_resources"
    assert (explained.reasons[0].asked, explained.reasons[0].available) == (1, 0)
    stop = await lab.ann.preview(TerminateSessions(sessions=["one"]))
    assert "two, which waits, starts on a100-01 once it is stopped." in told(stop)
    await lab.ann.execute(TerminateSessions(sessions=["one"]))
    await node.obey()
    await lab.core.schedule_pass()
    assert await state_of(lab, "two") is SessionState.SCHEDULED


async def test_stopping_a_running_session_warns_of_what_is_lost(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    await node.obey()
    await lab.later(3 * 3600)
    preview = await lab.boss.preview(TerminateSessions(sessions=["job"]))
    assert [str(w) for w in preview.warnings] == [
        "job has run for 3 h; what it has not saved is lost, and undo can't bring it back."
    ]
    assert preview.undo is None
    assert preview.effects[0].owner == "ann"


async def test_a_stopped_session_ends_as_cancelled_and_the_agent_gets_the_order(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    await node.obey()
    await lab.ann.execute(TerminateSessions(sessions=["job"], force=True))
    assert await state_of(lab, "job") is SessionState.TERMINATING
    reply = await node.obey()
    assert [o.grace for o in reply.stop] == [0]
    ended = await lab.ann.session("job")
    assert (ended.state, ended.result) == (SessionState.TERMINATED, SessionResult.CANCELLED)


async def test_cancelling_a_waiting_session_can_be_undone_with_its_place_kept(lab: Lab) -> None:
    node = await lab.node("n1", cpu=2)
    for name in ("run", "second", "third"):
        await lab.ann.execute(StartSession(command="job", name=name, cpu=2))
        await node.obey()
        await lab.later(60)
    first = (await lab.ann.session("second")).submitted
    await lab.ann.execute(TerminateSessions(sessions=["second"]))
    assert await state_of(lab, "second") is SessionState.CANCELLED
    undone = await lab.ann.execute(Undo())
    assert told(undone)[0] == "second is back in the queue."
    back = await lab.ann.session("second")
    assert (back.state, back.submitted) == (SessionState.PENDING, first)
    await node.exit(node.running[0], 0)
    await lab.core.schedule_pass()
    assert await state_of(lab, "second") is SessionState.SCHEDULED
    assert await state_of(lab, "third") is SessionState.PENDING


async def test_a_session_waits_for_its_dependency_and_is_cancelled_when_that_fails(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="prepare", name="prepare"))
    held = await lab.ann.execute(StartSession(command="train", name="train", depends_on=["prepare"]))
    assert held.session is not None
    assert held.session.state is SessionState.HELD
    assert held.session.reasons[0].code == "dependency"
    work = (await node.obey()).start[0]
    await node.exit(work.id, 1)
    await lab.core.schedule_pass()
    after = await lab.ann.session("train")
    assert after.state is SessionState.CANCELLED
    assert str(after.reasons[0].message) == "train depends on prepare, which did not succeed."


async def test_a_session_starts_when_its_dependency_succeeds(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="prepare", name="prepare"))
    await lab.ann.execute(StartSession(command="train", name="train", depends_on=["prepare"]))
    await node.exit((await node.obey()).start[0].id, 0)
    await lab.core.schedule_pass()
    assert await state_of(lab, "train") is SessionState.SCHEDULED


async def test_a_plain_user_can_neither_stop_others_work_nor_touch_nodes(lab: Lab) -> None:
    await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    assert why(await lab.bob.execute(TerminateSessions(sessions=["job"])))[0][0] == "not_allowed"
    assert why(await lab.eve.execute(TerminateSessions(sessions=["job"])))[0][0] == "not_found"
    for operation in (CordonNode(node="n1"), DrainNode(node="n1")):
        assert why(await lab.bob.execute(operation))[0][0] == "not_allowed"
    assert await state_of(lab, "job") is SessionState.SCHEDULED
    assert (await lab.boss.node("n1")).status.value == "alive"


async def test_an_unknown_name_offers_the_nearest(lab: Lab) -> None:
    await lab.node("a100-01")
    outcome = await lab.boss.execute(CordonNode(node="a10-01"))
    assert outcome.refused[0].code == "not_found"
    assert outcome.refused[0].candidates == ["a100-01"]


async def test_a_node_that_falls_silent_is_lost_and_later_its_sessions_too(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    await node.obey()
    await lab.later(40, silent=True)
    assert (await lab.boss.node("n1")).status.value == "lost"
    assert await state_of(lab, "job") is SessionState.RUNNING
    await lab.later(300, silent=True)
    lost = await lab.ann.session("job")
    assert (lost.state, lost.result) == (SessionState.TERMINATED, SessionResult.LOST)
    assert str(lost.reasons[0].message) == "n1 was lost while job ran on it."


async def test_an_agent_that_comes_back_in_time_goes_on_with_its_sessions(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    await node.obey()
    await lab.later(60, silent=True)
    reply = await node.beat()
    assert not reply.stop
    assert (await lab.boss.node("n1")).status.value == "alive"
    assert await state_of(lab, "job") is SessionState.RUNNING


async def test_an_agent_that_comes_back_too_late_is_fenced(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    work = (await node.obey()).start[0].id
    await lab.later(400, silent=True)
    reply = await node.beat()
    assert [(o.id, o.grace) for o in reply.stop] == [(work, 0)]
    await node.exit(work, 0)
    assert (await lab.ann.session("job")).result is SessionResult.LOST


async def test_work_that_its_agent_does_not_begin_is_given_up_and_fenced(lab: Lab) -> None:
    node = await lab.node("n1")
    started = await lab.ann.execute(StartSession(command="job"))
    assert started.session is not None
    first = WorkId(session=started.session.id, attempt=1)
    for _ in range(8):
        await lab.later(20)
        if await state_of(lab, "job") is SessionState.SCHEDULED:
            assert [w.id for w in (await node.beat()).start] == [first]
    given_up = await lab.ann.session("job")
    assert (given_up.state, given_up.result) == (SessionState.ERROR, SessionResult.FAILURE)
    assert str(given_up.reasons[0].message).startswith("job was scheduled for too long")
    node.running = [first]
    assert [o.id for o in (await node.beat(node.report(first, "running"))).stop] == [first]
    assert await state_of(lab, "job") is SessionState.ERROR


async def test_a_report_that_comes_twice_changes_nothing(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    work = (await node.obey()).start[0].id
    await node.exit(work, 0)
    before = (await lab.boss.events(limit=1000)).total
    await node.exit(work, 1)
    assert (await lab.ann.session("job")).result is SessionResult.SUCCESS
    assert (await lab.boss.events(limit=1000)).total == before


async def test_draining_stops_what_runs_and_says_whose_it_is(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    await node.obey()
    preview = await lab.boss.preview(DrainNode(node="n1", reason="new fan", grace=60))
    assert told(preview)[:2] == [
        "n1 takes no new sessions and is emptied.",
        "job is stopped; it gives back 1 CPU, 8 GiB.",
    ]
    assert preview.effects[1].owner == "ann"
    await lab.boss.execute(DrainNode(node="n1", reason="new fan", grace=60))
    assert [o.grace for o in (await node.obey()).stop] == [60]
    shown = await lab.boss.node("n1")
    assert (shown.status.value, shown.reason) == ("draining", "new fan")
    await lab.boss.execute(Undo())
    assert (await lab.boss.node("n1")).status.value == "alive"
    assert (await lab.ann.session("job")).state is SessionState.TERMINATED


async def test_undo_of_a_cordon_brings_back_what_was_before(lab: Lab) -> None:
    await lab.node("n1")
    await lab.boss.execute(DrainNode(node="n1", reason="disk"))
    await lab.boss.execute(CordonNode(node="n1", reason="later"))
    await lab.boss.execute(Undo())
    shown = await lab.boss.node("n1")
    assert (shown.status.value, shown.reason) == ("draining", "disk")


async def test_nothing_is_undone_twice(lab: Lab) -> None:
    await lab.node("n1")
    done = await lab.boss.execute(CordonNode(node="n1"))
    await lab.boss.execute(Undo(action=done.audit_id))
    assert why(await lab.boss.execute(Undo(action=done.audit_id))) == [("conflict", "a-0001 is undone already.")]
    entries = (await lab.boss.audit(result="done")).items
    assert [(e.action, e.undone_by) for e in entries] == [("undo", None), ("cordon_node", "a-0002")]


async def test_what_cannot_be_undone_says_so(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    await node.obey()
    await lab.ann.execute(TerminateSessions(sessions=["job"]))
    assert why(await lab.ann.execute(Undo())) == [("conflict", "a-0002 (terminate_sessions job) can't be undone.")]


async def test_another_persons_action_is_not_undone(lab: Lab) -> None:
    await lab.node("n1")
    done = await lab.ann.execute(StartSession(command="job"))
    assert why(await lab.bob.execute(Undo(action=done.audit_id)))[0][0] == "not_found"
    assert (await lab.boss.execute(Undo(action=done.audit_id))).refused == []


async def test_a_quota_holds_a_session_back_and_the_preview_says_so(lab: Lab) -> None:
    from cluster.db.tables import QuotaRow

    await lab.node("a100-01", gpus=8)
    async with lab.core.db.write() as db:
        db.add(QuotaRow(scope="user", name="ann", gpu=2))
    await lab.ann.execute(StartSession(command="one", gpu=2))
    preview = await lab.ann.preview(StartSession(command="two", gpu=1))
    assert preview.effects[0].kind == "held"
    await lab.ann.execute(StartSession(command="two", gpu=1))
    assert await state_of(lab, "two") is SessionState.HELD
    use = (await lab.ann.quotas(user="ann")).items[0]
    assert (use.gpu, use.used.gpu) == (2, 2)
    never = await lab.ann.execute(StartSession(command="three", gpu=3))
    assert never.refused[0].code == "quota"


async def test_a_name_in_use_is_refused_and_a_made_one_is_fresh(lab: Lab) -> None:
    await lab.node("n1")
    await lab.ann.execute(StartSession(command="python train.py"))
    second = await lab.bob.execute(StartSession(command="python train.py"))
    assert second.session is not None
    assert second.session.name == "train-2"
    taken = await lab.ann.execute(StartSession(command="x", name="train"))
    assert taken.refused[0].code == "conflict"


async def test_gpus_go_to_the_group_that_has_them(lab: Lab) -> None:
    from cluster.db.tables import GroupRow
    from cluster.models import NodeInfo, Resources

    async with lab.core.db.write() as db:
        db.add(GroupRow(name="cpu-only"))
    await lab.core.agents.register(
        NodeInfo(name="c1", capacity=Resources(cpu=64, memory=256 * GIB), resource_group="cpu-only")
    )
    await lab.node("a100-01", gpus=1)
    gpu = await lab.ann.execute(StartSession(command="a", gpu=1))
    plain = await lab.ann.execute(StartSession(command="b"))
    assert gpu.session is not None
    assert plain.session is not None
    assert (gpu.session.resource_group, plain.session.resource_group) == ("default", "cpu-only")


async def test_interrupted_states_do_not_last(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    work = (await node.beat()).start[0].id
    await node.beat(node.report(work, "preparing"))
    for _ in range(40):
        await lab.later(20)
        await node.beat()
    stuck = await lab.ann.session("job")
    assert (stuck.state, stuck.result) == (SessionState.ERROR, SessionResult.FAILURE)


async def test_memory_that_nobody_asked_for_follows_the_cores(lab: Lab) -> None:
    await lab.node("lean", cpu=8, memory=16 * GIB)
    await lab.node("fat", cpu=8, memory=64 * GIB)
    told_nothing = await lab.ann.execute(StartSession(command="a"))
    three_cores = await lab.ann.execute(StartSession(command="b", cpu=3))
    told = await lab.ann.execute(StartSession(command="c", cpu=3, memory=GIB))
    memory = [o.session.resources.memory // GIB for o in (told_nothing, three_cores, told) if o.session]
    assert memory == [2, 6, 1]


@pytest.mark.parametrize("ref", ["job", "by id"])
async def test_a_session_is_found_by_name_and_by_id(lab: Lab, ref: str) -> None:
    await lab.node("n1")
    started = await lab.ann.execute(StartSession(command="job"))
    assert started.session is not None
    found = await lab.ann.session("job" if ref == "job" else started.session.id)
    assert found.id == started.session.id
