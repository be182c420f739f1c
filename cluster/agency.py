"""The agents' side of the core: nodes register, beat, fetch work and report; old attempts and lost nodes are fenced."""

import asyncio
import base64
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.db.tables import GroupRow
from cluster.errors import Invalid, NotFound, StorageFull
from cluster.live import LiveNode, LiveSession, Rank
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
    rendezvous_port,
)
from cluster.operations.mounting import inside
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
STOPPED = 143
"""Exit code of what was told to stop, as a shell says it."""
RANK_STATES = ("placed", "ordered", "preparing", "running", "exited")
"""Of one rank, in order; a report never leads back. `ordered`: its agent was told, and has not answered yet."""
STARTING = (SessionState.SCHEDULED, SessionState.PREPARING)
MEASURED = ("cpu_utilization", "memory_utilization", "temperature", "power")
DEVICE_MEASURED = ("utilization", "temperature", "power")
AGENT = User(name="agent", role="admin")


Key = tuple[str, int, int]
"""Of a piece of work: session, attempt, rank."""


@dataclass(eq=False, slots=True)
class Poll:
    """A beat that waits for something to do."""

    running: frozenset[Key]
    answer: "asyncio.Future[BeatReply]"


class Agency:
    """What the routes under /v1/agents do."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._polls: dict[str, Poll] = {}
        """By node: an agent's next beat ends its last poll."""

    @property
    def polling(self) -> int:
        """How many agents wait for something to do."""
        return len(self._polls)

    async def register(self, info: NodeInfo) -> None:
        """A node joins, or says again what it is. Cordoned stays cordoned; a lost one is back."""
        group = info.resource_group or "default"

        async def joins(tx: Transaction) -> Callable[[], None]:
            if group not in self._core.directory.groups:
                tx.db.add(GroupRow(name=group))
                await tx.db.flush()
            self._register(tx, info, group)
            return lambda: None

        known = (await self._core.fresh_directory()).groups
        writer = self._core.writer
        await (writer.together(AGENT, joins) if group in known else writer.alone(AGENT, joins))

    def _register(self, tx: Transaction, info: NodeInfo, group: str) -> None:
        node = tx.ledger.nodes.get(info.name)
        if node is None:
            node = LiveNode(info.name, group, NodeStatus.ALIVE.value, info.capacity.cpu, info.capacity.memory)
            tx.add_node(node)
            tx.event("node_joined", info.name, S("{node} joined the cluster.", node=info.name))
        _describe(tx.edit_node(node), info)
        self._heard(tx, node)

    async def beat(self, node: str, beat: Beat) -> BeatReply:
        """Take what the agent says, and answer with what it has to do; waits up to `beat.wait` s for that."""
        running = frozenset((w.session, w.attempt, w.rank) for w in beat.running)

        async def beats(tx: Transaction) -> Callable[[], BeatReply | Poll]:
            await self._take(tx, node, beat)
            return lambda: self._answer(tx, node, running, beat.wait)

        answer = await self._core.writer.together(AGENT, beats)
        return answer if isinstance(answer, BeatReply) else await self._waited(node, answer, beat.wait)

    async def _take(self, tx: Transaction, name: str, beat: Beat) -> None:
        node = tx.ledger.nodes.get(name)
        if node is None:
            raise NotFound(S("There is no node {name}; register it first.", name=name))
        for chunk in beat.logs:
            ident = chunk.id.session
            if ident in tx.ledger.sessions or await tx.recall(ident) is not None:
                self.write_log(chunk)
        self._heard(tx, node)
        for report in beat.reports:
            self._report(tx, name, report)
        if beat.sample is not None:
            self._sampled(tx, node, beat)

    def _heard(self, tx: Transaction, node: LiveNode) -> None:
        """Note the beat; a node that had been lost is back."""
        node.last_beat = tx.now
        tx.ledger.measured_nodes.add(node.name)
        if node.status != NodeStatus.LOST:
            return
        tx.edit_node(node)
        node.status, node.lost_from = node.lost_from or NodeStatus.ALIVE.value, None
        tx.event("node_back", node.name, S("{node} answers again.", node=node.name))

    # ── orders ───────────────────────────────────────────────────────────────────────────────────

    def _answer(self, tx: Transaction, node: str, running: frozenset[Key], wait: float) -> BeatReply | Poll:
        """The orders; or without any, and with time to wait, a poll."""
        if (before := self._polls.pop(node, None)) is not None and not before.answer.done():
            before.answer.set_result(BeatReply(interval=INTERVAL))  # its agent has given it up
        reply = self._hand_out(tx, node, running)
        if not wait or reply.start or reply.stop:
            return reply
        self._polls[node] = poll = Poll(running, asyncio.get_running_loop().create_future())
        return poll

    async def _waited(self, node: str, poll: Poll, seconds: float) -> BeatReply:
        """What came up within the time; nothing, when nothing did."""
        try:
            async with asyncio.timeout(seconds):
                return await poll.answer
        except TimeoutError:
            return BeatReply(interval=INTERVAL)
        finally:
            if self._polls.get(node) is poll:
                del self._polls[node]

    def orders_for_polls(self, tx: Transaction) -> list[tuple[Poll, BeatReply]]:
        """What those that wait will be told when this is committed."""
        found: list[tuple[Poll, BeatReply]] = []
        for node in [node for node in tx.ledger.nudged if node in self._polls]:
            poll = self._polls[node]
            reply = self._hand_out(tx, node, poll.running)
            if reply.start or reply.stop:
                found.append((poll, reply))
        tx.ledger.nudged.clear()
        return found

    def answer_polls(self, orders: Iterable[tuple[Poll, BeatReply]]) -> None:
        """It is committed. An agent that has gone meanwhile gets its orders with its next beat."""
        for poll, reply in orders:
            if not poll.answer.done():
                poll.answer.set_result(reply)

    def _hand_out(self, tx: Transaction, node: str, running: frozenset[Key]) -> BeatReply:
        """The orders, noted as given: from here on the agent may have begun, whether it says so or not."""
        reply = BeatReply(interval=INTERVAL)
        current: set[Key] = set()
        for rank in tx.ledger.ranks_on(node):
            session = tx.ledger.sessions[rank.session]
            key = (session.id, session.attempt, rank.rank)
            current.add(key)
            self._order(tx, reply, session, rank, here=key in running)
        reply.stop += [StopOrder(id=_work_id(key), grace=0) for key in sorted(running - current)]
        return reply

    def _order(self, tx: Transaction, reply: BeatReply, session: LiveSession, rank: Rank, here: bool) -> None:
        """Add to `reply` what is to be done about one rank that the node has, or should have, `here`."""
        forgotten = rank.state in ("preparing", "running") and not here
        if rank.state != "exited" and (session.state == SessionState.TERMINATING or forgotten):
            ident = WorkId(session=session.id, attempt=session.attempt, rank=rank.rank)
            reply.stop.append(StopOrder(id=ident, grace=session.grace))  # it is answered with what became of it
        elif self._to_be_started(session, rank) and not here:
            reply.start.append(self._work(session, rank))
            if rank.state == "placed":
                tx.edit(session)
                rank.state = "ordered"

    def _to_be_started(self, session: LiveSession, rank: Rank) -> bool:
        """Not while it may have lost a folder that it mounts: that is found out before the next round."""
        starts = session.state in STARTING and rank.state in ("placed", "ordered")
        return starts and not self._core.mounts.unsure(session)

    def _work(self, session: LiveSession, rank: Rank) -> Work:
        mounts = self._mounts(session)
        several = session.node_count > 1
        return Work(
            id=WorkId(session=session.id, attempt=session.attempt, rank=rank.rank),
            name=session.name,
            user=session.user,
            command=session.command,
            workdir=session.workdir,
            env=session.env,
            cpu=rank.cpu,
            memory=rank.memory,
            devices=rank.devices,
            mounts={name: directory for name, (directory, _) in mounts.items()},
            read_only=[name for name, (_, kept) in mounts.items() if kept],
            shown=session.shown,
            time_limit=session.time_limit,
            image=session.image,
            hosts=self._addresses(session) if several else [],
            port=rendezvous_port(session.id, session.attempt) if several else 0,
        )

    def _mounts(self, session: LiveSession) -> dict[str, tuple[str, bool]]:
        """By the name that each folder has inside: its directory, and whether it may only be read. Folders of one name
        are told apart by their projects."""
        if self._core.volumes is None:
            return {}
        found = {}
        for mount, name in inside(session.mounts).items():
            directory = self._core.volumes.path(*mount.split("/", 1))
            found[name] = (str(directory), mount in session.read_only)
        return found

    def _addresses(self, session: LiveSession) -> list[str]:
        """Of the session's nodes, by rank."""
        nodes = [self._core.ledger.nodes[rank.node] for rank in sorted(session.ranks, key=lambda r: r.rank)]
        return [node.address or node.name for node in nodes]

    # ── reports ──────────────────────────────────────────────────────────────────────────────────

    def _report(self, tx: Transaction, node: str, report: WorkReport) -> None:
        """One piece of news; what is known already, or is of an old attempt, changes nothing."""
        session = tx.ledger.sessions.get(report.id.session)
        if session is None or session.attempt != report.id.attempt:
            return
        rank = next((rank for rank in session.ranks if rank.rank == report.id.rank), None)
        state = "exited" if report.state == "lost" else report.state
        if rank is None or rank.node != node or RANK_STATES.index(state) <= RANK_STATES.index(rank.state):
            return
        tx.edit(session)
        rank.state, rank.exit_code = state, report.exit_code
        if session.requeue and report.stopped:
            rank.exit_code = report.exit_code or STOPPED  # it put its work aside; it is not done
        if report.detail is not None and not session.requeue:
            session.reasons = [Reason(code="unavailable", message=report.detail).model_dump(mode="json")]
        self._advance(tx, session, report)

    def _advance(self, tx: Transaction, session: LiveSession, report: WorkReport) -> None:
        """The session's state from the states of its ranks, as `report` has just changed one."""
        states = {rank.state for rank in session.ranks}
        if "exited" in states:
            self._ended(tx, session, report, states == {"exited"})
        if session.state not in STARTING:
            return
        if states <= {"running", "exited"}:
            tx.move(session, SessionState.RUNNING, at=report.at)
        elif states & {"preparing", "running"} and session.state == SessionState.SCHEDULED:
            tx.move(session, SessionState.PREPARING, at=report.at)

    def _ended(self, tx: Transaction, session: LiveSession, report: WorkReport, every: bool) -> None:
        """All ranks are done; or one failed or is lost, and the others are stopped for it."""
        bad = report.state == "lost" or (report.state == "exited" and report.exit_code != 0)
        if bad and session.state != SessionState.TERMINATING:
            result = SessionResult.LOST if report.state == "lost" else SessionResult.FAILURE
            session.result, session.exit_code = result.value, report.exit_code
            if not every:
                tx.move(session, SessionState.TERMINATING, at=report.at)
        if not every:
            return
        if session.requeue and any(rank.exit_code != 0 for rank in session.ranks):
            self._back_in_the_queue(tx, session, report)
            return
        if session.requeue:  # it was done before it heard that it had to make room
            session.requeue, session.reasons, session.result = False, [], SessionResult.SUCCESS.value
        if session.result is None and session.state == SessionState.TERMINATING:
            session.result = SessionResult.CANCELLED.value
        if session.exit_code is None and session.result != SessionResult.LOST:
            session.exit_code = next((r.exit_code for r in session.ranks if r.exit_code), report.exit_code)
        tx.move(session, SessionState.TERMINATED, at=report.at)

    def _back_in_the_queue(self, tx: Transaction, session: LiveSession, report: WorkReport) -> None:
        """It made room for another and is gone from its nodes: it waits again, in its old place."""
        tx.move(session, SessionState.PENDING, at=report.at)
        session.requeue, session.reasons = False, []

    def _sampled(self, tx: Transaction, node: LiveNode, beat: Beat) -> None:
        """Measurements are no promise: they are kept in memory, and written now and then (`Core.save`)."""
        sample = beat.sample
        assert sample is not None
        node.sample = {name: getattr(sample, name) for name in MEASURED}
        if sample.devices:
            live = {d.index: {name: getattr(d, name) for name in DEVICE_MEASURED} for d in sample.devices}
            node.devices = [{**d, **live.get(d["index"], {})} for d in node.devices]
        tx.ledger.stirred_nodes.add(node.name)
        for ident, share in sample.sessions.items():
            session = tx.ledger.holding.get(ident)
            if session is not None:
                session.utilization = share
                tx.ledger.measured.add(ident)

    # ── silence ──────────────────────────────────────────────────────────────────────────────────

    def fresh_grace(self) -> None:
        """After a start of the server nobody could beat for a while: every silence counts from now."""
        now = self._core.clock.now()
        for node in self._core.ledger.nodes.values():
            if node.last_beat is not None:
                node.last_beat = now
                self._core.ledger.measured_nodes.add(node.name)

    def lose_silent(self, tx: Transaction) -> int:
        """Nodes silent for too long are lost, and after the grace their sessions; returns how much changed."""
        changed = 0
        for node in tx.ledger.nodes.values():
            silence = tx.now - (node.last_beat or tx.now)
            if silence > timedelta(seconds=LOST_AFTER) and node.status != NodeStatus.LOST:
                changed += 1
                tx.edit_node(node)
                node.lost_from, node.status = node.status, NodeStatus.LOST.value
                tx.event("node_lost", node.name, S("{node} does not answer.", node=node.name), "error")
                self._take_back(tx, node)
            if silence > timedelta(seconds=GIVE_UP_AFTER):
                changed += self._lose_sessions(tx, node)
        return changed

    def _take_back(self, tx: Transaction, node: LiveNode) -> None:
        """What was placed on a lost node, but never ordered there, has surely not begun: it is placed anew."""
        for session in tx.ledger.sessions_on(node.name):
            if session.state == SessionState.SCHEDULED and not tx.handed_out(session):
                tx.move(session, SessionState.PENDING)

    def unreachable(self, session: LiveSession) -> bool:
        """A node of the session is lost: what became of it there is not known until it is back or given up."""
        nodes = self._core.ledger.nodes
        return any(nodes[rank.node].status == NodeStatus.LOST for rank in session.ranks)

    def _lose_sessions(self, tx: Transaction, node: LiveNode) -> int:
        sessions = tx.ledger.sessions_on(node.name)
        for session in sessions:
            message = S("{node} was lost while {name} ran on it.", node=node.name, name=session.name)
            reason = Reason(code="no_alive_node", message=message, node=node.name)
            tx.edit(session).reasons = [reason.model_dump(mode="json")]
            tx.move(session, SessionState.TERMINATED, SessionResult.LOST)
        return len(sessions)

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


def _describe(row: LiveNode, info: NodeInfo) -> None:
    """What the agent says of its node. Its resource group stays: people move nodes, agents don't."""
    row.cpu, row.memory = info.capacity.cpu, info.capacity.memory
    row.gpu_model, row.rack, row.isolation, row.same_host = info.gpu_model, info.rack, info.isolation, info.same_host
    row.address = info.address
    row.devices = [d.model_dump(mode="json", exclude={"used"}) for d in info.devices]


def _work_id(key: Key) -> WorkId:
    return WorkId(session=key[0], attempt=key[1], rank=key[2])
