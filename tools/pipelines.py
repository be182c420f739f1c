"""Pipelines: what there is, running one, how a run goes, cancelling and resuming it."""

from collections.abc import Sequence

from pydantic import Field, JsonValue

from cluster.models import (
    CancelPipelineRun,
    Operation,
    Outcome,
    Page,
    Pipeline,
    PipelineRun,
    ResumePipelineRun,
    RunPipeline,
    RunState,
    RunStep,
    S,
    Sentence,
    StepState,
)
from tools.base import Arguments, Context, OperationTool, ReadingTool, Result, Risk
from tools.kinds import PipelineName, ProjectName, RunName
from tools.show import SHOWN, ago, listed, plural, span, table, told
from tools.views import Cell, Tone

RUN_STATES: dict[RunState, Sentence] = {
    RunState.RUNNING: S("running"),
    RunState.CANCELLING: S("being cancelled"),
    RunState.SUCCEEDED: S("succeeded"),
    RunState.FAILED: S("failed"),
    RunState.CANCELLED: S("cancelled"),
}
STEP_STATES: dict[StepState, Sentence] = {
    StepState.WAITING: S("waiting"),
    StepState.RUNNING: S("running"),
    StepState.SUCCEEDED: S("succeeded"),
    StepState.FAILED: S("failed"),
    StepState.SKIPPED: S("left out"),
    StepState.CANCELLED: S("cancelled"),
}
_TONES: dict[str, Tone] = {
    "running": "good", "succeeded": "good", "waiting": "warn", "cancelling": "warn", "failed": "bad",
    "skipped": "muted", "cancelled": "muted",
}  # fmt: skip


class ListPipelinesArguments(Arguments):
    project: ProjectName | None = None


class ListPipelines(ReadingTool[ListPipelinesArguments]):
    """List pipelines (DAGs of steps) with their steps and how their latest run went."""

    name = "list_pipelines"
    arguments = ListPipelinesArguments
    rows_of = "pipeline"

    async def read(self, ctx: Context, args: ListPipelinesArguments) -> Result:
        page = await ctx.client.pipelines(project=args.project, limit=100)
        answer = ctx.say(_summary(page))
        columns = [S("Pipeline"), S("Project"), S("Owner"), S("Steps"), S("Latest run"), S("State"), S("Started")]
        rows: list[JsonValue] = [
            {"name": p.name, "project": p.project, "steps": [*p.steps[:9]], "last_run": _brief(p.last_run)}
            for p in page.items[:SHOWN]
        ]
        return Result(
            status="done",
            data={"total": page.total, "pipelines": rows},
            view=table(ctx, answer, columns, [_row(ctx, p) for p in page.items], total=page.total, right=(3, 6)),
            answer=answer,
            rows=[p.name for p in page.items],
            rows_of="pipeline",
        )


def _summary(page: Page[Pipeline]) -> Sentence:
    if not page.items:
        return S("There is no pipeline.")
    running = sum(p.last_run is not None and p.last_run.state is RunState.RUNNING for p in page.items)
    return plural(
        page.total,
        S("1 pipeline: {name}.", name=page.items[0].name),
        S("{count} pipelines, {running} of them run now.", count=page.total, running=running),
    )


def _brief(run: PipelineRun | None) -> JsonValue:
    return None if run is None else {"id": run.id, "state": run.state.value}


def _row(ctx: Context, p: Pipeline) -> list[Cell | str]:
    run = p.last_run
    state = _cell(run.state, ctx.say(RUN_STATES[run.state])) if run else "–"
    started = ctx.say(S("{time} ago", time=ago(ctx, run.created))) if run else "–"
    return [p.name, p.project, p.owner, str(len(p.steps)), run.id if run else "–", state, started]


def _cell(state: RunState | StepState, word: str) -> Cell:
    return Cell(text=word, tone=_TONES[state.value])


class RunPipelineArguments(Arguments):
    pipeline: PipelineName
    parameters: dict[str, str] | None = Field(None, description="Values of its parameters, by name.")
    project: ProjectName | None = None


class RunPipelineTool(OperationTool[RunPipelineArguments]):
    """Run a pipeline: its steps begin in their order, each as a batch session."""

    name = "run_pipeline"
    risk = Risk.W
    arguments = RunPipelineArguments
    rows_of = "run"

    def operation(self, ctx: Context, args: RunPipelineArguments) -> Operation:
        return RunPipeline(pipeline=args.pipeline, parameters=dict(args.parameters or {}), project=args.project)

    def title(self, ctx: Context, args: RunPipelineArguments, outcome: Outcome) -> Sentence:
        if args.parameters:
            given = ", ".join(f"{key}={value}" for key, value in args.parameters.items())
            return S("Run {pipeline} with {parameters}", pipeline=args.pipeline, parameters=given[:200])
        return S("Run {pipeline}", pipeline=args.pipeline)

    def done(self, ctx: Context, args: RunPipelineArguments, outcome: Outcome) -> Sentence:
        return S("Run {run} of {pipeline} has begun.", run=_made(outcome), pipeline=args.pipeline)

    async def perform(self, ctx: Context, args: RunPipelineArguments, key: str | None, expect: str | None) -> Result:
        """What comes of it is the run, not its first session."""
        outcome = await ctx.client.execute(self.operation(ctx, args), key=key, expect=expect)
        return _of_run(ctx, self, args, outcome, _made(outcome))


