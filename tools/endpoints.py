"""Endpoints: models that are served. Deploying, listing, looking at one, scaling, deleting."""

from pydantic import Field, JsonValue

from cluster.models import (
    DeleteEndpoint,
    DeployModel,
    Endpoint,
    EndpointHealth,
    EndpointState,
    Operation,
    Outcome,
    Page,
    Replica,
    ReplicaPhase,
    S,
    ScaleEndpoint,
    Sentence,
)
from cluster.sentence import Param
from tools.base import Arguments, Context, OperationTool, ReadingTool, Result, Risk
from tools.kinds import Amount, EndpointName, GpuModel, GroupName, ModelName, NewName, ProjectName
from tools.linking.numbers import number
from tools.show import SHOWN, ago, facts, gpus, listed, moment, percent, plural, table, told
from tools.views import Cell, Tone

HEALTH: dict[EndpointHealth, Sentence] = {
    EndpointHealth.STOPPED: S("stopped"),
    EndpointHealth.STARTING: S("starting"),
    EndpointHealth.HEALTHY: S("healthy"),
    EndpointHealth.DEGRADED: S("degraded"),
    EndpointHealth.UNHEALTHY: S("unhealthy"),
}
LIFE: dict[EndpointState, Sentence] = {
    EndpointState.ACTIVE: S("active"),
    EndpointState.DELETING: S("being deleted"),
    EndpointState.DELETED: S("deleted"),
}
PHASES: dict[ReplicaPhase, Sentence] = {
    ReplicaPhase.WAITING: S("waits for room"),
    ReplicaPhase.PREPARING: S("being set up"),
    ReplicaPhase.STARTING: S("starting"),
    ReplicaPhase.HEALTHY: S("healthy"),
    ReplicaPhase.UNHEALTHY: S("unhealthy"),
    ReplicaPhase.AWAY: S("node lost"),
    ReplicaPhase.DRAINING: S("being emptied"),
    ReplicaPhase.STOPPING: S("being stopped"),
}
_TONES: dict[EndpointHealth, Tone] = {
    EndpointHealth.STOPPED: "muted",
    EndpointHealth.STARTING: "warn",
    EndpointHealth.HEALTHY: "good",
    EndpointHealth.DEGRADED: "warn",
    EndpointHealth.UNHEALTHY: "bad",
}


# ── looking ──────────────────────────────────────────────────────────────────────────────────────


class ListEndpointsArguments(Arguments):
    project: ProjectName | None = None


class ListEndpoints(ReadingTool[ListEndpointsArguments]):
    """List endpoints (served models): whether they can be reached, their replicas, requests and latency."""

    name = "list_endpoints"
    arguments = ListEndpointsArguments
    rows_of = "endpoint"

    async def read(self, ctx: Context, args: ListEndpointsArguments) -> Result:
        page = await ctx.client.endpoints(project=args.project, limit=100)
        answer = ctx.say(_summary(page))
        columns = [S("Endpoint"), S("Model"), S("Project"), S("Health"), S("Reached"), S("Replicas"), S("Requests/s"),
                   S("p95 latency")]  # fmt: skip
        return Result(
            status="done",
            data={"total": page.total, "endpoints": [_brief(e) for e in page.items[:SHOWN]]},
            view=table(ctx, answer, columns, [_row(ctx, e) for e in page.items], total=page.total, right=(5, 6, 7)),
            answer=answer,
            rows=[e.name for e in page.items],
            rows_of="endpoint",
        )


def _summary(page: Page[Endpoint]) -> Sentence:
    if not page.items:
        return S("There is no endpoint.")
    out = [e.name for e in page.items if not e.traffic.reachable]
    if not out:
        return plural(
            page.total,
            S("1 endpoint; it can be reached."),
            S("{count} endpoints; all of them can be reached.", count=page.total),
        )
    return plural(
        page.total,
        S("1 endpoint; it can't be reached: {names}.", names=listed(out)),
        S("{count} endpoints; {out} can't be reached: {names}.", count=page.total, out=len(out), names=listed(out)),
    )


def _brief(e: Endpoint) -> dict[str, JsonValue]:
    return {
        "name": e.name,
        "model": e.model,
        "project": e.project,
        "state": e.state.value,
        "health": e.health.value,
        "reachable": e.traffic.reachable,
        "replicas": f"{e.traffic.replicas}/{e.wanted}",
        "requests_per_second": _rounded(e.metrics.requests_per_second),
        "latency_p95": _rounded(e.metrics.latency_p95),
    }


def _row(ctx: Context, e: Endpoint) -> list[Cell | str]:
    reached = S("yes") if e.traffic.reachable else S("no")
    return [
        e.name,
        e.model,
        e.project,
        _health_cell(ctx, e),
        Cell(text=ctx.say(reached), tone="good" if e.traffic.reachable else "bad"),
        f"{e.traffic.replicas}/{e.wanted}",
        _figure(e.metrics.requests_per_second),
        _latency(ctx, e.metrics.latency_p95),
    ]


