"""Letting an endpoint scale itself."""

from typing import Annotated, Literal

from pydantic import Field

from cluster.models import Operation, Outcome, S, Sentence, SetAutoscaling
from tools.base import Arguments, Context, OperationTool, Risk
from tools.kinds import EndpointName

Replicas = Annotated[int, Field(ge=0, le=1000)]


class SetAutoscalingArguments(Arguments):
    endpoint: EndpointName
    metric: Literal["requests_per_second", "latency_p95", "queue_depth", "gpu_utilization"]
    target: Annotated[float, Field(gt=0, le=1_000_000)]
    min_replicas: Replicas
    max_replicas: Annotated[int, Field(ge=1, le=1000)]


class SetAutoscalingTool(OperationTool[SetAutoscalingArguments]):
    """Let an endpoint scale itself by a metric: target is a replica's share of requests a second or of open requests,
    seconds of latency, or the used share of its GPUs."""

    name = "set_autoscaling"
    risk = Risk.W
    arguments = SetAutoscalingArguments
    rows_of = "endpoint"

    def operation(self, ctx: Context, args: SetAutoscalingArguments) -> Operation:
        return SetAutoscaling(
            endpoint=args.endpoint,
            metric=args.metric,
            target=args.target,
            min_replicas=args.min_replicas,
            max_replicas=args.max_replicas,
        )

    def title(self, ctx: Context, args: SetAutoscalingArguments, outcome: Outcome) -> Sentence:
        return S(
            "Let the endpoint {name} scale itself between {least} and {most} replicas",
            name=args.endpoint,
            least=args.min_replicas,
            most=args.max_replicas,
        )

    def done(self, ctx: Context, args: SetAutoscalingArguments, outcome: Outcome) -> Sentence:
        return S(
            "The endpoint {name} scales itself now, between {least} and {most} replicas.",
            name=args.endpoint,
            least=args.min_replicas,
            most=args.max_replicas,
        )
