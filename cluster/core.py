"""The cluster itself: one ledger and its database, one clock, one writer, one outlook.

execute ──► writer ──► operations ──► draft: sessions, nodes, events, audit, inverse ┐
                                      └► outlook.plan ──► places ────────────────────┴─ one commit for the round
"""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from sqlalchemy import func, select

from cluster import consequences, records
from cluster.agency import Agency
from cluster.clock import Clock
from cluster.db import log as rows
from cluster.db.engine import Database, Where
from cluster.db.tables import (
    AllocationRow,
    AuditRow,
    Base,
    EventRow,
    FolderRow,
    Meta,
    NodeRow,
    SessionRow,
    UsageRow,
)
from cluster.diagnosis.reads import Diagnoses
from cluster.directory import KINDS, Directory
from cluster.draft import Draft
from cluster.errors import ClusterError, NotFound
from cluster.execution import Execution
from cluster.house import House
from cluster.idents import Idents
from cluster.journal.chain import Link
from cluster.journal.reads import Journal
from cluster.journal.refusals import Refusals
from cluster.keeper import Keeper
from cluster.ledger import Ledger
from cluster.lifecycle import WAITING
from cluster.live import LiveSession
from cluster.metrics import Metrics
from cluster.models import OperationRequest, Outcome, Session, User
from cluster.operations import folders
from cluster.outlook import Outlook
from cluster.pipelines.keeper import RunKeeper
from cluster.pipelines.reads import Pipelines
from cluster.reads import Reads
from cluster.scheduler import Plan
from cluster.sentence import S
from cluster.serving.install import Installs
from cluster.serving.keeper import Serving
from cluster.serving.scaling import Autoscaler
from cluster.serving.store import Models
from cluster.standing import Standings
from cluster.storage.clones import Clones
from cluster.storage.measures import Measures
from cluster.storage.mounts import Mounts
from cluster.storage.purging import Purges
from cluster.storage.reads import Folders
from cluster.storage.uploads import Uploads
from cluster.storage.volumes import Volumes
from cluster.tenancy.reads import People
from cluster.tenancy.tokens import Tokens
from cluster.tenancy.veil import seen_by, veiled
from cluster.transaction import Transaction
from cluster.utilization import History
from cluster.writer import Writer

log = structlog.get_logger(__name__)

SYSTEM = User(name="system", role="admin")
TICK = 1.0
"""Seconds between two looks at time limits, when nothing else wakes the core."""
SAVE_EVERY = 30.0
"""Seconds after which measurements are written down."""
COLLECT = (50_000, 20, 50)
"""Python's garbage collector looks after so many new objects; at older ones, after so many such looks."""
CROWD = 200
"""When more sessions wait than this, a start's answer does not say who is ahead of it: asking for it does."""
LEDGER = {SessionRow, AllocationRow, NodeRow, EventRow, AuditRow, UsageRow}
"""Rows that the ledger and its draft know of."""


