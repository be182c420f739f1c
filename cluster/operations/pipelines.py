"""Keeping pipelines, and running, cancelling and resuming them."""

from collections.abc import Sequence
from graphlib import TopologicalSorter
from typing import Any

from sqlalchemy import Integer, cast, func, select

from cluster import access
from cluster.db.tables import PipelineRow, RunRow, StepRow
from cluster.errors import Ambiguous, NotFound
from cluster.models import (
    CancelPipelineRun,
    DeletePipeline,
    Effect,
    PipelineSpec,
    PutPipeline,
    Reason,
    ResumePipelineRun,
    RunPipeline,
    RunState,
    StartSession,
    StepState,
)
from cluster.operations import sessions
from cluster.pipelines import definition, lifecycle, steps
from cluster.pipelines.moves import Settle, next_moves
from cluster.pipelines.parameters import chosen
from cluster.pipelines.steps import Run
from cluster.sentence import S, Sentence
from cluster.transaction import Done, Refused, Transaction, nearest
from cluster.units import human_duration, human_size, listed

NUMBER = cast(func.substr(RunRow.id, 3), Integer)
"""Of a run: `r-0012` is the twelfth."""
MOST_TOLD = 20
"""Steps of a plan that are told one by one."""

# ── definitions ──────────────────────────────────────────────────────────────────────────────────


async def put(tx: Transaction, op: PutPipeline) -> Done:
    """A new pipeline, or another definition for the one of its name in the project."""
    project = sessions.project_of(tx, op.project)
    groups = list(tx.core.directory.groups)
    try:
        read = definition.read(op.text, simulated=tx.core.simulated, name=op.name, groups=groups)
    except definition.PipelineMistakes as e:
        raise Refused(*e.reasons) from e
    row = await _row(tx, project, read.spec.name)
    done = _create(tx, project, read.spec) if row is None else _replace(tx, row, read.spec)
    done.warnings += read.notes
    done.effects.append(_order(read.spec))
    return done


async def _row(tx: Transaction, project: str, name: str) -> PipelineRow | None:
    wanted = select(PipelineRow).where(PipelineRow.project == project, PipelineRow.name == name)
    return (await tx.db.scalars(wanted)).first()


def _create(tx: Transaction, project: str, spec: PipelineSpec, owner: str | None = None) -> Done:
    values = {"name": spec.name, "project": project, "owner": owner or tx.user.name}
    tx.db.add(PipelineRow(spec=spec.model_dump(mode="json"), created=tx.now, modified=tx.now, **values))
    text = S("{user} made the pipeline {name}.", user=tx.user.name, name=spec.name)
    tx.event("pipeline_created", spec.name, text, owner=values["owner"], project=project)
    message = S("The pipeline {name} is made in {project}.", name=spec.name, project=project)
    return Done(
        effects=[Effect(kind="creates", target=spec.name, message=message)],
        targets=[spec.name],
        undo=S("undo removes the pipeline again."),
        inverse={"op": "delete_pipeline", "pipeline": spec.name, "project": project},
    )


def _replace(tx: Transaction, row: PipelineRow, spec: PipelineSpec) -> Done:
    access.must_own(tx.user, row.name, row.owner, row.project)
    before = dict(row.spec)
    row.spec, row.modified = spec.model_dump(mode="json"), tx.now
    text = S("{user} changed the pipeline {name}.", user=tx.user.name, name=row.name)
    tx.event("pipeline_changed", row.name, text, owner=row.owner, project=row.project)
    message = S("{name} is there already and is replaced; runs that have begun stay as they are.", name=row.name)
    return Done(
        effects=[Effect(kind="changes", target=row.name, message=message, owner=tx.other(row.owner))],
        targets=[row.name],
        undo=S("undo brings its definition back."),
        inverse={"op": "_put_pipeline", "project": row.project, "spec": before},
    )


def _order(spec: PipelineSpec) -> Effect:
    names = [step for level in levels(spec) for step in level]
    shown = listed(names, MOST_TOLD)
    message = S("Its steps, in their order: {steps}.", steps=shown)
    return Effect(kind="changes", target=spec.name, message=message)


