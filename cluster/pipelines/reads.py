"""What can be asked of pipelines and their runs."""

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from cluster import access
from cluster.db.tables import PipelineRow, RunRow, StepRow
from cluster.models import Page, Pipeline, PipelineRun, PipelineSpec, Reason, RunState, RunStep, User
from cluster.operations import pipelines
from cluster.transaction import Transaction

if TYPE_CHECKING:
    from cluster.core import Core

MOST_NAMES = 200
"""Of runs, for linking: the latest."""


class PipelineQuery(BaseModel):
    """Filters of GET /v1/pipelines."""

    model_config = ConfigDict(extra="forbid")

    project: str | None = None
    limit: int = Field(default=50, ge=1, le=1000)


class RunQuery(BaseModel):
    """Filters of GET /v1/pipeline-runs."""

    model_config = ConfigDict(extra="forbid")

    pipeline: str | None = None
    project: str | None = None
    user: str | None = None
    state: RunState | None = None
    limit: int = Field(default=50, ge=1, le=1000)


class Pipelines:
    """One method for each reading route, filtered by what the asking person may see."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    async def pipelines(self, user: User, query: PipelineQuery) -> Page[Pipeline]:
        """By name, each with its latest run."""
        async with self._core.db.read() as db:
            every = await db.scalars(select(PipelineRow).order_by(PipelineRow.name, PipelineRow.project))
            rows = [row for row in every if access.sees(user, row.owner, row.project)]
            rows = [row for row in rows if query.project in (None, row.project)]
            found = [await _pipeline(db, user, row) for row in rows[: query.limit]]
        return Page(items=found, total=len(rows))

    async def pipeline(self, user: User, ref: str, project: str | None) -> Pipeline:
        """With its whole definition."""
        async with self._core.db.read() as db:
            row = await pipelines.pipeline(self._tx(user, db), ref, project)
            found = await _pipeline(db, user, row)
        found.spec = PipelineSpec.model_validate(row.spec)
        return found

    async def runs(self, user: User, query: RunQuery) -> Page[PipelineRun]:
        """The latest first, without their steps."""
        wanted = {"pipeline": query.pipeline, "project": query.project, "user": query.user, "state": query.state}
        clauses = [getattr(RunRow, name) == value for name, value in wanted.items() if value is not None]
        rows = select(RunRow).where(_seen_by(user), *clauses)
        async with self._core.db.read() as db:
            total = await db.scalar(select(func.count()).select_from(rows.subquery())) or 0
            latest = await db.scalars(rows.order_by(RunRow.created.desc(), RunRow.id.desc()).limit(query.limit))
            return Page(items=[_run(row) for row in latest], total=total)

    async def run(self, user: User, ref: str) -> PipelineRun:
        """By id, or the latest of a pipeline's; with its steps."""
        async with self._core.db.read() as db:
            row = await pipelines.find(self._tx(user, db), ref)
            steps = await db.scalars(select(StepRow).where(StepRow.run == row.id).order_by(StepRow.place))
            return _run(row, list(steps))

    async def names(self, user: User) -> tuple[list[str], dict[str, str]]:
        """Of pipelines; and of the latest runs, id -> pipeline."""
        async with self._core.db.read() as db:
            rows = await db.execute(select(PipelineRow.name, PipelineRow.owner, PipelineRow.project))
            named = sorted({name for name, owner, project in rows if access.sees(user, owner, project)})
            latest = select(RunRow.id, RunRow.pipeline).where(_seen_by(user)).order_by(RunRow.created.desc())
            runs = await db.execute(latest.limit(MOST_NAMES))
            return named, dict(runs.all())

    def _tx(self, user: User, db: AsyncSession) -> Transaction:
        return Transaction(self._core, user, self._core.clock.now(), rows=db, dry_run=True)


def _seen_by(user: User) -> ColumnElement[bool]:
    """As `access.sees`, for rows of runs."""
    if access.is_admin(user):
        return true()
    return or_(RunRow.user == user.name, RunRow.project.in_(user.projects))


async def _pipeline(db: AsyncSession, user: User, row: PipelineRow) -> Pipeline:
    spec = PipelineSpec.model_validate(row.spec)
    latest = select(RunRow).where(RunRow.pipeline == row.name, RunRow.project == row.project, _seen_by(user))
    last = (await db.scalars(latest.order_by(RunRow.created.desc(), RunRow.id.desc()).limit(1))).first()
    return Pipeline(
        name=row.name,
        project=row.project,
        owner=row.owner,
        description=spec.description,
        parameters=spec.parameters,
        steps=[step.name for step in spec.steps],
        created=row.created,
        modified=row.modified,
        last_run=_run(last) if last else None,
    )


def _run(row: RunRow, steps: list[StepRow] | None = None) -> PipelineRun:
    after = {step["name"]: step["after"] for step in row.spec["steps"]}
    return PipelineRun(
        id=row.id,
        pipeline=row.pipeline,
        project=row.project,
        user=row.user,
        state=RunState(row.state),
        since=row.state_since,
        created=row.created,
        ended=row.ended,
        parameters=row.parameters,
        reasons=[Reason.model_validate(reason) for reason in row.reasons],
        steps=[_step(step, after[step.step]) for step in steps or ()],
    )


def _step(row: StepRow, after: list[str]) -> RunStep:
    return RunStep.model_validate(
        {
            "name": row.step,
            "after": after,
            "state": row.state,
            "since": row.state_since,
            "tries": row.tries,
            "session": row.session,
            "reasons": row.reasons,
        }
    )
