"""Starting and stopping sessions."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field

from cluster.models import Operation, Outcome, Resources, S, Sentence, SessionType, StartSession, TerminateSessions
from cluster.units import parse_duration, parse_size
from tools.base import Arguments, Context, OperationTool, Risk
from tools.kinds import (
    Amount,
    Duration,
    FolderName,
    GpuModel,
    GroupName,
    ImageName,
    LiveSessionName,
    NewName,
    ProjectName,
    SessionKind,
    SessionName,
    Size,
    Text,
    When,
)
from tools.per_node import InTotal
from tools.show import WAITING, amounts, listed, nodes_of, plural, state_word


class StartSessionArguments(InTotal):
    image: ImageName | None = Field(None, description="A container image; left out for a plain command on a node.")
    name: NewName | None = None
    type: SessionKind | None = Field(None, description="interactive when left out; batch for a command that ends.")
    command: Text | None = Field(None, description="A shell command line, exactly as it was said.")
    cpu: Amount | None = Field(None, description="Cores, over all nodes.")
    memory: Size | None = Field(None, description='Over all nodes: "64g", "512m".')
    gpu: Amount | None = Field(None, description="Devices over all nodes; may be a fraction of one.")
    cpu_per_node: Amount | None = None
    memory_per_node: Size | None = None
    gpu_per_node: Amount | None = None
    gpu_model: GpuModel | None = None
    node_count: int | None = Field(None, ge=1, le=10_000)
    resource_group: GroupName | None = Field(None, description="Queue, partition or pool.")
    project: ProjectName | None = None
    mounts: list[FolderName] | None = Field(None, description="Folders to mount.")
    env: dict[str, str] | None = None
    priority: int | None = Field(None, ge=0, le=100)
    time_limit: Duration | None = Field(None, description='"90m", "12h", "3d"')
    depends_on: list[SessionName] | None = Field(None, description="Starts when these have ended well.")
    start_at: When | None = Field(None, description="ISO 8601, or as said: tomorrow 09:00, +30m.")


class StartSessionTool(OperationTool[StartSessionArguments]):
    """Start a session: a command or an image, on one or more nodes, with the CPUs, memory and GPUs asked for."""

    name = "start_session"
    risk = Risk.W
    arguments = StartSessionArguments
    rows_of = "session"

    def wants(self, ctx: Context, given: Mapping[str, Any]) -> str | None:
        """Something to run: a command, or an image where there are images."""
        if given.get("command") or given.get("image"):
            return None
        return "image" if ctx.names.images else "command"

    def operation(self, ctx: Context, args: StartSessionArguments) -> Operation:
        said = args.model_dump(exclude_none=True)
        return StartSession.model_validate(
            said
            | {"workdir": ctx.workdir, "type": self._type(args)}
            | ({"memory": parse_size(args.memory)} if args.memory else {})
            | ({"time_limit": parse_duration(args.time_limit)} if args.time_limit else {})
            | ({"start_at": datetime.fromisoformat(args.start_at)} if args.start_at else {})
        )

    def _type(self, args: StartSessionArguments) -> SessionType:
        """As asked for; a bare command runs to its end, so it is a batch session."""
        if args.type:
            return SessionType(args.type)
        return SessionType.BATCH if args.command and not args.image else SessionType.INTERACTIVE

    def title(self, ctx: Context, args: StartSessionArguments, outcome: Outcome) -> Sentence:
        made = outcome.session
        name = (made.name if made else args.name) or ctx.say(S("a session"))
        held = amounts(ctx, made.resources if made else Resources(cpu=args.cpu or 0, gpu=args.gpu or 0))
        where = S("Start {name} on {nodes} nodes: {amounts}", name=name, nodes=args.node_count or 1, amounts=held)
        return where if (args.node_count or 1) > 1 else S("Start {name}: {amounts}", name=name, amounts=held)

    def done(self, ctx: Context, args: StartSessionArguments, outcome: Outcome) -> Sentence:
        made = outcome.session
        if made is None:
            return S("The session was started.")
        if made.state in WAITING:
            return S("{name} is queued ({state}).", name=made.name, state=state_word(ctx, made.state))
        where = nodes_of(made)
        started = S(
            "{name} starts on {node}: {amounts}.", name=made.name, node=where, amounts=amounts(ctx, made.resources)
        )
        return started if made.allocations else S("{name} was started.", name=made.name)


class TerminateSessionsArguments(Arguments):
    sessions: list[LiveSessionName] = Field(min_length=1, max_length=1000)
    force: bool | None = Field(None, description="Kill at once instead of asking the process to end.")


class TerminateSessionsTool(OperationTool[TerminateSessionsArguments]):
    """Stop (kill, cancel) sessions, waiting or running. Work that was not saved is lost."""

    name = "terminate_sessions"
    risk = Risk.D
    arguments = TerminateSessionsArguments
    rows_of = "session"

    def operation(self, ctx: Context, args: TerminateSessionsArguments) -> Operation:
        return TerminateSessions(sessions=args.sessions, force=bool(args.force))

    def title(self, ctx: Context, args: TerminateSessionsArguments, outcome: Outcome) -> Sentence:
        names = listed(args.sessions)
        count = len(args.sessions)
        return plural(
            count, S("Stop {names}", names=names), S("Stop {count} sessions: {names}", count=count, names=names)
        )

    def done(self, ctx: Context, args: TerminateSessionsArguments, outcome: Outcome) -> Sentence:
        names = listed(args.sessions)
        count = len(args.sessions)
        return plural(
            count,
            S("{names} was stopped.", names=names),
            S("{count} sessions were stopped: {names}.", count=count, names=names),
        )