def levels(spec: PipelineSpec) -> list[list[str]]:
    """The steps in groups that could run at the same time, in the definition's order within each."""
    sorter = TopologicalSorter({step.name: step.after for step in spec.steps})
    place = {step.name: i for i, step in enumerate(spec.steps)}
    found: list[list[str]] = []
    sorter.prepare()
    while sorter.is_active():
        ready = sorter.get_ready()
        found.append(sorted(ready, key=place.__getitem__))
        sorter.done(*ready)
    return found


async def delete(tx: Transaction, op: DeletePipeline) -> Done:
    """The definition goes; its runs stay, and those that have begun go on."""
    row = await pipeline(tx, op.pipeline, op.project)
    access.must_own(tx.user, row.name, row.owner, row.project)
    inverse = {"op": "_restore_pipeline", "project": row.project, "owner": row.owner, "spec": dict(row.spec)}
    await tx.db.delete(row)
    text = S("{user} removed the pipeline {name}.", user=tx.user.name, name=row.name)
    tx.event("pipeline_deleted", row.name, text, owner=row.owner, project=row.project)
    message = S("The pipeline {name} is removed; runs that have begun go on.", name=row.name)
    return Done(
        effects=[Effect(kind="removes", target=row.name, message=message, owner=tx.other(row.owner))],
        targets=[row.name],
        undo=S("undo brings the pipeline back."),
        inverse=inverse,
    )


async def put_back(tx: Transaction, inverse: dict[str, Any]) -> Done:
    """Undo of replacing or removing a pipeline."""
    spec, project = PipelineSpec.model_validate(inverse["spec"]), inverse["project"]
    row = await _row(tx, project, spec.name)
    if inverse["op"] == "_put_pipeline":
        if row is None:
            message = S("{name} is not there any more; its definition can't be put back.", name=spec.name)
            raise Refused(Reason(code="conflict", message=message))
        return _replace(tx, row, spec)
    if row is not None:
        raise Refused(Reason(code="conflict", message=S("There is a new pipeline {name} by now.", name=spec.name)))
    return _create(tx, project, spec, inverse["owner"])


async def pipeline(tx: Transaction, ref: str, project: str | None) -> PipelineRow:
    """By name, among those the person may see; of several the one in `project`. `NotFound`, `Ambiguous`."""
    async with tx.look() as db:
        every = (await db.scalars(select(PipelineRow).order_by(PipelineRow.project))).all()
    seen = [row for row in every if access.sees(tx.user, row.owner, row.project)]
    named = [row for row in seen if row.name == ref]
    if not named:
        raise NotFound(S("There is no pipeline {name}.", name=ref), nearest(ref, {row.name for row in seen}))
    found = [row for row in named if row.project == project] or named
    if len(found) > 1:
        projects = [row.project for row in found]
        raise Ambiguous(S("{count} projects have a pipeline {name}; say which project.", count=len(found), name=ref),
                        projects)  # fmt: skip
    return found[0]


# ── running ──────────────────────────────────────────────────────────────────────────────────────


async def run(tx: Transaction, op: RunPipeline) -> Done:
    """A run of the definition as it is now; its first steps begin at once."""
    row = await pipeline(tx, op.pipeline, op.project)
    spec = PipelineSpec.model_validate(row.spec)
    project = sessions.project_of(tx, op.project or row.project)
    values, wrong = chosen(spec, op.parameters)
    if wrong:
        raise Refused(*wrong)
    made = await _new_run(tx, spec, project, values)
    asked = await _all_possible(tx, made)
    done = Done(effects=_plan(made, asked), targets=[row.name, made.row.id])
    await _begin(tx, made, done)
    done.undo = S("undo cancels the run; what its steps have done until then stays.")
    done.inverse = {"op": "cancel_pipeline_run", "run": made.row.id}
    return done


