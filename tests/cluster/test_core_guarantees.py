"""What must hold whatever happens: nothing half-done, nothing run twice, one consistent view, bounded input."""

import asyncio
import base64
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from cluster.api.problems import MOST_BODY
from cluster.core import Core
from cluster.db.engine import Database
from cluster.db.tables import QuotaRow
from cluster.db.temporary import disk_full
from cluster.errors import ClusterError
from cluster.models import (
    Beat,
    CordonNode,
    CreateFolder,
    DeleteFolder,
    DrainNode,
    LogChunk,
    Outcome,
    SessionResult,
    SessionState,
    StartSession,
    TerminateSessions,
    UncordonNode,
    Undo,
    WorkId,
)
from cluster.simulator.lab import HandAgent, Lab


def told(outcome: Outcome) -> list[str]:
    return [str(e.message) for e in outcome.effects]


def why(outcome: Outcome) -> list[str]:
    return [r.code for r in outcome.refused]


def directory(lab: Lab, name: str, project: str = "red") -> Path:
    return lab.core.data_dir / "volumes" / project / name


# ── nothing half-done ────────────────────────────────────────────────────────────────────────────


async def test_a_plan_that_is_refused_moves_no_directory(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="cats"))
    refused = await lab.ann.execute(DeleteFolder(folder="cats"), expect="another plan")
    assert why(refused) == ["state_changed"]
    assert directory(lab, "cats").is_dir()
    await lab.ann.execute(CreateFolder(name="dogs"), expect="another plan")
    assert not directory(lab, "dogs").exists()


async def test_when_the_commit_fails_the_directory_goes_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    await lab.ann.execute(CreateFolder(name="cats"))
    (directory(lab, "cats") / "tom").write_text("meow")
    full_at_commit(lab, monkeypatch)
    refused = await lab.ann.execute(DeleteFolder(folder="cats"))
    assert why(refused) == ["storage_full"]
    assert (directory(lab, "cats") / "tom").read_text() == "meow"
    assert [f.name for f in (await lab.ann.folders()).items] == ["cats"]


