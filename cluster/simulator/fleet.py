"""All simulated agents together, and what happens to them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from cluster.models import Beat, BeatReply
from cluster.simulator.node import HEAT, SimulatedAgent

NOTICED = (timedelta(seconds=31), timedelta(seconds=301))
"""How long after a node fell silent the server looks: it calls it lost, then its sessions."""


class Server(Protocol):
    """The agents' side of the core."""

    async def beat(self, node: str, beat: Beat) -> BeatReply: ...


@dataclass(frozen=True, slots=True, order=True)
class Happening:
    """Something that a fault does, or undoes, at its time. `session` is an id."""

    at: datetime
    kind: str
    node: str = ""
    session: str = ""


@dataclass(slots=True)
class Fleet:
    agents: dict[str, SimulatedAgent]
    happenings: list[Happening] = field(default_factory=list)

    def copy(self) -> "Fleet":
        return Fleet({name: agent.copy() for name, agent in self.agents.items()}, self.happenings[:])

    async def beat(self, server: Server, now: datetime, only: Iterable[str] | None = None) -> bool:
        """One beat of every agent that can speak (or of those named). True when something began or ended."""
        changed = False
        for name in self.agents if only is None else only:
            agent = self.agents[name]
            if agent.silent:
                continue
            beat = agent.compose(now)
            reply = await server.beat(name, beat)
            changed = agent.heard(reply, now) or bool(beat.reports) or changed
        return changed

    @property
    def news(self) -> set[str]:
        """Nodes whose agents have a start or an end to tell."""
        return {name for name, agent in self.agents.items() if agent.news and not agent.silent}

    def happen(self, now: datetime) -> set[str]:
        """Do what is due. Returns the nodes that it happened to."""
        due = [happening for happening in self.happenings if happening.at <= now]
        self.happenings = [happening for happening in self.happenings if happening.at > now]
        for happening in sorted(due):
            self._do(happening)
        everywhere = any(happening.session for happening in due)
        return set(self.agents) if everywhere else {happening.node for happening in due}

    def _do(self, happening: Happening) -> None:
        match happening.kind:
            case "lost":
                self.agents[happening.node].silent = True
                self.happenings += [Happening(happening.at + after, "noticed", happening.node) for after in NOTICED]
            case "recovered":
                self.agents[happening.node].silent = False
            case "hot":
                self.agents[happening.node].heat = HEAT
            case "cool":
                self.agents[happening.node].heat = 0.0
            case "crash":
                for agent in self.agents.values():
                    agent.crash(happening.session, happening.at)

    def next_event(self) -> datetime | None:
        """When something happens by itself next: a session's end or a fault."""
        ends = [end for agent in self.agents.values() if not agent.silent and (end := agent.next_end())]
        return min((*ends, *(happening.at for happening in self.happenings)), default=None)
