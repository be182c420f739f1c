"""A cluster to be played by hand: virtual clock, four people, obedient nodes. For tests."""

from dataclasses import dataclass, field
from datetime import timedelta

from cluster.client import Client
from cluster.clock import VirtualClock
from cluster.core import Core
from cluster.models import Beat, BeatReply, Device, NodeInfo, Resources, WorkId, WorkReport

GIB = 2**30


@dataclass
class HandAgent:
    """An agent that does what a test says."""

    core: Core
    name: str
    running: list[WorkId] = field(default_factory=list)

    async def join(
        self, cpu: float = 8, memory: int = 64 * GIB, gpus: int = 0, model: str | None = None
    ) -> "HandAgent":
        devices = [Device(index=i, model=model or "A100-80G") for i in range(gpus)]
        info = NodeInfo(
            name=self.name,
            capacity=Resources(cpu=cpu, memory=memory, gpu=gpus),
            devices=devices,
            gpu_model=model or ("A100-80G" if gpus else None),
        )
        await self.core.agents.register(info)
        return self

    async def beat(self, *reports: WorkReport) -> BeatReply:
        return await self.core.agents.beat(self.name, Beat(running=self.running, reports=list(reports)))

    async def obey(self) -> BeatReply:
        """Start and stop at once whatever the server orders."""
        reply = await self.beat()
        self.running += [w.id for w in reply.start]
        await self.beat(*[self.report(w.id, "running") for w in reply.start])
        for order in reply.stop:
            await self.exit(order.id, -15)
        return reply

    async def exit(self, work: WorkId, code: int) -> None:
        self.running = [w for w in self.running if w != work]
        await self.beat(self.report(work, "exited", code))

    def report(self, work: WorkId, state: str, code: int | None = None) -> WorkReport:
        return WorkReport.model_validate({"id": work, "state": state, "exit_code": code, "at": self.core.clock.now()})


@dataclass
class Lab:
    """The cluster and its people: boss (admin), ann and bob (project red), eve (project blue)."""

    core: Core
    clock: VirtualClock
    boss: Client
    ann: Client
    bob: Client
    eve: Client
    agents: list[HandAgent] = field(default_factory=list)

    async def node(
        self, name: str, cpu: float = 8, memory: int = 64 * GIB, gpus: int = 0, model: str | None = None
    ) -> HandAgent:
        agent = await HandAgent(self.core, name).join(cpu, memory, gpus, model)
        self.agents.append(agent)
        return agent

    async def later(self, seconds: float, silent: bool = False) -> None:
        """Time goes on, the nodes beat (unless `silent`), and the core looks at what time brings."""
        self.clock.advance(timedelta(seconds=seconds))
        for agent in [] if silent else self.agents:
            await agent.beat()
        await self.core.schedule_pass()