def _health_cell(ctx: Context, e: Endpoint) -> Cell:
    if e.state is not EndpointState.ACTIVE:
        return Cell(text=ctx.say(LIFE[e.state]), tone="muted")
    return Cell(text=ctx.say(HEALTH[e.health]), tone=_TONES[e.health])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _figure(value: float | None) -> str:
    """Three digits are enough; a dash where nothing was measured."""
    return "–" if value is None else f"{value:.3g}"


def _latency(ctx: Context, seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 1:
        return ctx.say(S("{milliseconds} ms", milliseconds=f"{1000 * seconds:.0f}"))
    return ctx.say(S("{seconds} s", seconds=f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}"))


class GetEndpointArguments(Arguments):
    endpoint: EndpointName


class GetEndpoint(ReadingTool[GetEndpointArguments]):
    """Show one endpoint: whether it can be reached and why not, the health of its replicas, where it is, its load."""

    name = "get_endpoint"
    arguments = GetEndpointArguments
    rows_of = "endpoint"

    async def read(self, ctx: Context, args: GetEndpointArguments) -> Result:
        e = await ctx.client.endpoint(args.endpoint)
        answer = ctx.say(_told(ctx, e))
        replicas: list[JsonValue] = [_replica_data(r) for r in e.replicas[:SHOWN]]
        reasons: list[JsonValue] = [told(ctx, r.message) for r in e.reasons]
        why = told(ctx, e.traffic.reason) if e.traffic.reason else None
        return Result(
            status="done",
            data={**_brief(e), "url": e.url, "why_not_reachable": why, "replica_list": replicas, "reasons": reasons},
            view=facts(ctx, answer, _lines(ctx, e)),
            answer=answer,
            rows=[e.name],
            rows_of="endpoint",
        )


def _told(ctx: Context, e: Endpoint) -> Sentence:
    if not e.traffic.reachable:
        why = told(ctx, e.traffic.reason) if e.traffic.reason else ""
        return S("{name} can't be reached. {why}", name=e.name, why=why)
    words: dict[str, Param] = {"name": e.name, "model": e.model, "count": e.traffic.replicas, "wanted": e.wanted}
    if e.former is not None:
        return S("{name} answers, and is being moved to {model}: {count} of {wanted} replicas take requests.", **words)
    return S("{name} answers with {model}: {count} of {wanted} replicas take requests.", **words)


def _lines(ctx: Context, e: Endpoint) -> list[tuple[Sentence, Cell | str | None]]:
    revision = f"{e.former} → {e.revision}" if e.former is not None else str(e.revision)
    size = ctx.say(gpus(e.gpu)) if e.gpu else None
    lines: list[tuple[Sentence, Cell | str | None]] = [
        (S("Life cycle"), ctx.say(LIFE[e.state])),
        (S("Health"), Cell(text=ctx.say(HEALTH[e.health]), tone=_TONES[e.health])),
        (S("Address"), e.url),
        (S("Model"), e.model),
        (S("Revision"), revision),
        (S("Project"), e.project),
        (S("Owner"), e.owner),
        (S("Each replica"), f"{size} {e.gpu_model or ''}".strip() if size else None),
        (S("Requests/s"), _figure(e.metrics.requests_per_second)),
        (S("p95 latency"), _latency(ctx, e.metrics.latency_p95)),
        (S("In flight, waiting"), f"{e.metrics.in_flight}, {e.metrics.queue_depth}"),
        (S("GPU use"), percent(e.metrics.gpu_utilization) if e.gpu else None),
        (S("Autoscaling"), _autoscaling(ctx, e)),
    ]
    lines += [(Sentence(text="{name}", params={"name": r.name}), _replica(ctx, r)) for r in e.replicas[:SHOWN]]
    lines += [(S("Note"), Cell(text=told(ctx, reason.message), tone="bad")) for reason in e.reasons]
    lines += [(S("Decided"), f"{moment(ctx, d.at)}: {told(ctx, d.reason)}") for d in e.decisions[:3]]
    return lines


def _autoscaling(ctx: Context, e: Endpoint) -> str | None:
    policy = e.autoscaling
    if policy is None:
        return None
    words: dict[str, Param] = {"metric": policy.metric, "target": number(policy.target), "least": policy.min_replicas,
             "most": policy.max_replicas}  # fmt: skip
    return ctx.say(S("{least} to {most} replicas, {metric} at {target}", **words))


def _replica(ctx: Context, r: Replica) -> Cell:
    tone: Tone = "good" if r.phase is ReplicaPhase.HEALTHY else "warn"
    parts = [ctx.say(PHASES[r.phase]), r.node or "", f"r{r.revision}", ago(ctx, r.since) if r.since else ""]
    why = [told(ctx, reason.message) for reason in r.reasons[:1]]
    return Cell(text=", ".join(part for part in [*parts, *why] if part), tone=tone)


def _replica_data(r: Replica) -> dict[str, JsonValue]:
    return {"name": r.name, "phase": r.phase.value, "node": r.node, "revision": r.revision, "in_flight": r.in_flight}


# ── changing ─────────────────────────────────────────────────────────────────────────────────────


class DeployModelArguments(Arguments):
    model: ModelName
    name: NewName | None = Field(None, description="Of the endpoint; an existing one is updated, replica by replica.")
    replicas: int | None = Field(None, ge=0, le=1000)
    gpu: Amount | None = Field(None, description="Devices of one replica.")
    gpu_model: GpuModel | None = None
    runtime: NewName | None = Field(None, description="vllm, transformers, command.")
    project: ProjectName | None = None
    resource_group: GroupName | None = None


class DeployModelTool(OperationTool[DeployModelArguments]):
    """Deploy (serve) a model as an endpoint; onto an existing endpoint it is a rolling update to that model."""

    name = "deploy_model"
    risk = Risk.W
    arguments = DeployModelArguments
    rows_of = "endpoint"

    def operation(self, ctx: Context, args: DeployModelArguments) -> Operation:
        return DeployModel.model_validate(args.given())

    def title(self, ctx: Context, args: DeployModelArguments, outcome: Outcome) -> Sentence:
        name = _deployed(args, outcome)
        if name in ctx.names.endpoints:
            return S("Move the endpoint {name} to the model {model}", name=name, model=args.model)
        count = 1 if args.replicas is None else args.replicas
        words: dict[str, Param] = {"model": args.model, "name": name, "count": count}
        return plural(
            count,
            S("Deploy {model} as {name}, with 1 replica", **words),
            S("Deploy {model} as {name}, with {count} replicas", **words),
        )

    def done(self, ctx: Context, args: DeployModelArguments, outcome: Outcome) -> Sentence:
        name = _deployed(args, outcome)
        if any(e.kind == "changes" for e in outcome.effects if e.target == name):
            return S("{name} is being moved to {model}.", name=name, model=args.model)
        return S(
            "{model} is being deployed as {name}; it can be reached when a replica is ready.",
            model=args.model,
            name=name,
        )


def _deployed(args: DeployModelArguments, outcome: Outcome) -> str:
    """The endpoint's name, which may have been made from the model's."""
    made = [e.target for e in outcome.effects if e.kind in ("creates", "changes") and e.target]
    return made[0] if made else args.name or args.model


class ScaleEndpointArguments(Arguments):
    endpoint: EndpointName
    replicas: int = Field(ge=0, le=1000)


class ScaleEndpointTool(OperationTool[ScaleEndpointArguments]):
    """Change how many replicas an endpoint has."""

    name = "scale_endpoint"
    risk = Risk.W
    arguments = ScaleEndpointArguments
    rows_of = "endpoint"

    def operation(self, ctx: Context, args: ScaleEndpointArguments) -> Operation:
        return ScaleEndpoint(endpoint=args.endpoint, replicas=args.replicas)

    def title(self, ctx: Context, args: ScaleEndpointArguments, outcome: Outcome) -> Sentence:
        words: dict[str, Param] = {"name": args.endpoint, "count": args.replicas}
        return plural(
            args.replicas,
            S("Scale the endpoint {name} to 1 replica", **words),
            S("Scale the endpoint {name} to {count} replicas", **words),
        )

    def done(self, ctx: Context, args: ScaleEndpointArguments, outcome: Outcome) -> Sentence:
        words: dict[str, Param] = {"name": args.endpoint, "count": args.replicas}
        return plural(
            args.replicas,
            S("{name} is being scaled to 1 replica.", **words),
            S("{name} is being scaled to {count} replicas.", **words),
        )


class DeleteEndpointArguments(Arguments):
    endpoint: EndpointName


class DeleteEndpointTool(OperationTool[DeleteEndpointArguments]):
    """Delete an endpoint: it takes no more requests, answers those it has, and its replicas are stopped."""

    name = "delete_endpoint"
    risk = Risk.D
    arguments = DeleteEndpointArguments
    rows_of = "endpoint"

    def operation(self, ctx: Context, args: DeleteEndpointArguments) -> Operation:
        return DeleteEndpoint(endpoint=args.endpoint)

    def title(self, ctx: Context, args: DeleteEndpointArguments, outcome: Outcome) -> Sentence:
        return S("Delete the endpoint {name}", name=args.endpoint)

    def done(self, ctx: Context, args: DeleteEndpointArguments, outcome: Outcome) -> Sentence:
        return S("The endpoint {name} takes no more requests and is being deleted.", name=args.endpoint)