def _made(outcome: Outcome) -> str:
    """The id of the run that it made."""
    return next((effect.target for effect in outcome.effects if effect.kind == "creates"), "")


def _of_run(ctx: Context, tool: OperationTool[RunPipelineArguments], args: RunPipelineArguments, outcome: Outcome,
            run: str) -> Result:  # fmt: skip
    from tools.outcome import result

    found = result(ctx, tool, args, outcome)
    if outcome.refused:
        return found
    found.data["run"] = run
    return found.model_copy(update={"rows": [run], "rows_of": "run"})


class PipelineRunArguments(Arguments):
    run: RunName = Field(description="A run's id, or a pipeline's name for its latest run.")


class GetPipelineRun(ReadingTool[PipelineRunArguments]):
    """Show how a run of a pipeline goes: each step's state, its session, and why one failed."""

    name = "get_pipeline_run"
    arguments = PipelineRunArguments
    rows_of = "session"

    async def read(self, ctx: Context, args: PipelineRunArguments) -> Result:
        run = await ctx.client.pipeline_run(args.run)
        answer = ctx.say(_how(ctx, run))
        columns = [S("Step"), S("State"), S("For"), S("Tries"), S("Session"), S("Why")]
        shown = run.steps[:100]
        rows: list[JsonValue] = [{"step": s.name, "state": s.state.value, "session": s.session} for s in shown[:SHOWN]]
        return Result(
            status="done",
            data={
                "run": run.id, "pipeline": run.pipeline, "state": run.state.value, "user": run.user,
                "project": run.project, "parameters": dict(run.parameters), "steps": rows, "total": len(run.steps),
                "reasons": [told(ctx, r.message) for r in run.reasons[:5]],
            },
            view=table(ctx, answer, columns, [_step(ctx, s) for s in shown], total=len(run.steps), right=(2, 3)),
            answer=answer,
            rows=[s.session for s in shown if s.session],
            rows_of="session",
        )  # fmt: skip


def _how(ctx: Context, run: PipelineRun) -> Sentence:
    words: dict[str, str | int] = {"run": run.id, "pipeline": run.pipeline, "count": len(run.steps)}
    finished = sum(step.state is StepState.SUCCEEDED for step in run.steps)
    spent = span(ctx, ((run.ended or ctx.now) - run.created).total_seconds())
    match run.state:
        case RunState.RUNNING:
            going = listed(_in_state(run.steps, StepState.RUNNING)) or "–"
            return S("Run {run} of {pipeline}: {finished} of {count} steps have succeeded; now: {steps}.",
                     finished=finished, steps=going, **words)  # fmt: skip
        case RunState.SUCCEEDED:
            return S("Run {run} of {pipeline} has succeeded: {count} steps in {time}.", time=spent, **words)
        case RunState.FAILED:
            failed = listed(_in_state(run.steps, StepState.FAILED)) or "–"
            return S("Run {run} of {pipeline} has failed at {steps}; {finished} of {count} steps have succeeded.",
                     finished=finished, steps=failed, **words)  # fmt: skip
        case RunState.CANCELLING:
            return S("Run {run} of {pipeline} is being cancelled; its sessions are being stopped.", **words)
        case RunState.CANCELLED:
            return S("Run {run} of {pipeline} is cancelled; {finished} of {count} steps had succeeded.",
                     finished=finished, **words)  # fmt: skip


def _in_state(steps: Sequence[RunStep], state: StepState) -> list[str]:
    return [step.name for step in steps if step.state is state]


def _step(ctx: Context, step: RunStep) -> list[Cell | str]:
    reason = told(ctx, step.reasons[0].message) if step.reasons else "–"
    state = _cell(step.state, ctx.say(STEP_STATES[step.state]))
    return [step.name, state, ago(ctx, step.since), str(step.tries or "–"), step.session or "–", reason]


class CancelPipelineRunTool(OperationTool[PipelineRunArguments]):
    """Cancel a run of a pipeline: its sessions are stopped, and no further step begins."""

    name = "cancel_pipeline_run"
    risk = Risk.D
    arguments = PipelineRunArguments
    rows_of = "run"

    def operation(self, ctx: Context, args: PipelineRunArguments) -> Operation:
        return CancelPipelineRun(run=args.run)

    def title(self, ctx: Context, args: PipelineRunArguments, outcome: Outcome) -> Sentence:
        return S("Cancel the run {run}", run=args.run)

    def done(self, ctx: Context, args: PipelineRunArguments, outcome: Outcome) -> Sentence:
        stopped = sum(effect.kind == "stops" for effect in outcome.effects)
        if not stopped:
            return S("The run {run} is cancelled.", run=args.run)
        return S("The run {run} is being cancelled; sessions that are stopped: {count}.", run=args.run, count=stopped)


class ResumePipelineRunTool(OperationTool[PipelineRunArguments]):
    """Resume a run of a pipeline that failed or was cancelled: steps that have succeeded are not run again."""

    name = "resume_pipeline_run"
    risk = Risk.W
    arguments = PipelineRunArguments
    rows_of = "run"

    def operation(self, ctx: Context, args: PipelineRunArguments) -> Operation:
        return ResumePipelineRun(run=args.run)

    def title(self, ctx: Context, args: PipelineRunArguments, outcome: Outcome) -> Sentence:
        return S("Resume the run {run}", run=args.run)

    def done(self, ctx: Context, args: PipelineRunArguments, outcome: Outcome) -> Sentence:
        return S("The run {run} goes on.", run=args.run)
