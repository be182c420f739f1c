"""A scenario's rows: everything that a loaded scenario says, written into an empty database in one transaction."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from cluster.db import tables
from cluster.lifecycle import ENDED, WAITING
from cluster.models import NodeStatus, Reason, SessionState
from cluster.sentence import S, Sentence
from cluster.simulator import pipelines, serving, store
from cluster.simulator.loading import Loaded
from cluster.simulator.node import SimulatedAgent
from cluster.simulator.scenario import Caps, FolderSpec, NodeSpec, SessionSpec
from cluster.simulator.start import ATTEMPT, RUNS

SILENCE = timedelta(hours=3)
"""A node that is lost at the scenario's clock was last heard of so long ago."""


@dataclass(frozen=True, slots=True)
class Seeder:
    """Writes one scenario. `agents` are the simulated nodes, whose measurements it starts with."""

    loaded: Loaded
    agents: dict[str, SimulatedAgent]

    async def write(self, db: AsyncSession) -> None:
        """All rows, in an order that foreign keys allow; flushed, not committed."""
        for rows in (self._places(), self._people(), self._things(), self._sessions(), self._held()):
            db.add_all(rows)
            await db.flush()
        for rows in (
            serving.rows(self.loaded.scenario),
            serving.more_rows(self.loaded.scenario),
            pipelines.rows(self.loaded.scenario),
        ):
            db.add_all(rows)
            await db.flush()
        db.add_all(self._events())
        await db.flush()

    @property
    def now(self) -> datetime:
        return self.loaded.scenario.now

    # ── places and people ────────────────────────────────────────────────────────────────────────

    def _places(self) -> Iterator[tables.Base]:
        scenario = self.loaded.scenario
        for group in scenario.resource_groups:
            yield tables.GroupRow(**group.model_dump())
        for project in scenario.projects:
            yield tables.ProjectRow(name=project.name, description=project.description)
        for user in scenario.users:
            yield tables.UserRow(**user.model_dump(include={"name", "email", "role", "active", "full_name"}))
        for image in scenario.images:
            yield tables.ImageRow(name=image.name, origin=image.registry)
        yield from store.rows(scenario)

    def _people(self) -> Iterator[tables.Base]:
        scenario = self.loaded.scenario
        told = [(project, user.name) for user in scenario.users for project in user.projects]
        used = [(session.project or "", session.user) for session in scenario.sessions]
        for project, user in dict.fromkeys(told + used):
            yield tables.MemberRow(project=project, user=user)
        yield from (tables.QuotaRow(scope=scope, name=name, **caps) for (scope, name), caps in self._caps().items())

    def _caps(self) -> dict[tuple[str, str], dict[str, float | int | None]]:
        """Limits by owner: those of the projects, then those of `quotas` over them."""
        scenario = self.loaded.scenario
        found: dict[tuple[str, str], dict[str, float | int | None]] = {}
        for project in scenario.projects:
            if any(_caps(project).values()):
                found["project", project.name] = _caps(project)
        for quota in scenario.quotas:
            key = ("user", quota.user) if quota.user else ("project", quota.project or "")
            given = {name: cap for name, cap in _caps(quota).items() if cap is not None}
            found[key] = {**dict.fromkeys(Caps.model_fields), **found.get(key, {}), **given}
        return found

    # ── nodes and folders ────────────────────────────────────────────────────────────────────────

    def _things(self) -> Iterator[tables.Base]:
        yield from map(self._node, self.loaded.scenario.nodes)
        yield from map(self._folder, self.loaded.scenario.folders)

    def _node(self, node: NodeSpec) -> tables.NodeRow:
        lost = node.status == NodeStatus.LOST
        sample = self.agents[node.name].sample(self.now)
        measured = sample.model_dump(mode="json", exclude={"devices"})
        return tables.NodeRow(
            name=node.name,
            resource_group=node.resource_group,
            status=node.status.value,
            reason=node.reason,
            lost_from=NodeStatus.ALIVE.value if lost else None,
            cpu=node.cpu,
            memory=node.memory,
            gpu_model=node.gpu_model if node.gpu else None,
            devices=[device.model_dump(mode="json") for device in sample.devices],
            rack=node.rack,
            isolation="simulated",
            sample={} if lost else measured,
            last_beat=self.now - SILENCE if lost else self.now,
        )

    def _folder(self, folder: FolderSpec) -> tables.FolderRow:
        scenario, trashed = self.loaded.scenario, folder.trashed
        since = timedelta(days=-1) if trashed is True else trashed
        modified = scenario.when(folder.modified or timedelta(days=-7))
        created = scenario.when(folder.created) if folder.created else modified - timedelta(days=30)
        return tables.FolderRow(
            name=folder.name,
            project=folder.project,
            owner=folder.owner,
            size=folder.size or 0,
            quota=folder.quota,
            trash_id=f"simulated-{folder.project}-{folder.name}" if since else None,
            trashed_at=scenario.when(since) if since else None,
            created=created,
            modified=modified,
            contents=[{"path": file.path, "size": file.size,
                       "modified": scenario.when(file.modified).isoformat() if file.modified else None}
                      for file in folder.files],
        )  # fmt: skip

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────

    def _sessions(self) -> Iterator[tables.Base]:
        return map(self._session, self.loaded.scenario.sessions)

    def _session(self, session: SessionSpec) -> tables.SessionRow:
        values = session.model_dump(
            mode="json",
            include={"id", "name", "user", "project", "type", "image", "command", "cpu", "memory", "gpu", "gpu_model",
                     "node_count", "resource_group", "priority", "env", "exit_code"},
        )  # fmt: skip
        times = {name: self._when(session, name) for name in ("submitted", "started", "ended", "start_at")}
        waiting = session.status in WAITING
        if session.status not in ENDED:
            times["ended"] = None
        return tables.SessionRow(
            **values,
            **times,
            state=session.status.value,
            state_since=times["ended"] or times["started"] or times["submitted"],
            result=session.result.value if session.result else None,
            mounts=[self._mount(name, session) for name in session.mounts],
            depends_on=[self._id_of(name, session) for name in session.depends_on],
            time_limit=session.time_limit.total_seconds() if session.time_limit else None,
            attempt=0 if waiting else ATTEMPT,
            grace=10,
            reasons=[_told(session.reason).model_dump(mode="json")] if session.reason else [],
            utilization=self._utilization(session),
        )

    def _when(self, session: SessionSpec, name: str) -> datetime | None:
        moment = getattr(session, name)
        return None if moment is None else self.loaded.scenario.when(moment)

    def _mount(self, name: str, session: SessionSpec) -> str:
        """A folder as `project/name`; of the session's project, if that has one of the name."""
        fitting = [folder for folder in self.loaded.scenario.folders if folder.name == name and not folder.trashed]
        projects = [folder.project or "" for folder in fitting] or [session.project or ""]
        return f"{session.project if session.project in projects else projects[0]}/{name}"

    def _id_of(self, ref: str, session: SessionSpec) -> str:
        """The id of a session given by id or name; one's own before others'."""
        others = [each for each in self.loaded.scenario.sessions if each is not session]
        fitting = [each for each in others if ref in (each.id, each.name)]
        return min(fitting, key=lambda each: each.user != session.user).id or ref

    def _utilization(self, session: SessionSpec) -> float | None:
        if session.status != SessionState.RUNNING:
            return None
        pieces = (piece for agent in self.agents.values() for piece in agent.pieces.values())
        lives = [piece.life for piece in pieces if piece.id.session == session.id]
        return lives[0].utilization(self.now) if lives else None

    def _held(self) -> Iterator[tables.Base]:
        for session in self.loaded.scenario.sessions:
            for rank, placement in enumerate(self.loaded.placements.get(session.id or "", ())):
                yield tables.AllocationRow(
                    session=session.id,
                    rank=rank,
                    node=placement.node,
                    cpu=placement.cpu,
                    memory=placement.memory,
                    devices={str(index): share for index, share in placement.devices.items()},
                    state="running" if session.status in RUNS else "placed",
                )

    # ── what happened before ─────────────────────────────────────────────────────────────────────

    def _events(self) -> Iterable[tables.Base]:
        """The past as events, oldest first."""
        events = [*self._session_events(), *self._node_events()]
        return sorted(events, key=lambda event: event.at)

    def _session_events(self) -> Iterator[tables.EventRow]:
        for session in self.loaded.scenario.sessions:
            started, ended = self._when(session, "started"), self._when(session, "ended")
            owner, project = session.user, session.project
            if started:
                said = _went(session.name, "preparing", "running")
                yield _event(started, "session_running", session.name, said, owner=owner, project=project)
            if ended and session.status in ENDED:
                bad = session.result is not None and session.result.value in ("failure", "lost")
                before = "running" if started else "pending"
                said = _went(session.name, before, session.status.value)
                severity = "error" if bad else "info"
                yield _event(
                    ended, f"session_{session.status.value}", session.name, said, severity, owner=owner, project=project
                )

    def _node_events(self) -> Iterator[tables.EventRow]:
        for node in self.loaded.scenario.nodes:
            match node.status:
                case NodeStatus.LOST:
                    said = S("{node} was lost: it does not answer any more.", node=node.name)
                    yield _event(self.now - SILENCE, "node_lost", node.name, said, "error")
                case NodeStatus.CORDONED | NodeStatus.DRAINING:
                    said = S("{node} takes no new work: {reason}", node=node.name, reason=node.reason or "-")
                    yield _event(self.now - timedelta(hours=1), f"node_{node.status.value}", node.name, said, "warning")
                case _:
                    continue


def _caps(caps: Caps) -> dict[str, float | int | None]:
    return {name: getattr(caps, name) for name in Caps.model_fields}


def _told(reason: str) -> Reason:
    """A reason in the scenario's own words."""
    return Reason(code="unavailable", message=Sentence(text="{reason}", params={"reason": reason}))


def _went(name: str, before: str, after: str) -> Sentence:
    return S("{name} went from {before} to {after}.", name=name, before=before, after=after)


def _event(
    at: datetime,
    kind: str,
    target: str,
    said: Sentence,
    severity: str = "info",
    *,
    owner: str | None = None,
    project: str | None = None,
) -> tables.EventRow:
    values = {"at": at, "kind": kind, "severity": severity, "target": target, "message": said.model_dump()}
    return tables.EventRow(**values, owner=owner, project=project)