async def _new_run(tx: Transaction, spec: PipelineSpec, project: str, values: dict[str, Any]) -> Run:
    row = RunRow(
        id=await _next_id(tx),
        pipeline=spec.name,
        project=project,
        user=tx.user.name,
        spec=spec.model_dump(mode="json"),
        parameters=values,
        state=RunState.RUNNING.value,
        state_since=tx.now,
        created=tx.now,
        reasons=[],
    )
    parts = [
        StepRow(run=row.id, step=step.name, place=i, state=StepState.WAITING.value, state_since=tx.now, tries=0,
                reasons=[])
        for i, step in enumerate(spec.steps)
    ]  # fmt: skip
    tx.db.add(row)
    await tx.db.flush()
    tx.db.add_all(parts)
    tx.core.runs.changed()
    message = S("{user} started run {run} of {pipeline}.", user=tx.user.name, run=row.id, pipeline=spec.name)
    tx.event("run_running", spec.name, message, owner=row.user, project=row.project)
    return Run.of(row, parts)


async def _next_id(tx: Transaction) -> str:
    return f"r-{(await tx.db.scalar(select(func.max(NUMBER))) or 0) + 1:04d}"


async def _all_possible(tx: Transaction, made: Run) -> dict[str, StartSession]:
    """What each step asks for. `Refused` with all that could never run: it would fail hours later."""
    asked: dict[str, StartSession] = {}
    wrong: dict[str, Reason] = {}
    tried: set[str] = set()
    for step in made.steps():
        if step.left_out:
            continue
        try:
            op = asked[step.name] = steps.ask(tx, made, step.name)
            shape = op.model_copy(update={"env": {}, "command": "true"})
            if (key := shape.model_dump_json()) not in tried:
                tried.add(key)
                await _try(tx, made, shape)
        except Refused as e:
            wrong |= {str(reason.message): reason for reason in e.reasons}
    if wrong:
        raise Refused(*wrong.values())
    return asked


async def _try(tx: Transaction, made: Run, op: StartSession) -> None:
    """Start it, and take that back: the same code that will start it says whether it could be."""
    await tx.core.idents.stock(1)
    tx.core.draft.mark()
    try:
        await sessions.start(steps.as_user(tx, made.row.user), op)
    finally:
        tx.core.draft.back()


async def _begin(tx: Transaction, made: Run, done: Done) -> None:
    """What can begin at once does."""
    while moves := next_moves(made.state, made.row.state_since, made.steps(), {}, tx.now):
        await steps.carry_out(tx, made, moves, done)
        if not all(isinstance(move, Settle) for move in moves):
            return


def _plan(made: Run, asked: dict[str, StartSession]) -> list[Effect]:
    """The steps in their order, and what they need."""
    row, spec = made.row, made.spec
    first = S("{pipeline} runs as {run} in {project}.", pipeline=spec.name, run=row.id, project=row.project)
    effects = [Effect(kind="creates", target=row.id, message=first, stable=False)]
    order = [name for level in levels(spec) for name in level]
    after = {step.name: [name for name in step.after if name in asked] for step in spec.steps}
    lines = [_line(name, after[name], asked.get(name)) for name in order if name not in asked or after[name]]
    effects += [Effect(kind="waits", target=spec.name, message=line) for line in lines[:MOST_TOLD]]
    if len(lines) > MOST_TOLD:
        more = S("{count} more steps follow.", count=len(lines) - MOST_TOLD)
        effects.append(Effect(kind="waits", target=spec.name, message=more))
    effects += [Effect(kind="changes", target=spec.name, message=line) for line in _sums(spec, asked)]
    return effects


def _line(name: str, after: Sequence[str], op: StartSession | None) -> Sentence:
    if op is None:
        return S("{step} is left out.", step=name)
    named = listed(after, 5)
    return S("{step} follows when these have succeeded: {after}.", step=name, after=named)


