"""Checks of what is served, of pipelines and of folders."""

from collections.abc import Iterator

from cluster.diagnosis.seen import Seen, Severity, finding, look
from cluster.models import (
    Endpoint,
    EndpointHealth,
    EndpointState,
    Finding,
    Folder,
    PipelineRun,
    Proposal,
    ReplicaPhase,
    RunState,
    Sentence,
    StepState,
)
from cluster.sentence import S
from cluster.units import human_size

SICK = (ReplicaPhase.UNHEALTHY, ReplicaPhase.AWAY)
NEARLY = 0.9
"""Share of a folder's quota from which on it is said."""


def endpoints(seen: Seen) -> Iterator[Finding]:
    """Nobody answers, or fewer than should; an update that was given up; errors that people get."""
    for at in seen.endpoints:
        if at.state is not EndpointState.ACTIVE:
            continue
        sick = next((r for r in at.replicas if r.phase in SICK), None)
        call = look("get_session_logs", session=sick.name) if sick else look("get_endpoint", endpoint=at.name)
        if at.wanted and not at.traffic.reachable and at.health is not EndpointHealth.STARTING:
            why = at.traffic.reason or S("Its replicas are not there yet.")
            message = S("{endpoint} can't be reached.", endpoint=at.name)
            yield _endpoint(at, "endpoint_unreachable", "error", message, call, why)
        elif at.health is EndpointHealth.DEGRADED:
            healthy = sum(r.phase is ReplicaPhase.HEALTHY for r in at.replicas)
            message = S(
                "{endpoint} has {healthy} of {wanted} healthy replicas.",
                endpoint=at.name,
                healthy=healthy,
                wanted=at.wanted,
            )
            yield _endpoint(at, "endpoint_degraded", "warning", message, call)
        if at.reasons:
            yield _endpoint(at, "endpoint_trouble", "warning", at.reasons[0].message, call)
        if (errors := at.metrics.errors_per_second or 0) > 0:
            message = S(
                "{endpoint} answers {errors} requests a second with an error.",
                endpoint=at.name,
                errors=round(errors, 2),
            )
            yield _endpoint(at, "endpoint_errors", "warning", message, call)


def _endpoint(
    at: Endpoint,
    code: str,
    severity: Severity,
    message: Sentence,
    call: Proposal,
    advice: Sentence | None = None,
) -> Finding:
    evidence: dict[str, str | int | float] = {"wanted": at.wanted, "serving": at.traffic.replicas}
    return finding(at, code, severity, message, evidence, advice=advice, proposal=call)


def runs(seen: Seen) -> Iterator[Finding]:
    """A pipeline whose latest run failed; resuming it goes on from the step that failed."""
    for run in seen.runs:
        if run.state is not RunState.FAILED:
            continue
        yield Finding(
            code="run_failed",
            severity="error",
            kind="pipeline",
            target=run.pipeline,
            owner=run.user,
            message=S("Run {run} of {pipeline} failed{step}.", run=run.id, pipeline=run.pipeline, step=_at_step(run)),
            advice=run.reasons[0].message if run.reasons else None,
            evidence={"run": run.id},
            proposal=look("resume_pipeline_run", run=run.id),
        )


def _at_step(run: PipelineRun) -> str:
    step = next((s.name for s in run.steps if s.state is StepState.FAILED), None)
    return f" ({step})" if step else ""


def folders(seen: Seen) -> Iterator[Finding]:
    """Near its quota, over it, or not to be used because copying it failed."""
    for folder in seen.folders:
        if folder.trashed:
            continue
        if folder.state == "failed":
            message = S("{folder} could not be copied.", folder=folder.name)
            why = folder.reasons[0].message if folder.reasons else None
            call = look("delete_folder", folder=_ref(seen, folder))
            yield _folder(folder, "folder_failed", "warning", message, call, why)
        elif nearly_full(folder):
            yield _full(seen, folder)


def nearly_full(folder: Folder) -> bool:
    return folder.quota is not None and folder.size >= NEARLY * folder.quota


def _full(seen: Seen, folder: Folder) -> Finding:
    quota = folder.quota or 0
    words = {"folder": folder.name, "size": human_size(folder.size), "quota": human_size(quota)}
    if folder.size >= quota:
        message = S("{folder} is full: {size} of {quota}.", **words)
        return _folder(folder, "folder_full", "error", message, larger(seen, folder))
    message = S("{folder} is nearly full: {size} of {quota}.", **words)
    return _folder(folder, "folder_nearly_full", "warning", message, larger(seen, folder))


def larger(seen: Seen, folder: Folder) -> Proposal:
    """A quarter more quota, in whole units."""
    quota, unit = folder.quota or 0, 2**40 if (folder.quota or 0) >= 4 * 2**40 else 2**30
    wanted = f"{-(-int(1.25 * quota) // unit)}{'t' if unit == 2**40 else 'g'}"
    return look("set_folder_quota", folder=_ref(seen, folder), quota=wanted)


def _ref(seen: Seen, folder: Folder) -> str:
    """Its name, where only one here has it; else with its project."""
    alike = sum(other.name == folder.name for other in seen.folders)
    return folder.name if alike <= 1 else f"{folder.project}/{folder.name}"


def _folder(
    folder: Folder,
    code: str,
    severity: Severity,
    message: Sentence,
    call: Proposal,
    advice: Sentence | None = None,
) -> Finding:
    evidence: dict[str, str | int | float] = {"size": folder.size, "quota": folder.quota or 0}
    return finding(folder, code, severity, message, evidence, advice=advice, proposal=call)
