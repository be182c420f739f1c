"""A step with its run's parameters filled in: the session that it asks for."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from cluster.models import PipelineSpec, PipelineStep, Reason, Scalar, SessionType, StartSession
from cluster.models.pipelines import PLACEHOLDER
from cluster.pipelines import templates
from cluster.pipelines.parameters import text_of, texts
from cluster.sentence import S

T = TypeVar("T")


class Unfilled(Exception):
    """Filled in, the step is none that could be run. `reason` says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason.message))
        self.reason = reason


def plain(spec: PipelineSpec, step: PipelineStep, values: Mapping[str, Scalar]) -> PipelineStep:
    """The step without placeholders, but for its command. `Unfilled` when a value does not fit where it is put."""
    known = texts(values)
    raw = step.model_dump(exclude={"command"})
    raw["env"] = {**spec.env, **step.env}
    try:
        filled = PipelineStep.model_validate({**_filled(raw, known), "command": step.command})
    except ValidationError as e:
        detail = e.errors(include_url=False)[0]
        key, value = str(detail["loc"][0]), text_of(detail["input"])[:40]
        message = S("Step {step}: {key} can't be {value}.", step=step.name, key=key, value=value)
        raise Unfilled(Reason(code="invalid", message=message)) from e
    return filled


def _filled(raw: Any, known: Mapping[str, str]) -> Any:
    if isinstance(raw, str):
        return templates.filled(raw, known) if PLACEHOLDER in raw else raw
    if isinstance(raw, dict):
        return {key: _filled(value, known) for key, value in raw.items()}
    if isinstance(raw, list):
        return [_filled(value, known) for value in raw]
    return raw


def request(run: str, project: str, spec: PipelineSpec, step: PipelineStep, values: Mapping[str, Scalar],
            simulated: bool = False) -> StartSession:  # fmt: skip
    """The session that `step` of this run asks for. `Unfilled` when it can't be run.

    `simulated`: a step without a command gets one, so that it ends by itself.
    """
    filled = plain(spec, step, values)
    command = templates.for_shell(filled.command) if filled.command else None
    told = {templates.variable(name): text for name, text in texts(values).items()}
    ours = {"HELMSMAN_RUN": run, "HELMSMAN_PIPELINE": spec.name, "HELMSMAN_STEP": step.name}
    return StartSession(
        type=SessionType.BATCH,
        image=filled.image,
        command=command or (f"python {step.name}.py" if simulated else None),
        project=project,
        cpu=_number(filled.cpu),
        memory=_number(filled.memory, int),
        gpu=_number(filled.gpu),
        gpu_model=filled.gpu_model,
        node_count=int(filled.node_count),
        resource_group=filled.resource_group,
        priority=filled.priority,
        mounts=filled.mounts,
        env={**filled.env, **told, **ours},
        time_limit=_number(filled.time_limit),
    )


def _number(value: float | str | None, kind: Any = float) -> Any:
    return None if value is None else kind(value)


def left_out(spec: PipelineSpec, step: PipelineStep, values: Mapping[str, Scalar]) -> bool:
    """Its `when` is false. `Unfilled` when it is neither true nor false."""
    when = step.when if isinstance(step.when, bool) else templates.filled(step.when, texts(values)).strip().lower()
    if when not in (True, False, "true", "false"):
        message = S("Step {step}: {key} can't be {value}.", step=step.name, key="when", value=str(when)[:40])
        raise Unfilled(Reason(code="invalid", message=message))
    return when in (False, "false")
