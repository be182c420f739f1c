"""The agents' side of the core: nodes register, beat, fetch work and report; old attempts and lost nodes are fenced."""

import base64
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from cluster.db.tables import AllocationRow, GroupRow, NodeRow, SessionRow
from cluster.errors import Invalid, NotFound, StorageFull
from cluster.lifecycle import ENDED, HOLDING
from cluster.models import (
    Beat,
    BeatReply,
    LogChunk,
    NodeInfo,
    NodeStatus,
    Reason,
    SessionResult,
    SessionState,
    StopOrder,
    User,
    Work,
    WorkId,
    WorkReport,
)
from cluster.sentence import S
from cluster.transaction import Transaction

if TYPE_CHECKING:
    from cluster.core import Core

INTERVAL = 5.0
"""Seconds within which a beat is due."""
LOST_AFTER = 30.0
"""Seconds of silence after which a node is lost: nothing new is placed on it."""
GIVE_UP_AFTER = 300.0
"""Seconds of silence after which its sessions are lost too. An agent that comes back earlier goes on with them."""
MOST_GAP = 64 * 2**20
"""Bytes of output that may be missing before a chunk."""
RANK_STATES = ("placed", "ordered", "preparing", "running", "exited")
"""Of one rank, in order; a report never leads back. `ordered`: its agent was told, and has not answered yet."""
STARTING = (SessionState.SCHEDULED, SessionState.PREPARING)
AGENT = User(name="agent", role="admin")


