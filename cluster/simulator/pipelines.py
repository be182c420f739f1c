"""A scenario's pipelines as rows. A step without a command is given one when it runs, so that it ends by itself."""

from collections.abc import Iterator
from datetime import timedelta

from cluster.db.tables import Base, PipelineRow
from cluster.models import Parameter
from cluster.models import PipelineSpec as Definition
from cluster.models import PipelineStep as Step
from cluster.simulator.complete import member, project_of
from cluster.simulator.scenario import PipelineSpec, Scenario, StepSpec

AGE = timedelta(days=30)
"""So old the pipelines of a scenario are."""


def rows(scenario: Scenario) -> Iterator[Base]:
    """One for each pipeline; it belongs to whom it names, else to somebody of its project."""
    for spec in scenario.pipelines:
        owner = spec.user or member(scenario, spec.project)
        made = scenario.when(-AGE)
        yield PipelineRow(
            name=spec.name,
            project=spec.project or project_of(scenario, owner),
            owner=owner,
            spec=_definition(spec).model_dump(mode="json"),
            created=made,
            modified=made,
        )


def _definition(spec: PipelineSpec) -> Definition:
    parameters = {name: Parameter(default=value) for name, value in spec.parameters.items()}
    return Definition(name=spec.name, parameters=parameters, steps=[_step(step) for step in spec.steps])


def _step(step: StepSpec) -> Step:
    return Step(
        name=step.name,
        after=step.after,
        image=step.image,
        command=step.command,
        cpu=step.cpu or None,
        memory=step.memory or None,
        gpu=step.gpu,
    )