def _sums(spec: PipelineSpec, asked: dict[str, StartSession]) -> list[Sentence]:
    """The most that a step holds, the most that a group of steps holds that may run together, and how long it takes."""
    if not asked:
        return []
    groups = [[asked[name] for name in level if name in asked] for level in levels(spec)]
    most = max((_amounts(group) for group in groups if group), default=(0.0, 0, 0.0))
    found = [S("Level by level, it needs up to {amounts} at the same time.", amounts=_said(*most))]
    if (longest := _longest(spec, asked)) is not None:
        found.append(S("By the time limits of its steps it runs for {time} at most, without waiting.",
                       time=human_duration(longest)))  # fmt: skip
    return found


def _amounts(group: Sequence[StartSession]) -> tuple[float, int, float]:
    """Devices, bytes, cores."""
    cpu = sum(op.cpu or sessions.DEFAULT_CPU * op.node_count for op in group)
    return sum(op.gpu or 0 for op in group), sum(op.memory or 0 for op in group), cpu


def _said(gpu: float, memory: int, cpu: float) -> str:
    parts = [f"{gpu:g} GPU" if gpu else "", f"{cpu:g} CPU", human_size(memory) if memory else ""]
    return ", ".join(part for part in parts if part)


def _longest(spec: PipelineSpec, asked: dict[str, StartSession]) -> float | None:
    """Seconds along the longest way, with every try; None when a step has no limit."""
    ends: dict[str, float] = {}
    told = {step.name: step for step in spec.steps}
    for name in (name for level in levels(spec) for name in level):
        limit = asked[name].time_limit if name in asked else 0.0
        if limit is None:
            return None
        tries = told[name].retries + 1
        span = limit * tries + told[name].retry_delay * (tries - 1)
        ends[name] = max((ends[other] for other in told[name].after), default=0.0) + span
    return max(ends.values())


# ── what is under way ────────────────────────────────────────────────────────────────────────────


async def find(tx: Transaction, ref: str, live: bool = False) -> RunRow:
    """By id; or the latest of a pipeline's, with `live` before all one that has not ended. `NotFound`."""
    wanted = select(RunRow).where((RunRow.id == ref) | (RunRow.pipeline == ref))
    latest = wanted.order_by((RunRow.id == ref).desc(), RunRow.created.desc(), RunRow.id.desc()).limit(200)
    async with tx.look() as db:
        rows = [row for row in await db.scalars(latest) if access.sees(tx.user, row.user, row.project)]
        if not rows:
            known = await db.execute(select(RunRow.id, RunRow.pipeline, RunRow.user, RunRow.project)
                                     .order_by(RunRow.created.desc()).limit(1000))  # fmt: skip
            names = {n for i, p, u, o in known if access.sees(tx.user, u, o) for n in (i, p)}
            raise NotFound(S("There is no run {name}.", name=ref), nearest(ref, names))
    if rows[0].id == ref:
        return rows[0]
    own = [row for row in rows if row.user == tx.user.name] or rows
    return next((row for row in own if live and row.ended is None), own[0])


async def cancel(tx: Transaction, op: CancelPipelineRun) -> Done:
    """Its sessions are stopped, those that wait at once; it has ended when they have."""
    found = await _of(tx, op.run, live=True)
    row = found.row
    if found.state in lifecycle.RUN_ENDED:
        message = S("Run {run} of {pipeline} has ended already ({state}).", run=row.id, pipeline=row.pipeline,
                    state=row.state)  # fmt: skip
        raise Refused(Reason(code="conflict", message=message))
    if found.state is RunState.CANCELLING:
        message = S("Run {run} of {pipeline} is being cancelled already.", run=row.id, pipeline=row.pipeline)
        raise Refused(Reason(code="conflict", message=message))
    lifecycle.move_run(row, RunState.CANCELLING, tx.now)
    said = S("{user} cancels run {run} of {pipeline}.", user=tx.user.name, run=row.id, pipeline=row.pipeline)
    tx.event("run_cancelling", row.pipeline, said, "warning", owner=row.user, project=row.project)
    done = Done(effects=_called_off(tx, found), targets=[row.pipeline, row.id])
    await _stop_all(tx, found, done)
    done.undo = S("undo resumes the run; steps that were stopped begin anew.")
    done.inverse = {"op": "resume_pipeline_run", "run": row.id}
    return done


