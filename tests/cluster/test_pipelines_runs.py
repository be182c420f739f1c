"""Stories of runs: a diamond, failures and retries, cancelling and resuming, who may, and what can never start."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from sqlalchemy import update

from cluster.db.tables import FolderRow, QuotaRow, UserRow
from cluster.errors import ClusterError
from cluster.models import (
    CancelPipelineRun,
    CreateFolder,
    DeletePipeline,
    Outcome,
    PipelineRun,
    PutPipeline,
    ResumePipelineRun,
    RunPipeline,
    RunState,
    SessionState,
    TerminateSessions,
    Undo,
)
from cluster.simulator.lab import HandAgent, Lab
from cluster.transaction import Transaction

DIAMOND = """
name: diamond
steps:
  - {name: top, command: top, cpu: 1}
  - {name: left, after: [top], command: left, cpu: 1}
  - {name: right, after: [top], command: right, cpu: 1}
  - {name: bottom, after: [left, right], command: bottom, cpu: 1}
"""


def told(outcome: Outcome) -> list[str]:
    assert outcome.refused == []
    return [str(e.message) for e in outcome.effects]


def why(outcome: Outcome) -> list[str]:
    return [str(r.message) for r in outcome.refused]


def states(run: PipelineRun) -> dict[str, str]:
    return {step.name: step.state.value for step in run.steps}


class Hand:
    """A node that runs what it is told and ends it as a test says; it remembers every command that began."""

    def __init__(self, lab: Lab, agent: HandAgent) -> None:
        self._lab = lab
        self._agent = agent
        self._running: dict[str, HandAgent] = {}
        self.began: list[str] = []
        self._work: dict[str, list[object]] = {}

    @classmethod
    async def of(cls, lab: Lab, name: str = "n1", cpu: float = 8) -> "Hand":
        return cls(lab, await lab.node(name, cpu=cpu))

    async def look(self) -> list[str]:
        """Passes until nothing changes; commands that began meanwhile, in their order."""
        before = len(self.began)
        for _ in range(20):
            changed = await self._lab.core.schedule_pass()
            reply = await self._agent.obey()
            for work in reply.start:
                self.began.append(str(work.command))
                self._work.setdefault(str(work.command), []).append(work.id)
            if not changed and not reply.start and not reply.stop:
                break
        return self.began[before:]

    async def exit(self, command: str, code: int = 0) -> None:
        await self._agent.exit(self._work[command].pop(), code)  # type: ignore[arg-type]

    async def end(self, command: str, code: int = 0) -> list[str]:
        """It exits; what begins then."""
        await self.exit(command, code)
        return sorted(await self.look())


@pytest.fixture
async def hand(lab: Lab) -> Hand:
    await lab.ann.execute(PutPipeline(text=DIAMOND))
    return await Hand.of(lab)


async def ended(lab: Lab, ref: str = "diamond") -> PipelineRun:
    return await lab.ann.pipeline_run(ref)


# ── a run ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_diamond_runs_in_its_order(lab: Lab, hand: Hand) -> None:
    outcome = await lab.ann.execute(RunPipeline(pipeline="diamond"))
    assert told(outcome) == [
        "diamond runs as r-0001 in red.",
        "left follows when these have succeeded: top.",
        "right follows when these have succeeded: top.",
        "bottom follows when these have succeeded: left, right.",
        "Level by level, it needs up to 2 CPU at the same time.",
        "diamond-top starts now on n1.",
    ]
    assert await hand.look() == ["top"]
    assert await hand.end("top") == ["left", "right"]
    assert await hand.end("left") == []
    assert states(await ended(lab)) == {
        "top": "succeeded",
        "left": "succeeded",
        "right": "running",
        "bottom": "waiting",
    }
    assert await hand.end("right") == ["bottom"]
    await hand.end("bottom")
    run = await ended(lab)
    assert (run.id, run.state, run.user, run.project) == ("r-0001", RunState.SUCCEEDED, "ann", "red")
    assert set(states(run).values()) == {"succeeded"}
    assert hand.began == ["top", "left", "right", "bottom"]
    assert (await lab.ann.pipeline("diamond")).last_run is not None


async def test_a_preview_says_the_same_and_changes_nothing(lab: Lab, hand: Hand) -> None:
    preview = await lab.ann.preview(RunPipeline(pipeline="diamond"))
    assert (await lab.ann.pipeline_runs()).total == 0
    assert await hand.look() == []
    done = await lab.ann.execute(RunPipeline(pipeline="diamond"), expect=preview.digest)
    assert told(done) == told(preview)


async def test_a_step_knows_its_run_its_name_and_the_parameters(lab: Lab) -> None:
    agent = await lab.node("n1")
    text = "name: p\nparameters: {lr: 0.1}\nenv: {A: x}\nsteps: [{name: s, command: 'go {{ parameters.lr }}'}]"
    await lab.ann.execute(PutPipeline(text=text))
    await lab.ann.execute(RunPipeline(pipeline="p", parameters={"lr": "0.5"}))
    (work,) = (await agent.obey()).start
    assert work.command == 'go "${PARAM_LR}"'
    assert work.env == {"A": "x", "PARAM_LR": "0.5", "HELMSMAN_RUN": "r-0001", "HELMSMAN_PIPELINE": "p",
                        "HELMSMAN_STEP": "s"}  # fmt: skip


async def test_a_run_goes_on_with_the_definition_that_it_began_with(lab: Lab, hand: Hand) -> None:
    await lab.ann.execute(RunPipeline(pipeline="diamond"))
    await hand.look()
    await lab.ann.execute(PutPipeline(text="name: diamond\nsteps: [{name: other, command: other}]"))
    assert await hand.end("top") == ["left", "right"]
    await lab.ann.execute(DeletePipeline(pipeline="diamond"))
    await hand.end("left")
    assert await hand.end("right") == ["bottom"]
    await hand.end("bottom")
    assert (await ended(lab)).state is RunState.SUCCEEDED


async def test_two_runs_of_a_pipeline_do_not_meet(lab: Lab, hand: Hand) -> None:
    for _ in range(2):
        await lab.ann.execute(RunPipeline(pipeline="diamond"))
    assert await hand.look() == ["top", "top"]
    assert [s.name for s in (await lab.ann.sessions()).items] == ["diamond-top", "diamond-top-2"]
    assert [r.id for r in (await lab.ann.pipeline_runs()).items] == ["r-0002", "r-0001"]
    assert await hand.end("top") == ["left", "right"]
    assert states(await ended(lab, "r-0001")) == {
        "top": "running",
        "left": "waiting",
        "right": "waiting",
        "bottom": "waiting",
    }


async def test_a_step_that_is_left_out_lets_the_others_go_on(lab: Lab) -> None:
    hand = await Hand.of(lab)
    text = """