class Agency:
    """What the routes under /v1/agents do."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    async def register(self, info: NodeInfo) -> None:
        """A node joins, or says again what it is. Cordoned stays cordoned; a lost one is back."""
        async with self._core.db.write() as db:
            tx = self._transaction(db)
            group = info.resource_group or "default"
            if await db.get(GroupRow, group) is None:
                db.add(GroupRow(name=group))
                await db.flush()
            row = await db.get(NodeRow, info.name)
            if row is None:
                row = NodeRow(name=info.name, resource_group=group, status=NodeStatus.ALIVE.value, sample={})
                db.add(row)
                tx.event("node_joined", info.name, S("{node} joined the cluster.", node=info.name))
            _describe(row, info)
            self._heard(tx, row)
        await self._core.news()

    async def beat(self, node: str, beat: Beat) -> BeatReply:
        """Take what the agent says, and answer with what it has to do; waits up to `beat.wait` s for that."""
        reply, changed = await self._take(node, beat)
        if changed:
            await self._core.news()
        if reply.start or reply.stop or not beat.wait:
            return reply

        async def something() -> bool:
            async with self._core.db.read() as db:
                found = await self._orders(db, node, beat)
            return bool(found.start or found.stop)

        await self._core.wait_for(something, beat.wait)
        async with self._core.db.write() as db:
            return await self._hand_out(db, node, beat)

    async def _take(self, node: str, beat: Beat) -> tuple[BeatReply, bool]:
        async with self._core.db.write() as db:
            row = await db.get(NodeRow, node)
            if row is None:
                raise NotFound(S("There is no node {name}; register it first.", name=node))
            tx = self._transaction(db)
            changed = self._heard(tx, row)
            for report in beat.reports:
                changed |= await self._report(tx, node, report)
            if beat.sample is not None:
                await self._sampled(tx, row, beat)
            for chunk in beat.logs:
                if await db.get(SessionRow, chunk.id.session) is not None:
                    self.write_log(chunk)
            await db.flush()
            return await self._hand_out(db, node, beat), changed

    def _transaction(self, db: AsyncSession) -> Transaction:
        return Transaction(db, AGENT, self._core.clock.now(), self._core.volumes)

    def _heard(self, tx: Transaction, row: NodeRow) -> bool:
        """Note the beat; True when the node had been lost."""
        row.last_beat = tx.now
        if row.status != NodeStatus.LOST:
            return False
        row.status, row.lost_from = row.lost_from or NodeStatus.ALIVE.value, None
        tx.event("node_back", row.name, S("{node} answers again.", node=row.name))
        return True

    # ── orders ───────────────────────────────────────────────────────────────────────────────────

    async def _hand_out(self, db: AsyncSession, node: str, beat: Beat) -> BeatReply:
        """The orders, noted as given: from here on the agent may have begun, whether it says so or not."""
        reply = await self._orders(db, node, beat)
        for work in reply.start:
            place = await db.get_one(AllocationRow, (work.id.session, work.id.rank))
            place.state = "ordered"
        return reply

    async def _orders(self, db: AsyncSession, node: str, beat: Beat) -> BeatReply:
        running = {(w.session, w.attempt, w.rank) for w in beat.running}
        query = (
            select(AllocationRow, SessionRow)
            .join(SessionRow, SessionRow.id == AllocationRow.session)
            .where(AllocationRow.node == node)
            .execution_options(populate_existing=True)
        )
        mine = (await db.execute(query)).all()
        reply = BeatReply(interval=INTERVAL)
        for place, session in mine:
            ident = WorkId(session=session.id, attempt=session.attempt, rank=place.rank)
            here = (ident.session, ident.attempt, ident.rank) in running
            forgotten = place.state in ("preparing", "running") and not here
            if place.state != "exited" and (session.state == SessionState.TERMINATING or forgotten):
                reply.stop.append(StopOrder(id=ident, grace=session.grace))  # it is answered with what became of it
            elif session.state in STARTING and place.state in ("placed", "ordered") and not here:
                reply.start.append(self._work(ident, place, session))
        current = {(s.id, s.attempt, p.rank) for p, s in mine}
        fenced = [w for w in beat.running if (w.session, w.attempt, w.rank) not in current]
        reply.stop += [StopOrder(id=w, grace=0) for w in fenced]
        return reply

    def _work(self, ident: WorkId, place: AllocationRow, session: SessionRow) -> Work:
        volumes = self._core.volumes
        mounts = {}
        for mount in session.mounts if volumes else []:
            project, name = mount.split("/", 1)
            mounts[name] = str(volumes.path(project, name)) if volumes else ""
        return Work(
            id=ident,
            name=session.name,
            user=session.user,
            command=session.command,
            workdir=session.workdir,
            env=session.env,
            cpu=place.cpu,
            memory=place.memory,
            devices={int(i): share for i, share in place.devices.items()},
            mounts=mounts,
            time_limit=session.time_limit,
        )

    # ── reports ──────────────────────────────────────────────────────────────────────────────────

    async def _report(self, tx: Transaction, node: str, report: WorkReport) -> bool:
        """One piece of news; what is known already, or is of an old attempt, changes nothing."""
        session = await tx.db.get(SessionRow, report.id.session)
        if session is None or session.attempt != report.id.attempt or session.state in ENDED:
            return False
        place = await tx.db.get(AllocationRow, (session.id, report.id.rank))
        state = "exited" if report.state == "lost" else report.state
        if place is None or place.node != node or RANK_STATES.index(state) <= RANK_STATES.index(place.state):
            return False
        place.state = state
        place.exit_code = report.exit_code
        if report.detail is not None:
            session.reasons = [Reason(code="unavailable", message=report.detail).model_dump(mode="json")]
        await tx.db.flush()
        await self._advance(tx, session, report)
        return True

    async def _advance(self, tx: Transaction, session: SessionRow, report: WorkReport) -> None:
        """The session's state from the states of its ranks, as `report` has just changed one."""
        ranks = await tx.allocations(session.id)
        states = {r.state for r in ranks}
        if "exited" in states:
            await self._ended(tx, session, report, [r for r in ranks if r.state == "exited"], states == {"exited"})
        elif states == {"running"} and session.state in STARTING:
            await tx.move(session, SessionState.RUNNING, at=report.at)
        elif states & {"preparing", "running"} and session.state == SessionState.SCHEDULED:
            await tx.move(session, SessionState.PREPARING, at=report.at)

    async def _ended(
        self, tx: Transaction, session: SessionRow, report: WorkReport, ended: list[AllocationRow], every: bool
    ) -> None:
        """All ranks are done; or one failed or is lost, and the others are stopped for it."""
        bad = report.state == "lost" or report.exit_code != 0
        if bad and session.state != SessionState.TERMINATING:
            result = SessionResult.LOST if report.state == "lost" else SessionResult.FAILURE
            session.result, session.exit_code = result.value, report.exit_code
            if not every:
                await tx.move(session, SessionState.TERMINATING, at=report.at)
        if not every:
            return
        if session.result is None and session.state == SessionState.TERMINATING:
            session.result = SessionResult.CANCELLED.value
        if session.exit_code is None and session.result != SessionResult.LOST:
            session.exit_code = next((r.exit_code for r in ended if r.exit_code), report.exit_code)
        await tx.move(session, SessionState.TERMINATED, at=report.at)

    async def _sampled(self, tx: Transaction, row: NodeRow, beat: Beat) -> None:
        sample = beat.sample
        assert sample is not None
        row.sample = sample.model_dump(
            mode="json", include={"cpu_utilization", "memory_utilization", "temperature", "power"}
        )
        if sample.devices:
            live = {
                d.index: d.model_dump(mode="json", include={"utilization", "temperature", "power"})
                for d in sample.devices
            }
            row.devices = [{**d, **live.get(d["index"], {})} for d in row.devices]
        for ident, share in sample.sessions.items():
            session = await tx.db.get(SessionRow, ident)
            if session is not None and session.state in HOLDING:
                session.utilization = share

    # ── silence ──────────────────────────────────────────────────────────────────────────────────

    async def fresh_grace(self) -> None:
        """After a start of the server nobody could beat for a while: every silence counts from now."""
        async with self._core.db.write() as db:
            for row in await db.scalars(select(NodeRow).where(NodeRow.last_beat.is_not(None))):
                row.last_beat = self._core.clock.now()

    async def lose_silent(self, tx: Transaction) -> int:
        """Nodes silent for too long are lost, and after the grace their sessions; returns how much changed."""
        changed = 0
        for row in await tx.db.scalars(select(NodeRow).where(NodeRow.last_beat.is_not(None))):
            silence = tx.now - (row.last_beat or tx.now)
            if silence > timedelta(seconds=LOST_AFTER) and row.status != NodeStatus.LOST:
                changed += 1
                row.lost_from, row.status = row.status, NodeStatus.LOST.value
                tx.event("node_lost", row.name, S("{node} does not answer.", node=row.name), "error")
                await self._take_back(tx, row)
            if silence > timedelta(seconds=GIVE_UP_AFTER):
                changed += await self._lose_sessions(tx, row)
        return changed

    async def _take_back(self, tx: Transaction, node: NodeRow) -> None:
        """What was placed on a lost node, but never ordered there, has surely not begun: it is placed anew."""
        query = select(SessionRow).join(AllocationRow, AllocationRow.session == SessionRow.id)
        scheduled = (AllocationRow.node == node.name) & (SessionRow.state == SessionState.SCHEDULED.value)
        for session in (await tx.db.scalars(query.where(scheduled))).unique().all():
            if not await tx.handed_out(session):
                await tx.move(session, SessionState.PENDING)

    async def unreachable(self, tx: Transaction, session: SessionRow) -> bool:
        """A node of the session is lost: what became of it there is not known until it is back or given up."""
        query = select(NodeRow.status).join(AllocationRow, AllocationRow.node == NodeRow.name)
        states = await tx.db.scalars(query.where(AllocationRow.session == session.id))
        return NodeStatus.LOST in set(states)

    async def _lose_sessions(self, tx: Transaction, node: NodeRow) -> int:
        idents = set(await tx.db.scalars(select(AllocationRow.session).where(AllocationRow.node == node.name)))
        for ident in idents:
            row = await tx.db.get_one(SessionRow, ident)
            message = S("{node} was lost while {name} ran on it.", node=node.name, name=row.name)
            row.reasons = [Reason(code="no_alive_node", message=message, node=node.name).model_dump(mode="json")]
            await tx.move(row, SessionState.TERMINATED, SessionResult.LOST)
        return len(idents)

    # ── output ───────────────────────────────────────────────────────────────────────────────────

    def log_file(self, session: str, attempt: int, rank: int = 0) -> Path:
        return self._core.data_dir / "logs" / session / f"{attempt}.{rank}.log"

    def write_log(self, chunk: LogChunk) -> None:
        """Append what is new of the chunk; what is known already is cut.

        After a power cut the file may lack what its agent has put away as told: the gap is left empty in it.
        """
        path = self.log_file(chunk.id.session, chunk.id.attempt, chunk.id.rank)
        try:
            data = base64.b64decode(chunk.data, validate=True)
        except ValueError as e:
            raise Invalid(S("The output of {session} is not Base64.", session=chunk.id.session)) from e
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                known = file.seek(0, os.SEEK_END)
                if known < chunk.offset <= known + MOST_GAP:
                    known = file.truncate(chunk.offset)
                if chunk.offset <= known:
                    file.write(data[known - chunk.offset :])
        except OSError as e:
            raise StorageFull(
                S("The output of {session} can't be written: {why}.", session=chunk.id.session, why=str(e))
            ) from e


def _describe(row: NodeRow, info: NodeInfo) -> None:
    """What the agent says of its node. Its resource group stays: people move nodes, agents don't."""
    row.cpu, row.memory = info.capacity.cpu, info.capacity.memory
    row.gpu_model, row.rack, row.isolation, row.same_host = info.gpu_model, info.rack, info.isolation, info.same_host
    row.devices = [d.model_dump(mode="json", exclude={"used"}) for d in info.devices]