async def _of(tx: Transaction, ref: str, live: bool = False) -> Run:
    """The run meant, to be changed by its owner or who may act for them."""
    row = await find(tx, ref, live)
    access.must_own(tx.user, row.id, row.user, row.project)
    found = await steps.load(tx, row.id)
    assert found is not None, "it was found in this transaction"
    tx.core.runs.changed()
    return found


def _called_off(tx: Transaction, found: Run) -> list[Effect]:
    row = found.row
    owner = tx.other(row.user)
    waiting = sum(step.state is StepState.WAITING for step in found.steps())
    finished = sum(step.state is StepState.SUCCEEDED for step in found.steps())
    message = S(
        "Run {run} of {pipeline} is cancelled: {finished} of {count} steps have succeeded, {waiting} do not begin.",
        run=row.id,
        pipeline=row.pipeline,
        finished=finished,
        count=len(found.rows),
        waiting=waiting,
    )
    age = S("It was started {age} ago.", age=human_duration((tx.now - row.created).total_seconds()))
    return [
        Effect(kind="changes", target=row.pipeline, message=message, owner=owner),
        Effect(kind="changes", target=row.pipeline, message=age, owner=owner, stable=False),
    ]


async def _stop_all(tx: Transaction, found: Run, done: Done) -> None:
    """What a cancelled run's keeper would do next, done at once, so that the plan shows it."""
    live = tx.ledger.sessions
    sessions_ = {s.id: steps.work(s) for row in found.rows.values() if (s := live.get(row.session or ""))}
    ended = [row for row in found.rows.values() if row.state == StepState.RUNNING and row.session not in live]
    moves = next_moves(found.state, found.row.state_since, found.steps(), sessions_, tx.now)
    known = {row.step for row in ended}
    await steps.carry_out(tx, found, [move for move in moves if getattr(move, "step", None) not in known], done)


async def resume(tx: Transaction, op: ResumePipelineRun) -> Done:
    """On from where it failed or was cancelled; what has succeeded is not run again."""
    found = await _of(tx, op.run)
    row = found.row
    if found.state not in (RunState.FAILED, RunState.CANCELLED):
        message = S("Run {run} of {pipeline} is {state}; only one that failed or was cancelled can be resumed.",
                    run=row.id, pipeline=row.pipeline, state=row.state)  # fmt: skip
        raise Refused(Reason(code="conflict", message=message))
    steps.active(tx, row.user)
    lifecycle.move_run(row, RunState.RUNNING, tx.now)
    row.reasons = []
    again = _again(tx, found)
    said = S("{user} resumes run {run} of {pipeline}.", user=tx.user.name, run=row.id, pipeline=row.pipeline)
    tx.event("run_running", row.pipeline, said, owner=row.user, project=row.project)
    done = Done(effects=[_resumed(tx, found, again)], targets=[row.pipeline, row.id])
    await _begin(tx, found, done)
    done.undo = S("undo cancels the run again.")
    done.inverse = {"op": "cancel_pipeline_run", "run": row.id}
    return done


def _again(tx: Transaction, found: Run) -> list[str]:
    """Everything that did not succeed waits again."""
    names = []
    for step in found.steps():
        if step.lets_go_on or step.state is StepState.WAITING:
            continue
        part = found.rows[step.name]
        lifecycle.move_step(part, StepState.WAITING, tx.now)
        part.tries, part.session, part.reasons = 0, None, []
        names.append(step.name)
    return names


def _resumed(tx: Transaction, found: Run, again: Sequence[str]) -> Effect:
    row = found.row
    message = S(
        "Run {run} of {pipeline} goes on with {steps}; {kept} steps that have succeeded are not run again.",
        run=row.id,
        pipeline=row.pipeline,
        steps=listed(again, MOST_TOLD),
        kept=len(found.rows) - len(again),
    )
    owner = tx.other(row.user)
    return Effect(kind="changes", target=row.pipeline, message=message, owner=owner)