name: p
parameters: {wide: false}
steps:
  - {name: a, command: a}
  - {name: b, after: [a], command: b, when: "{{ parameters.wide }}"}
  - {name: c, after: [b], command: c}
"""
    await lab.ann.execute(PutPipeline(text=text))
    assert "b is left out." in told(await lab.ann.execute(RunPipeline(pipeline="p")))
    await hand.look()
    assert await hand.end("a") == ["c"]
    await hand.end("c")
    run = await ended(lab, "p")
    assert (run.state, states(run)) == (RunState.SUCCEEDED, {"a": "succeeded", "b": "skipped", "c": "succeeded"})
    await lab.ann.execute(RunPipeline(pipeline="p", parameters={"wide": True}))
    await hand.look()
    assert await hand.end("a") == ["b"]


# ── failures ─────────────────────────────────────────────────────────────────────────────────────


async def test_after_a_failure_dependants_are_left_out_and_independent_branches_go_on(lab: Lab, hand: Hand) -> None:
    await lab.ann.execute(RunPipeline(pipeline="diamond"))
    await hand.look()
    await hand.end("top")
    await hand.end("left", 3)
    assert (await ended(lab)).state is RunState.RUNNING
    await hand.end("right")
    run = await ended(lab)
    assert states(run) == {"top": "succeeded", "left": "failed", "right": "succeeded", "bottom": "skipped"}
    assert [str(r.message) for r in run.reasons] == [
        "Step left failed with exit code 3; its last lines are in the log of diamond-left."
    ]
    assert [str(r.message) for r in run.steps[3].reasons] == ["Step bottom is left out, because left did not succeed."]
    assert hand.began == ["top", "left", "right"]


async def test_a_step_is_tried_again_after_its_delay_and_no_more_often_than_said(lab: Lab) -> None:
    hand = await Hand.of(lab)
    text = "name: p\nsteps: [{name: s, command: s, retries: 1, retry_delay: 60s}]"
    await lab.ann.execute(PutPipeline(text=text))
    await lab.ann.execute(RunPipeline(pipeline="p"))
    await hand.look()
    assert await hand.end("s", 1) == []
    assert states(await ended(lab, "p")) == {"s": "waiting"}
    due = lab.core.runs.due()
    assert due == lab.clock.now() + timedelta(seconds=60)
    await lab.later(59)
    assert await hand.look() == []
    await lab.later(1)
    assert await hand.look() == ["s"]
    assert await hand.end("s", 1) == []
    run = await ended(lab, "p")
    assert (run.state, run.steps[0].tries) == (RunState.FAILED, 2)


async def test_a_step_that_may_fail_is_no_failure_of_the_run(lab: Lab) -> None:
    hand = await Hand.of(lab)
    text = "name: p\nsteps: [{name: a, command: a, may_fail: true}, {name: b, after: [a], command: b}]"
    await lab.ann.execute(PutPipeline(text=text))
    await lab.ann.execute(RunPipeline(pipeline="p"))
    await hand.look()
    assert await hand.end("a", 1) == ["b"]
    await hand.end("b")
    assert (await ended(lab, "p")).state is RunState.SUCCEEDED


async def test_a_session_that_is_stopped_by_hand_is_not_tried_again(lab: Lab) -> None:
    hand = await Hand.of(lab)
    await lab.ann.execute(PutPipeline(text="name: p\nsteps: [{name: s, command: s, retries: 5}]"))
    await lab.ann.execute(RunPipeline(pipeline="p"))
    await hand.look()
    await lab.ann.execute(TerminateSessions(sessions=["p-s"]))
    await hand.look()
    run = await ended(lab, "p")
    assert (run.state, run.steps[0].tries) == (RunState.FAILED, 1)
    assert str(run.reasons[0].message) == "Step s: its session p-s was stopped by hand."


async def test_a_step_whose_node_is_lost_is_tried_again(lab: Lab) -> None:
    first = await Hand.of(lab, "n1")
    await lab.ann.execute(PutPipeline(text="name: p\nsteps: [{name: s, command: s, retries: 1}]"))
    await lab.ann.execute(RunPipeline(pipeline="p"))
    await first.look()
    second = await Hand.of(lab, "n2")
    for _ in range(12):
        await lab.later(30, silent=True)
        await second._agent.beat()
    assert await second.look() == ["s"]
    await second.end("s")
    assert (await ended(lab, "p")).state is RunState.SUCCEEDED


# ── what can never start ─────────────────────────────────────────────────────────────────────────


async def test_a_run_with_a_step_that_no_node_could_hold_is_refused_before_anything_begins(lab: Lab) -> None:
    await Hand.of(lab, cpu=4)
    text = "name: p\nsteps: [{name: a, command: a}, {name: b, after: [a], command: b, cpu: 64}]"
    await lab.ann.execute(PutPipeline(text=text))
    outcome = await lab.ann.execute(RunPipeline(pipeline="p"))
    assert {r.code for r in outcome.refused} == {"impossible"}
    assert (await lab.ann.pipeline_runs()).total == 0
    assert (await lab.ann.sessions()).total == 0


async def test_a_waiting_step_fails_when_its_quota_is_taken_away(lab: Lab, hand: Hand) -> None:
    await lab.ann.execute(RunPipeline(pipeline="diamond"))
    await hand.look()
    async with lab.core.db.write() as db:
        db.add(QuotaRow(scope="user", name="ann", cpu=0))
    await hand.end("top")
    run = await ended(lab)
    assert (run.state, states(run)["left"]) == (RunState.FAILED, "failed")
    assert run.reasons[0].code == "quota"
    assert (await lab.ann.sessions()).total == 0


async def test_a_step_that_waits_for_room_fails_when_its_quota_is_taken_away(lab: Lab) -> None:
    hand = await Hand.of(lab, cpu=2)
    text = "name: p\nsteps: [{name: a, command: a, cpu: 2}, {name: b, command: b, cpu: 2}]"
    await lab.ann.execute(PutPipeline(text=text))
    await lab.ann.execute(RunPipeline(pipeline="p"))
    assert await hand.look() == ["a"]
    async with lab.core.db.write() as db:
        db.add(QuotaRow(scope="project", name="red", cpu=1))
    await hand.look()
    assert states(await ended(lab, "p")) == {"a": "running", "b": "failed"}
    assert (await lab.ann.session("p-b")).state is SessionState.CANCELLED


async def test_a_step_of_somebody_who_was_deactivated_fails_with_that_reason(lab: Lab, hand: Hand) -> None:
    await lab.ann.execute(RunPipeline(pipeline="diamond"))
    await hand.look()
    async with lab.core.db.write() as db:
        await db.execute(update(UserRow).where(UserRow.name == "ann").values(active=False))
        lab.core.db.touched.add(UserRow)
    await hand.end("top")
    run = await lab.boss.pipeline_run("diamond")
    assert run.state is RunState.FAILED
    assert str(run.reasons[0].message) == "ann is not active here any more; nothing can run in their name."


async def test_a_step_that_waits_fails_when_its_folder_is_gone(lab: Lab) -> None:
    hand = await Hand.of(lab, cpu=1)
    await lab.ann.execute(CreateFolder(name="data"))
    text = "name: p\nsteps: [{name: a, command: a}, {name: b, command: b, mounts: [data]}]"
    await lab.ann.execute(PutPipeline(text=text))
    await lab.ann.execute(RunPipeline(pipeline="p"))
    assert await hand.look() == ["a"]
    async with lab.core.db.write() as db:
        await db.execute(update(FolderRow).values(trash_id="gone", trashed_at=lab.clock.now()))
    await lab.later(11)
    run = await ended(lab, "p")
    assert states(run) == {"a": "running", "b": "failed"}
    assert str(run.steps[1].reasons[0].message) == "There is no folder red/data."


# ── cancelling, resuming, undo ───────────────────────────────────────────────────────────────────


async def test_cancelling_stops_what_runs_and_ends_when_that_is_gone(lab: Lab, hand: Hand) -> None:
    await lab.ann.execute(RunPipeline(pipeline="diamond"))
    await hand.look()
    await hand.end("top")
    await lab.later(120)
    outcome = await lab.boss.execute(CancelPipelineRun(run="diamond"))
    assert told(outcome)[:4] == [
        "Run r-0001 of diamond is cancelled: 1 of 4 steps have succeeded, 1 do not begin.",
        "It was started 2 min ago.",
        "diamond-left is stopped; it gives back 1 CPU, 8 GiB.",
        "diamond-right is stopped; it gives back 1 CPU, 8 GiB.",
    ]
    assert {e.owner for e in outcome.effects} == {"ann"}
    assert str(outcome.warnings[0]).startswith("diamond-left has run for 2 min")
    assert states(await ended(lab))["bottom"] == "cancelled"
    assert (await ended(lab)).state is RunState.CANCELLING
    await hand.look()
    run = await ended(lab)
    assert (run.state, run.reasons) == (RunState.CANCELLED, [])
    assert states(run) == {"top": "succeeded", "left": "cancelled", "right": "cancelled", "bottom": "cancelled"}


async def test_a_cancelled_run_does_not_wait_for_ever_for_a_node_that_is_silent(lab: Lab, hand: Hand) -> None:
    await lab.ann.execute(RunPipeline(pipeline="diamond"))
    await hand.look()
    await lab.ann.execute(CancelPipelineRun(run="diamond"))
    await lab.later(901, silent=True)
    await lab.core.schedule_pass()
    assert (await ended(lab)).state is RunState.CANCELLED


async def test_resuming_runs_again_only_what_did_not_succeed(lab: Lab, hand: Hand) -> None:
    await lab.ann.execute(RunPipeline(pipeline="diamond"))
    await hand.look()
    await hand.end("top")
    await hand.end("left", 1)
    await hand.end("right")
    outcome = await lab.ann.execute(ResumePipelineRun(run="diamond"))
    assert told(outcome)[0] == (
        "Run r-0001 of diamond goes on with left, bottom; 2 steps that have succeeded are not run again."
    )
    assert await hand.look() == ["left"]
    assert await hand.end("left") == ["bottom"]
    await hand.end("bottom")
    assert (await ended(lab)).state is RunState.SUCCEEDED
    assert hand.began == ["top", "left", "right", "left", "bottom"]


async def test_undo_of_a_run_cancels_it_and_undo_of_that_resumes_it(lab: Lab, hand: Hand) -> None:
    await lab.ann.execute(RunPipeline(pipeline="diamond"))
    await hand.look()
    told(await lab.ann.execute(Undo()))
    await hand.look()
    assert (await ended(lab)).state is RunState.CANCELLED
    cancelled = await lab.ann.execute(CancelPipelineRun(run="r-0001"))
    assert why(cancelled) == ["Run r-0001 of diamond has ended already (cancelled)."]
    told(await lab.ann.execute(ResumePipelineRun(run="r-0001")))
    await hand.look()
    told(await lab.ann.execute(CancelPipelineRun(run="r-0001")))
    await hand.look()
    told(await lab.ann.execute(Undo()))
    assert (await ended(lab)).state is RunState.RUNNING


async def test_a_run_that_succeeded_can_be_neither_resumed_nor_cancelled(lab: Lab) -> None:
    hand = await Hand.of(lab)
    await lab.ann.execute(PutPipeline(text="name: p\nsteps: [{name: s, command: s}]"))
    await lab.ann.execute(RunPipeline(pipeline="p"))
    running = await lab.ann.execute(ResumePipelineRun(run="p"))
    assert why(running) == ["Run r-0001 of p is running; only one that failed or was cancelled can be resumed."]
    await hand.look()
    await hand.end("s")
    assert why(await lab.ann.execute(CancelPipelineRun(run="p"))) == ["Run r-0001 of p has ended already (succeeded)."]
    assert len(why(await lab.ann.execute(ResumePipelineRun(run="p")))) == 1


async def between(lab: Lab, monkeypatch: pytest.MonkeyPatch, what: Callable[[], Awaitable[object]]) -> None:
    """One pass, in which `what` happens after the keeper has looked and before it writes."""
    judged = lab.core.runs._judged

    async def interrupted() -> object:
        found = await judged()
        monkeypatch.undo()
        await what()
        return found

    monkeypatch.setattr(lab.core.runs, "_judged", interrupted)
    await lab.core.schedule_pass()


async def test_a_step_does_not_begin_when_its_run_was_cancelled_a_moment_before(
    lab: Lab, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lab.ann.execute(RunPipeline(pipeline="diamond"))
    await hand.look()
    await hand.exit("top")
    await lab.core.schedule_pass()
    await between(lab, monkeypatch, lambda: lab.ann.execute(CancelPipelineRun(run="diamond")))
    await hand.look()
    assert hand.began == ["top"]
    run = await ended(lab)
    assert run.state is RunState.CANCELLED
    assert states(run) == {"top": "succeeded", "left": "cancelled", "right": "cancelled", "bottom": "cancelled"}


async def test_a_step_that_got_its_place_a_moment_before_is_not_given_up(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = await Hand.of(lab, cpu=1)
    await lab.ann.execute(CreateFolder(name="data"))
    text = "name: p\nsteps: [{name: a, command: a}, {name: b, command: b, mounts: [data]}]"
    await lab.ann.execute(PutPipeline(text=text))
    await lab.ann.execute(RunPipeline(pipeline="p"))
    await hand.look()
    async with lab.core.db.write() as db:
        await db.execute(update(FolderRow).values(trash_id="gone", trashed_at=lab.clock.now()))
    lab.clock.advance(timedelta(seconds=11))

    async def room() -> None:
        async def nothing(tx: Transaction) -> Callable[[], None]:
            return lambda: None

        await hand.exit("a")
        await lab.core.writer.together(lab.core.system, nothing, plans=True)

    await between(lab, monkeypatch, room)
    assert states(await ended(lab, "p"))["b"] == "running"
    assert (await lab.ann.session("p-b")).state is SessionState.SCHEDULED


# ── definitions ──────────────────────────────────────────────────────────────────────────────────


async def test_a_pipeline_is_made_replaced_removed_and_each_is_undone(lab: Lab) -> None:
    made = await lab.ann.execute(PutPipeline(text=DIAMOND))
    assert told(made) == [
        "The pipeline diamond is made in red.",
        "Its steps, in their order: top, left, right, bottom.",
    ]
    replaced = await lab.ann.execute(PutPipeline(text="name: diamond\nsteps: [{name: x, command: x}]"))
    assert told(replaced)[0] == "diamond is there already and is replaced; runs that have begun stay as they are."
    await lab.ann.execute(Undo())
    assert (await lab.ann.pipeline("diamond")).steps == ["top", "left", "right", "bottom"]
    await lab.ann.execute(DeletePipeline(pipeline="diamond"))
    assert (await lab.ann.pipelines()).total == 0
    await lab.ann.execute(Undo())
    back = await lab.ann.pipeline("diamond")
    assert (back.owner, back.project, len(back.steps)) == ("ann", "red", 4)


async def test_a_definition_with_mistakes_is_refused_with_all_of_them_and_nothing_is_kept(lab: Lab) -> None:
    outcome = await lab.ann.execute(PutPipeline(text="name: p\nsteps:\n- {name: a}\n- {name: b, after: [c]}"))
    assert why(outcome) == [
        "Line 3: step a has no command; it would never end.",
        "Line 4: step b has no command; it would never end.",
        "Line 4: b waits for c, which is no step here.",
    ]
    assert (await lab.ann.pipelines()).total == 0


async def test_what_is_wrong_with_the_parameters_is_told_and_nothing_begins(lab: Lab) -> None:
    await Hand.of(lab)
    text = "name: p\nparameters: {n: {type: integer}}\nsteps: [{name: a, command: a, cpu: '{{ parameters.n }}'}]"
    await lab.ann.execute(PutPipeline(text=text))
    assert why(await lab.ann.execute(RunPipeline(pipeline="p"))) == [
        "The parameter n has no default; say what it is to be."
    ]
    assert why(await lab.ann.execute(RunPipeline(pipeline="p", parameters={"n": 0}))) == ["Step a: cpu can't be 0."]
    assert (await lab.ann.pipeline_runs()).total == 0


# ── who may ──────────────────────────────────────────────────────────────────────────────────────


async def test_others_of_the_project_see_and_run_a_pipeline_and_change_neither_it_nor_others_runs(
    lab: Lab, hand: Hand
) -> None:
    assert [p.name for p in (await lab.bob.pipelines()).items] == ["diamond"]
    await lab.ann.execute(RunPipeline(pipeline="diamond"))
    assert (await lab.bob.pipeline_run("r-0001")).user == "ann"
    for op in (PutPipeline(text=DIAMOND), DeletePipeline(pipeline="diamond"), CancelPipelineRun(run="r-0001"),
               ResumePipelineRun(run="r-0001")):  # fmt: skip
        assert [r.code for r in (await lab.bob.execute(op)).refused] == ["not_allowed"], op.op
    told(await lab.bob.execute(RunPipeline(pipeline="diamond")))
    assert (await lab.bob.pipeline_run("diamond")).user == "bob"


async def test_other_projects_neither_see_nor_touch_anything(lab: Lab, hand: Hand) -> None:
    await lab.ann.execute(RunPipeline(pipeline="diamond"))
    assert ((await lab.eve.pipelines()).total, (await lab.eve.pipeline_runs()).total) == (0, 0)
    for ask in (lab.eve.pipeline("diamond"), lab.eve.pipeline_run("r-0001"), lab.eve.pipeline_run("diamond")):
        with pytest.raises(ClusterError, match="There is no"):
            await ask
    for op in (RunPipeline(pipeline="diamond"), DeletePipeline(pipeline="diamond"), CancelPipelineRun(run="r-0001"),
               ResumePipelineRun(run="diamond")):  # fmt: skip
        assert [r.code for r in (await lab.eve.execute(op)).refused] == ["not_found"], op.op
    assert (await lab.eve.execute(PutPipeline(text=DIAMOND, project="red"))).refused != []
    told(await lab.eve.execute(PutPipeline(text=DIAMOND)))
    ambiguous = await lab.boss.execute(RunPipeline(pipeline="diamond"))
    assert why(ambiguous) == ["2 projects have a pipeline diamond; say which project."]
    assert told(await lab.boss.execute(RunPipeline(pipeline="diamond", project="blue")))[0].endswith("in blue.")


async def test_runs_that_ended_90_days_ago_are_cleared_away_but_the_latest(lab: Lab) -> None:
    hand = await Hand.of(lab)
    await lab.ann.execute(PutPipeline(text="name: p\nsteps: [{name: s, command: s}]"))
    for _ in range(2):
        await lab.ann.execute(RunPipeline(pipeline="p"))
        await hand.look()
        await hand.end("s")
    await lab.later(89 * 86400)
    assert (await lab.ann.pipeline_runs()).total == 2
    await lab.later(2 * 86400)
    assert [r.id for r in (await lab.ann.pipeline_runs()).items] == ["r-0002"]
    assert "runs as r-0003" in told(await lab.ann.execute(RunPipeline(pipeline="p")))[0]