class Core:
    """Open one with `Core.open`; `run_forever` keeps it going where no simulator drives it."""

    ledger: Ledger
    draft: Draft
    outlook: Outlook
    directory: Directory

    def __init__(self, db: Database, clock: Clock, data_dir: Path, name: str, simulated: bool) -> None:
        self.db = db
        self.clock = clock
        self.data_dir = data_dir
        self.name = name
        self.simulated = simulated
        self.same_host = not simulated
        self.system = SYSTEM
        self.volumes = None if simulated else Volumes(data_dir / "volumes")
        self.wake = asyncio.Event()
        """Set after every commit that may let something start or stop."""
        self._told = asyncio.Event()
        self._following = 0
        self.idents = Idents(db)
        self.writer = Writer(self)
        self.agents = Agency(self)
        self.house = House(self)
        self.reads = Reads(self)
        self.people = People(self)
        self.tokens = Tokens(self)
        self.folders = Folders(self)
        self.journal = Journal(self)
        self.pipelines = Pipelines(self)
        self.runs = RunKeeper(self)
        self.refusals = Refusals(self)
        self.metrics = Metrics(self)
        self.clones = Clones(self)
        self.uploads = Uploads(self)
        self.measures = Measures(self)
        self.purges = Purges(self)
        self.mounts = Mounts(self)
        self.models = Models(self)
        self.installs = Installs(self)
        self.serving = Serving(self)
        self.diagnoses = Diagnoses(self)
        self.autoscaler = Autoscaler(self)
        self.history = History(self)
        self.keepers: list[Keeper] = [
            self.refusals,
            self.clones,
            self.uploads,
            self.measures,
            self.purges,
            self.installs,
            self.autoscaler,
            self.serving.keeper,
            self.runs,
            self.history,
        ]
        self._standings = Standings(self)
        self._execution = Execution(self)

    @classmethod
    async def open(
        cls, where: Where, *, clock: Clock, data_dir: Path, name: str, simulated: bool = False, alone: bool = False
    ) -> "Core":
        """Open or make the database at `where`; migrates it, and puts the folders in step with their rows.

        `alone`: see `Database.open`.
        """
        db = await Database.open(where, durable=not simulated, alone=alone)
        core = cls(db, clock, data_dir, name, simulated)
        (data_dir / "logs").mkdir(parents=True, exist_ok=True)
        await core._load()
        await core._put_folders_in_step()
        core.agents.fresh_grace()
        for keeper in core.keepers:
            await keeper.load()
        return core

    async def close(self) -> None:
        """Finish what is being written, and close the database."""
        for keeper in self.keepers:
            await keeper.close()
        await self.writer.rest()
        try:
            await self.save()
        except ClusterError as e:
            log.warning("what was measured is not written down", why=str(e))
        finally:
            await self.db.close()

    # ── ledger and directory ─────────────────────────────────────────────────────────────────────

    async def _load(self) -> None:
        """Everything live, from the database."""
        async with self.db.read() as db:
            self.directory = await db.run_sync(Directory.load)
            self.ledger = await db.run_sync(Ledger.load)
            events = await db.scalar(select(func.max(EventRow.seq))) or 0
            last = select(AuditRow.id, AuditRow.chain).order_by(AuditRow.id.desc()).limit(1)
            audit = (await db.execute(last)).first()
        newest = Link(*audit) if audit else Link()
        if hasattr(self, "draft") and self.draft.written.number >= newest.number:
            newest = self.draft.written  # what this process wrote is believed before what the database says by now
        self.draft = Draft(self.ledger, events, newest)
        self.outlook = Outlook(self.ledger, self.directory)
        self.mounts.look_again()

    async def refresh(self) -> None:
        """Take note of what the ORM has changed since; the caller holds `db.writing`."""
        if self.db.doubtful:
            await self._begin_anew()
        self.serving.note(self.db.touched)
        self.mounts.note(self.db.touched)
        if self.db.touched & LEDGER:
            await self._load()
        elif self.db.touched & set(KINDS):
            async with self.db.read() as db:
                self.directory = await db.run_sync(Directory.load)
            self.outlook.know(self.directory)
        self.db.touched.clear()

    async def _begin_anew(self) -> None:
        """The database went away while something was written: as after a restart, what it holds is what counts."""
        await self._load()
        await self._put_folders_in_step()
        self.agents.fresh_grace()
        self.db.touched.update(mapper.class_ for mapper in Base.registry.mappers)
        self.db.doubtful = False

    async def _put_folders_in_step(self) -> None:
        """Directories go where their rows say."""
        if self.volumes is not None:
            async with self.db.read() as db:
                found = list(await db.scalars(select(FolderRow)))
            await asyncio.to_thread(folders.reconcile, found, self.volumes)

    @asynccontextmanager
    async def still(self) -> AsyncIterator[Ledger]:
        """The ledger between two commits: nothing in it can be taken back any more. Don't wait long inside."""
        async with self.db.writing:
            await self.refresh()
            yield self.ledger

    async def fresh_directory(self) -> Directory:
        """The directory, up to date."""
        if self.db.touched or self.db.doubtful:
            async with self.still():
                pass
        return self.directory

    async def save(self) -> None:
        """Write down what was measured; it is no promise, so no commit waits for it."""
        async with self.still() as ledger:
            nodes = [ledger.nodes[name] for name in ledger.measured_nodes if name in ledger.nodes]
            sessions = [ledger.sessions[ident] for ident in ledger.measured if ident in ledger.sessions]
            statements = [
                rows.MEASURED_NODE.of((n.devices, n.sample, n.last_beat, n.name) for n in nodes),
                rows.MEASURED_SESSION.of((s.utilization, s.id) for s in sessions),
            ]
            if nodes or sessions:
                await self.db.append([statement for statement in statements if statement[1]])
            ledger.measured_nodes.clear()
            ledger.measured.clear()

    # ── people ───────────────────────────────────────────────────────────────────────────────────

    async def user(self, name: str) -> User:
        """An active one. Raises `NotFound`."""
        user = (await self.fresh_directory()).users.get(name)
        if user is None or not user.active:
            raise NotFound(S("There is no user {name}.", name=name))
        return user

    async def token_for(self, owner: str) -> str:
        """A new token of a user's ("" for the agents'); only its hash is kept."""
        return await self.tokens.make(owner)

    async def owner_of(self, token: str) -> str:
        """Whose the token is; "" for the agents'. Raises `NotAuthenticated`."""
        return await self.tokens.owner_of(token)

    async def meta(self, key: str, value: str | None = None) -> str | None:
        """Read, or with `value` write, a fact about the cluster."""
        if value is None:
            async with self.db.read() as db:
                row = await db.get(Meta, key)
                return row.value if row else None
        async with self.db.write() as db:
            await db.merge(Meta(key=key, value=value))
        return value

    # ── operations and passes ────────────────────────────────────────────────────────────────────

    async def execute(self, user: User, request: OperationRequest) -> Outcome:
        """Do it, or with `dry_run` find out what it would do. A refusal is an outcome; nothing was changed then."""
        return await self._execution.execute(user, request)

    async def schedule_pass(self) -> bool:
        """One look at everything that waits or is late. True if something changed."""

        async def looks(tx: Transaction) -> Callable[[], bool]:
            late = self.house.look(tx)
            return lambda: late or tx.placed

        await self._standings.look()
        with self.metrics.passes.time():
            changed = await self.writer.together(SYSTEM, looks, plans=True)
        for keeper in self.keepers:
            changed = await self._kept(keeper) or changed
        return await self.house.clear() or changed

    async def _kept(self, keeper: Keeper) -> bool:
        """A step of one; the others go on when it fails."""
        try:
            return await keeper.step()
        except ClusterError as e:
            log.error("keeper failed", keeper=type(keeper).__name__, why=str(e))
        except Exception:
            log.exception("keeper failed", keeper=type(keeper).__name__)  # a bug; the cluster must go on
        return False

    def shown(self, user: User, session: LiveSession, decided: Plan) -> Session:
        """A live session for `user`; if it waits, with the reasons of the plan `decided`."""
        if session.state not in WAITING:
            return records.session(session)
        reasons = consequences.why(session, decided, brief=self.crowded)
        return records.session(session, veiled(self.ledger, session, reasons, seen_by(user)))

    @property
    def crowded(self) -> bool:
        """So many wait that saying who is ahead of whom would cost everybody's time."""
        return len(self.ledger.waiting) > CROWD

    async def run_forever(self) -> None:
        """Passes as soon as something happened, and every `TICK` for what only time brings."""
        with _calm_collector():
            await self._pass_on()

    async def _pass_on(self) -> None:
        loop = asyncio.get_running_loop()
        saved = loop.time()
        while True:
            try:
                await self.schedule_pass()
                if loop.time() - saved > SAVE_EVERY:
                    saved = loop.time()
                    await self.save()
            except ClusterError as e:
                log.error("pass failed", why=str(e))
            except Exception:
                log.exception("pass failed")  # a bug; the cluster must go on
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), TICK)
            self.wake.clear()

    # ── news ─────────────────────────────────────────────────────────────────────────────────────

    def news(self, events: bool) -> None:
        """Something was committed; with `events`, those who follow them are told."""
        self.wake.set()
        if events:
            told, self._told = self._told, asyncio.Event()
            told.set()

    @property
    def waiting(self) -> int:
        """How many wait for news just now: long polls and followers of events."""
        return self.agents.polling + self._following

    async def wait_for(self, look: Callable[[], Awaitable[bool]], seconds: float) -> None:
        """Until `look` says so after some commit with events, or `seconds` of real time are over."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        self._following += 1
        try:
            while True:
                told = self._told
                if await look() or loop.time() >= end:
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(told.wait(), end - loop.time())
        finally:
            self._following -= 1


@contextlib.contextmanager
def _calm_collector() -> Iterator[None]:
    """What is there already is here to stay, and what a round makes is not made in circles: looking for garbage among
    it, as often as Python would, takes a third of the time."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
