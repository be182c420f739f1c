"""A scenario's endpoints: their replicas are sessions of the scenario called `<endpoint>-<n>`, or are made here."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta

from cluster.db import tables
from cluster.lifecycle import LIVE, WAITING
from cluster.models import EndpointState, Launch, SessionState, SessionType
from cluster.serving.health import PLAYED_SICK
from cluster.serving.steps import FIRST_PORT
from cluster.simulator.scenario import EndpointSpec, Scenario, SessionSpec

COMMAND = 'vllm serve "$MODEL_PATH" --served-model-name "$MODEL_NAME" --port "$PORT"'
AGE = timedelta(days=-7)
"""An endpoint is so old, when no replica is older."""
MEASURED = ("requests_per_second", "latency_p95", "queue_depth", "gpu_utilization")


def complete(scenario: Scenario, member: Callable[[Scenario, str | None], str]) -> None:
    """Owner and project of each endpoint, and the sessions of replicas that the file does not name. `member`: somebody
    of a project."""
    for endpoint in scenario.endpoints:
        mine = replicas(scenario, endpoint)
        first = mine[0] if mine else None
        known = [project.name for project in scenario.projects]
        endpoint.project = endpoint.project or (first.project if first else None) or known[0]
        endpoint.user = endpoint.user or (first.user if first else None) or member(scenario, endpoint.project)
        taken = {session.name for session in scenario.sessions}
        free = (name for n in range(1, 10_000) if (name := f"{endpoint.name}-{n}") not in taken)
        scenario.sessions += [_made(endpoint, next(free)) for _ in range(endpoint.replicas - len(mine))]
        _fall_sick(endpoint, replicas(scenario, endpoint))


def replicas(scenario: Scenario, endpoint: EndpointSpec) -> list[SessionSpec]:
    """The sessions that serve it."""
    called = re.compile(re.escape(endpoint.name) + r"-\d+")
    return [
        session
        for session in scenario.sessions
        if session.type is SessionType.INFERENCE and session.status in LIVE and called.fullmatch(session.name)
    ]


def _made(endpoint: EndpointSpec, name: str) -> SessionSpec:
    made = SessionSpec(
        name=name,
        user=endpoint.user or "",
        project=endpoint.project,
        type=SessionType.INFERENCE,
        command=COMMAND,
        gpu=endpoint.gpu,
        gpu_model=endpoint.gpu_model,
        resource_group=endpoint.resource_group,
        status=SessionState.RUNNING,
        started=AGE,
        gpu_utilization=endpoint.gpu_utilization if endpoint.gpu else None,
    )
    made.if_there_is_room = True
    return made.placed(endpoint.at)


def _fall_sick(endpoint: EndpointSpec, mine: list[SessionSpec]) -> None:
    """As many replicas as the file's `health` needs."""
    count = {"unhealthy": len(mine), "degraded": 1}.get(endpoint.health or "", 0)
    for session in mine[:count]:
        session.env = {**session.env, PLAYED_SICK: "1"}


def rows(scenario: Scenario) -> Iterator[tables.Base]:
    """Endpoints with their first revision; the sessions are there already."""
    for number, endpoint in enumerate(scenario.endpoints, 1):
        mine = replicas(scenario, endpoint)
        created = min((scenario.when(s.started or s.submitted or AGE) for s in mine), default=scenario.when(AGE))
        deleting = endpoint.status == EndpointState.DELETING
        yield tables.EndpointRow(
            id=number,
            name=endpoint.name,
            project=endpoint.project,
            owner=endpoint.user,
            resource_group=endpoint.resource_group or (mine[0].resource_group if mine else None),
            replicas=endpoint.replicas,
            revision=1,
            state=(EndpointState.DELETING if deleting else EndpointState.ACTIVE).value,
            state_since=scenario.now if deleting else created,
            reasons=[],
            failures=0,
            measured={name: value for name in MEASURED if (value := getattr(endpoint, name)) is not None},
            created=created,
        )


def more_rows(scenario: Scenario) -> Iterator[tables.Base]:
    """What belongs to the endpoints: revisions and replicas."""
    port = FIRST_PORT
    for number, endpoint in enumerate(scenario.endpoints, 1):
        mine = replicas(scenario, endpoint)
        launch = _launch(endpoint, mine).model_dump(mode="json")
        created = scenario.when(AGE)
        yield tables.RevisionRow(endpoint=number, revision=1, model=endpoint.model, launch=launch, created=created)
        for session in mine:
            yield tables.ReplicaRow(session=session.id, endpoint=number, revision=1, port=port)
            port += 1


def _launch(endpoint: EndpointSpec, mine: list[SessionSpec]) -> Launch:
    """What one more replica would run: the same as those that are there."""
    like = next((session for session in mine if session.status not in WAITING), mine[0] if mine else None)
    return Launch(
        command=(like.command if like else None) or COMMAND,
        image=like.image if like else None,
        cpu=(like.cpu if like else None) or 1,
        memory=like.memory if like else None,
        gpu=endpoint.gpu,
        gpu_model=endpoint.gpu_model,
    )