def full_at_commit(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every COMMIT of a writing transaction says that the disk is full."""
    from sqlalchemy.exc import OperationalError
    from sqlalchemy.ext.asyncio import AsyncSession

    async def full(self: AsyncSession) -> None:
        raise OperationalError("COMMIT", None, disk_full(lab.core.db.where))

    monkeypatch.setattr(AsyncSession, "commit", full)


async def test_a_path_with_odd_characters_is_only_a_path(tmp_path: Path) -> None:
    where = tmp_path / "50% off?"
    await (await Database.open(where / "c.db")).close()
    assert (where / "c.db").exists()


# ── one consistent view ──────────────────────────────────────────────────────────────────────────


async def test_a_reader_sees_one_moment_however_long_it_reads(lab: Lab) -> None:
    async with lab.core.db.read() as db:
        before = (await db.execute(text("SELECT count(*) FROM folders"))).scalar()
        await lab.ann.execute(CreateFolder(name="meanwhile"))
        after = (await db.execute(text("SELECT count(*) FROM folders"))).scalar()
    assert before == after == 0


# ── nothing runs twice ───────────────────────────────────────────────────────────────────────────


async def test_work_that_a_silent_node_may_have_begun_is_given_to_no_other(lab: Lab) -> None:
    first = await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    assert len((await first.beat()).start) == 1  # the order is out; then the node falls silent
    await lab.node("n2")
    for _ in range(25):
        await lab.later(20, silent=True)
        assert (await HandAgent(lab.core, "n2").beat()).start == []
    ended = await lab.ann.session("job")
    assert (ended.state, ended.result) == (SessionState.TERMINATED, SessionResult.LOST)


async def test_work_that_nobody_fetched_is_placed_anew(lab: Lab) -> None:
    await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    await lab.boss.execute(CordonNode(node="n1"))
    second = await lab.node("n2")
    for _ in range(8):
        await lab.later(20, silent=True)
        await second.beat()
    placed = await lab.ann.session("job")
    assert [a.node for a in placed.allocations] == ["n2"]


async def test_every_rank_of_a_gang_gets_its_order_even_when_another_is_already_preparing(lab: Lab) -> None:
    nodes = [await lab.node("n1", cpu=2), await lab.node("n2", cpu=2)]
    await lab.ann.execute(StartSession(command="train", name="gang", cpu=4, node_count=2))
    early, late = nodes
    work = (await early.beat()).start[0].id
    await early.beat(early.report(work, "preparing"), early.report(work, "running"))
    assert [w.id.rank for w in (await late.obey()).start] == [1 - work.rank]
    assert (await lab.ann.session("gang")).state is SessionState.RUNNING


async def test_one_failing_rank_ends_the_gang_as_a_failure(lab: Lab) -> None:
    nodes = [await lab.node("n1", cpu=2), await lab.node("n2", cpu=2)]
    await lab.ann.execute(StartSession(command="train", name="gang", cpu=4, node_count=2))
    work = [(await n.obey()).start[0].id for n in nodes]
    await nodes[0].exit(work[0], 1)
    assert [o.id for o in (await nodes[1].beat()).stop] == [work[1]]
    await nodes[1].exit(work[1], 143)
    ended = await lab.ann.session("gang")
    assert (ended.state, ended.result, ended.exit_code) == (SessionState.TERMINATED, SessionResult.FAILURE, 1)


async def test_a_rank_that_is_done_before_another_began_has_not_failed(lab: Lab) -> None:
    nodes = [await lab.node("n1", cpu=2), await lab.node("n2", cpu=2)]
    await lab.ann.execute(StartSession(command="train", name="gang", cpu=4, node_count=2))
    quick, slow = [(await n.beat()).start[0].id for n in nodes]
    await nodes[0].beat(nodes[0].report(quick, "running"), nodes[0].report(quick, "exited", 0))
    await nodes[1].beat(nodes[1].report(slow, "preparing"))
    assert (await lab.ann.session("gang")).state is SessionState.PREPARING
    await nodes[1].beat(nodes[1].report(slow, "running"))
    nodes[1].running = [slow]
    for _ in range(60):
        await lab.later(20)
    assert (await lab.ann.session("gang")).state is SessionState.RUNNING
    await nodes[1].exit(slow, 0)
    ended = await lab.ann.session("gang")
    assert (ended.state, ended.result, ended.exit_code) == (SessionState.TERMINATED, SessionResult.SUCCESS, 0)


async def test_a_session_that_its_agent_forgot_is_lost(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    work = (await node.obey()).start[0].id
    node.running = []
    assert [o.id for o in (await node.beat()).stop] == [work]  # the agent is asked about it
    await node.beat(node.report(work, "lost"))
    assert (await lab.ann.session("job")).result is SessionResult.LOST


async def test_reports_out_of_order_do_not_turn_time_back(lab: Lab) -> None:
    nodes = [await lab.node("n1", cpu=2), await lab.node("n2", cpu=2)]
    await lab.ann.execute(StartSession(command="train", name="gang", cpu=4, node_count=2))
    works = [(await n.beat()).start[0].id for n in nodes]
    await nodes[0].beat(nodes[0].report(works[0], "running"))
    await nodes[0].beat(nodes[0].report(works[0], "preparing"))
    await nodes[1].beat(nodes[1].report(works[1], "running"))
    assert (await lab.ann.session("gang")).state is SessionState.RUNNING


async def test_times_are_those_of_the_agent_that_was_away(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    work = (await node.obey()).start[0].id
    began = lab.clock.now()
    end = node.report(work, "exited", 0)
    await lab.later(100, silent=True)
    node.running = []
    await node.beat(end)
    assert (await lab.ann.session("job")).ended == began


async def test_stopping_twice_is_refused_unless_with_force(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    await node.obey()
    await lab.ann.execute(TerminateSessions(sessions=["job"]))
    assert why(await lab.ann.execute(TerminateSessions(sessions=["job"]))) == ["conflict"]
    await lab.ann.execute(TerminateSessions(sessions=["job"], force=True))
    assert [o.grace for o in (await node.beat()).stop] == [0]


async def test_stopping_what_no_agent_has_seen_ends_it_at_once_as_cancelled(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    await lab.ann.execute(TerminateSessions(sessions=["job"]))
    ended = await lab.ann.session("job")
    assert (ended.state, ended.result) == (SessionState.TERMINATED, SessionResult.CANCELLED)
    assert (await node.beat()).start == []


async def test_stopping_what_the_agent_never_began_is_a_cancellation_not_a_loss(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    work = (await node.beat()).start[0].id
    await lab.ann.execute(TerminateSessions(sessions=["job"]))
    await node.beat(node.report(work, "lost"))
    assert (await lab.ann.session("job")).result is SessionResult.CANCELLED


# ── undo ─────────────────────────────────────────────────────────────────────────────────────────


async def test_undo_does_not_take_back_what_somebody_else_did_since(lab: Lab) -> None:
    await lab.node("n1")
    mine = await lab.boss.execute(CordonNode(node="n1"))
    await lab.boss.execute(DrainNode(node="n1", reason="burning"))
    refused = await lab.boss.execute(Undo(action=mine.audit_id))
    assert why(refused) == ["conflict"]
    assert (await lab.boss.node("n1")).status == "draining"


async def test_undo_never_passes_over_the_last_action_in_silence(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.boss.execute(CordonNode(node="n1"))
    uncordoned = await lab.boss.execute(UncordonNode(node="n1"))
    await lab.ann.execute(StartSession(command="job"))
    await node.obey()
    await lab.boss.execute(TerminateSessions(sessions=["job"]))
    refused = await lab.boss.execute(Undo())
    assert refused.refused[0].candidates == [uncordoned.audit_id]


# ── keys and plans ───────────────────────────────────────────────────────────────────────────────


async def test_a_key_belongs_to_one_operation(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="cats"), key="k")
    other = await lab.ann.execute(CreateFolder(name="dogs"), key="k")
    assert why(other) == ["conflict"]
    assert [f.name for f in (await lab.ann.folders()).items] == ["cats"]


async def test_a_plan_stays_true_while_only_the_wording_of_a_wait_changes(lab: Lab) -> None:
    node = await lab.node("n1", cpu=4)
    await lab.ann.execute(StartSession(command="big", name="big", cpu=3))
    await lab.ann.execute(StartSession(command="small", name="small", cpu=1))
    works = {w.name: w.id for w in (await node.obey()).start}
    plan = await lab.ann.preview(StartSession(command="next", name="next", cpu=4))
    await node.exit(works["small"], 0)
    done = await lab.ann.execute(StartSession(command="next", name="next", cpu=4), expect=plan.digest)
    assert done.refused == []


async def test_an_old_stop_does_not_colour_later_plans(lab: Lab) -> None:
    node = await lab.node("n1", cpu=1)
    await lab.ann.execute(StartSession(command="old", name="old"))
    await node.obey()
    await lab.ann.execute(StartSession(command="next", name="next"))
    await lab.ann.execute(TerminateSessions(sessions=["old"]))
    plan = await lab.ann.preview(CreateFolder(name="cats"))
    assert [e.target for e in plan.effects] == ["cats"]


async def test_what_is_left_of_a_quota_is_the_least_of_what_binds(lab: Lab) -> None:
    await lab.node("n1", cpu=8, gpus=8)
    async with lab.core.db.write() as db:
        db.add(QuotaRow(scope="user", name="ann", gpu=4))
        db.add(QuotaRow(scope="project", name="red", gpu=6, cpu=100))
    await lab.bob.execute(StartSession(command="b", gpu=3, cpu=2))
    plan = await lab.ann.preview(StartSession(command="a", gpu=1, cpu=2))
    assert plan.quota_left is not None
    assert (plan.quota_left.gpu, plan.quota_left.cpu) == (2, 4)  # project: 6 - 3 - 1; nobody's limit: what is free
    assert (await lab.eve.preview(StartSession(command="e"))).quota_left is None


async def test_a_plan_does_not_tell_the_names_of_sessions_one_may_not_see(lab: Lab) -> None:
    node = await lab.node("n1", cpu=1)
    await lab.ann.execute(StartSession(command="x", name="holder"))
    await node.obey()
    await lab.eve.execute(StartSession(command="x", name="secret"))
    plan = await lab.ann.preview(TerminateSessions(sessions=["holder"]))
    assert "secret" not in plan.model_dump_json()
    assert told(plan)[-1] == "1 waiting sessions of other projects are touched."
    assert "secret" in (await lab.boss.preview(TerminateSessions(sessions=["holder"]))).model_dump_json()


async def test_a_dependency_that_failed_already_is_refused(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="bad", name="bad"))
    work = (await node.obey()).start[0].id
    await node.exit(work, 1)
    assert why(await lab.ann.execute(StartSession(command="x", depends_on=["bad"]))) == ["dependency"]


async def test_two_people_may_use_the_same_name_and_each_means_their_own(lab: Lab) -> None:
    await lab.node("n1")
    await lab.ann.execute(StartSession(command="a", name="train"))
    mine = await lab.bob.execute(StartSession(command="b", name="train"))
    assert mine.refused == []
    assert (await lab.bob.session("train")).user == "bob"
    assert (await lab.ann.session("train")).user == "ann"


# ── input ────────────────────────────────────────────────────────────────────────────────────────


async def test_output_of_unknown_work_is_not_written_anywhere(lab: Lab) -> None:
    await lab.node("n1")
    chunk = LogChunk(id=WorkId(session="../../evil", attempt=1), offset=0, data=base64.b64encode(b"x").decode())
    await lab.core.agents.beat("n1", Beat(logs=[chunk]))
    assert not list(lab.core.data_dir.parent.rglob("*evil*"))


async def test_a_body_without_a_length_is_bounded_too(lab: Lab) -> None:
    async def endless() -> Any:
        for _ in range(MOST_BODY // 2**20 + 2):
            yield b" " * 2**20

    http: httpx.AsyncClient = lab.ann._http
    reply = await http.post("/v1/operations", content=endless())
    assert (reply.status_code, reply.json()["code"]) == (413, "invalid")


@pytest.mark.parametrize("ref", ["what?", "a#b", "a/b", "", "..", "한글"])
async def test_a_strange_name_is_just_not_found(lab: Lab, ref: str) -> None:
    with pytest.raises(ClusterError) as caught:
        await lab.ann.session(ref)
    assert caught.value.code in ("not_found", "invalid")


async def test_a_route_that_does_not_exist_is_a_problem_document(lab: Lab) -> None:
    http: httpx.AsyncClient = lab.ann._http
    for method, path in (("GET", "/v1/nothing"), ("DELETE", "/v1/me")):
        reply = await http.request(method, path)
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json()["sentence"]["text"]


async def test_output_goes_on_after_a_gap_that_a_power_cut_left(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    work = (await node.obey()).start[0].id
    for offset, data in ((0, b"one\n"), (1000, b"two\n"), (996, b"xxx\ntwo\n")):
        chunk = LogChunk(id=work, offset=offset, data=base64.b64encode(data).decode())
        await lab.core.agents.beat("n1", Beat(running=node.running, logs=[chunk]))
    assert (await lab.ann.logs("job")).text == "one\ntwo\n"


async def test_reading_on_never_cuts_a_character_in_two(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(StartSession(command="job"))
    work = (await node.obey()).start[0].id
    data = "안녕".encode()
    read, offset = "", 0
    for i in range(0, len(data), 2):
        chunk = LogChunk(id=work, offset=i, data=base64.b64encode(data[i : i + 2]).decode())
        await lab.core.agents.beat("n1", Beat(running=node.running, logs=[chunk]))
        page = await lab.ann.logs("job", tail=None, offset=offset)
        read, offset = read + page.text, page.next_offset
    assert read == "안녕"


# ── going on ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_pass_that_breaks_does_not_end_the_passes(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    await lab.node("n1")
    again = asyncio.Event()
    seen: list[int] = []

    async def breaks(self: Core) -> bool:
        seen.append(1)
        if len(seen) == 1:
            self.wake.set()
            raise RuntimeError("a bug")
        again.set()
        return False

    monkeypatch.setattr(Core, "schedule_pass", breaks)
    passes = asyncio.create_task(lab.core.run_forever())
    await asyncio.wait_for(again.wait(), 5)
    passes.cancel()
    await asyncio.gather(passes, return_exceptions=True)


async def test_a_long_poll_is_answered_as_soon_as_there_is_work(lab: Lab) -> None:
    await lab.node("n1")
    poll = asyncio.create_task(lab.core.agents.beat("n1", Beat(wait=20)))
    while not lab.core.waiting:
        await asyncio.sleep(0)
    await lab.ann.execute(StartSession(command="job"))
    assert [w.name for w in (await asyncio.wait_for(poll, 5)).start] == ["job"]
