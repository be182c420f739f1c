"""All pieces of work of this node: starts each once, finds them again after a restart, and tells what became of them.

The truth is in the records on disk and in the supervisors; this class only reads it. After `kill -9` of the agent a new
`Runner` on the same directory knows everything again.
"""

import base64
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cluster.agents import containers, isolation, processes
from cluster.agents.record import Acknowledged, Record, Spec, State, Status, Stop, now
from cluster.agents.samples import Holding
from cluster.agents.sentences import detail
from cluster.agents.specify import Ways, specify
from cluster.models import Beat, LogChunk, StopOrder, Work, WorkId, WorkReport
from cluster.sentence import S

CHUNK = 256 * 1024
"""Bytes of one piece's output in one beat."""
_CHUNKS = 4
"""Chunks in one beat."""
_KEEP = 7 * 24 * 3600.0
_RETRY = 1.0


@dataclass
class Item:
    """One piece of work in memory; `record` is what counts."""

    record: Record
    spec: Spec
    status: Status | None
    known: Acknowledged
    supervisor: "subprocess.Popen[bytes] | None" = None
    told_at: float = 0
    """When its output was last told (monotonic)."""
    started_at: float = 0
    """When a supervisor was last started (monotonic)."""

    @property
    def id(self) -> WorkId:
        return WorkId(session=self.spec.session, attempt=self.spec.attempt, rank=self.spec.rank)

    @property
    def ended(self) -> bool:
        return self.status is not None and self.status.final

    @property
    def told(self) -> bool:
        """The server knows all of it, and its supervisor is gone."""
        return self.ended and self.known.done and self.supervisor is None


@dataclass
class Runner:
    """The pieces of work under `root`, each fenced as `ways` say. All methods are quick; none waits for work."""

    root: Path
    ways: Ways
    _items: dict[str, Item] = field(default_factory=dict)
    _extra: list[WorkReport] = field(default_factory=list)
    """Answers to orders that left no record: work never seen here, or that there was no room to write down."""

    # ── orders ───────────────────────────────────────────────────────────────────────────────────

    def adopt(self) -> None:
        """Find what an earlier agent left: running ones, ended ones not yet told, and ones it had no time to start."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self.root.iterdir()):
            record = Record(path)
            spec = record.spec
            if spec is None:
                continue
            if not record.acknowledged.done:
                self._items[spec.key] = Item(record, spec, record.status, record.acknowledged)
        self._sweep()
        self.refresh()

    def accept(self, work: Work) -> None:
        """Start it, once. An attempt that is known here is only told about again."""
        spec = self._spec(work)
        record = Record(self.root / spec.key)
        if spec.key in self._items:
            self._items[spec.key].known.state = ""
            return
        try:
            fresh = record.accept(spec)
        except OSError as e:
            self._extra.append(_no_room(work.id, e))
            return
        item = Item(record, record.spec or spec, record.status, Acknowledged())
        self._items[spec.key] = item
        if fresh and not self._fence_older(item):
            self._supervise(item)

    def stop(self, order: StopOrder) -> None:
        """Tell its supervisor. What has ended, or was never here, is told about again."""
        item = self._items.get(_key(order.id)) or self._reload(order.id)
        if item is None:
            self._extra.append(_never_seen(order.id))
        elif item.ended:
            item.known.state, item.known.done = "", False
        else:
            _order(item, Stop(order.grace))

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    def refresh(self) -> None:
        """Read every record again; a supervisor that is gone without a word is replaced, or its work is lost."""
        for item in self._items.values():
            if item.supervisor is not None and item.supervisor.poll() is not None:
                item.supervisor = None
            if not item.ended:
                item.status = item.record.status
            if not item.ended and not self._supervised(item):
                self._settle(item)
        self._items = {k: i for k, i in self._items.items() if not i.told}

    def news(self) -> bool:
        """There is something that the server does not know yet."""
        self.refresh()
        return bool(self._extra) or any(
            _state(i) != i.known.state or i.record.size() > i.known.offset for i in self._items.values()
        )

    def busy(self) -> bool:
        """Something runs, or has ended without the server knowing."""
        return bool(self._items) or bool(self._extra)

    def running(self) -> list[WorkId]:
        return [i.id for i in self._items.values() if not i.ended]

    def holdings(self) -> list[Holding]:
        """What the running ones hold, for the sampler."""
        return [
            Holding(i.spec.session, i.status.pid, i.spec.cpu, tuple(i.spec.devices), _elsewhere(i.spec))
            for i in self._items.values()
            if i.status is not None and i.status.state == "running" and i.status.pid is not None
        ]

    # ── telling ──────────────────────────────────────────────────────────────────────────────────

    def logs(self) -> list[LogChunk]:
        """Output that the server has not confirmed: at most `CHUNK` bytes of each, of those that wait longest."""
        behind = [i for i in self._items.values() if i.record.size() > i.known.offset]
        behind.sort(key=lambda i: i.told_at)
        for item in behind[:_CHUNKS]:
            item.told_at = time.monotonic()
        return [_chunk(i) for i in behind[:_CHUNKS]]

    def reports(self, with_logs: bool = True) -> list[WorkReport]:
        """States that the server has not confirmed. An end is told after the last byte of output, where possible."""
        ready = (i for i in self._items.values() if not (i.ended and with_logs and i.record.size() > i.known.offset))
        reports = [r for i in ready if _state(i) != i.known.state for r in _reports(i)]
        return reports + self._extra

    def acknowledge(self, beat: Beat) -> None:
        """The server has this beat: do not tell it again."""
        for chunk in beat.logs:
            item = self._items[_key(chunk.id)]
            item.known.offset = chunk.offset + len(base64.b64decode(chunk.data))
        self._extra = [r for r in self._extra if r not in beat.reports]
        for report in beat.reports:
            self._acknowledge_report(report)
        told = {_key(c.id) for c in beat.logs} | {_key(r.id) for r in beat.reports}
        for key in told & self._items.keys():
            self._items[key].record.put(self._items[key].known)

    def clean(self, older: float = _KEEP) -> None:
        """Remove the directories, older than `older` seconds, of work that ended and was told, or was never begun."""
        for path in self.root.iterdir():
            record = Record(path)
            old = time.time() - path.stat().st_mtime > older
            if old and path.name not in self._items and (record.acknowledged.done or record.spec is None):
                shutil.rmtree(path, ignore_errors=True)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _spec(self, work: Work) -> Spec:
        return specify(work, Record(self.root / _key(work.id)), self.ways, self._cores(work.cpu))

    def _cores(self, cpu: float) -> list[int]:
        """The cores that the fewest of the running ones use, as many as it holds (rounded up)."""
        usable = sorted(os.sched_getaffinity(0))
        taken = [c for i in self._items.values() if not i.ended for c in i.spec.cores]
        count = max(1, -(-int(cpu * 1000) // 1000))
        return sorted(sorted(usable, key=taken.count)[:count]) if count < len(usable) else []

    def _sweep(self) -> None:
        """End the containers of work that has no record any more, or has ended."""
        if self.ways.isolation in isolation.CONTAINERS:
            containers.sweep(
                self.ways.isolation, self.root, [i.spec.unique for i in self._items.values() if not i.ended]
            )

    def _supervise(self, item: Item) -> None:
        """Start its supervisor in a session of its own. Safe to repeat: only one of them can start the command."""
        with open(item.record.path / "supervisor.log", "ab") as log:
            item.supervisor = subprocess.Popen(
                [sys.executable, "-m", "cluster.agents.supervisor", str(item.record.path)],
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        item.started_at = time.monotonic()

    def _supervised(self, item: Item) -> bool:
        return item.supervisor is not None or processes.alive(item.record.supervisor)

    def _settle(self, item: Item) -> None:
        """Its supervisor is gone: it ended in between, or can still be started, or is lost."""
        item.status = item.record.status
        if item.ended:
            return
        if not item.record.launched:
            if not self._fence_older(item) and time.monotonic() - item.started_at > _RETRY:
                self._supervise(item)
            return
        if left := processes.marked(item.spec.home):
            processes.send(left, signal.SIGKILL)
            return
        isolation.KINDS[item.spec.isolation](item.spec).close()
        item.status = Status("lost", now(), why="vanished")
        item.record.put(item.status)

    def _fence_older(self, new: Item) -> bool:
        """End older attempts of the same at once; True while one still lives, since the two must never run together."""
        older = [i for i in self._items.values() if _replaces(new.spec, i.spec) and not i.ended]
        for item in older:
            _order(item, Stop(0))
        return bool(older)

    def _reload(self, work: WorkId) -> Item | None:
        """One that was told and put away."""
        record = Record(self.root / _key(work))
        spec = record.spec
        if spec is None:
            return None
        item = Item(record, spec, record.status, record.acknowledged)
        self._items[spec.key] = item
        return item

    def _acknowledge_report(self, report: WorkReport) -> None:
        item = self._items.get(_key(report.id))
        if item is not None:
            item.known.state = report.state
            item.known.done = report.state in ("exited", "lost")


def _key(work: WorkId) -> str:
    return f"{work.session}.{work.attempt}.{work.rank}"


def _replaces(new: Spec, old: Spec) -> bool:
    return (old.session, old.rank) == (new.session, new.rank) and old.attempt < new.attempt


def _state(item: Item) -> str:
    return item.status.state if item.status is not None else ""


def _elsewhere(spec: Spec) -> str | None:
    """The mark of work whose processes are the engine's children, not the supervisor's."""
    return spec.home if spec.isolation in isolation.CONTAINERS else None


def _order(item: Item, stop: Stop) -> None:
    """Write the order down and wake the supervisor; one that came already, with no more grace, stands."""
    given = item.record.stop
    if given is not None and given.grace <= stop.grace:
        return
    item.record.put(stop)
    supervisor = item.record.supervisor
    if supervisor is not None and processes.alive(supervisor):
        os.kill(supervisor.pid, signal.SIGUSR1)


def _chunk(item: Item) -> LogChunk:
    with open(item.record.output, "rb") as output:
        output.seek(item.known.offset)
        data = output.read(CHUNK)
    return LogChunk(id=item.id, offset=item.known.offset, data=base64.b64encode(data).decode())


def _reports(item: Item) -> list[WorkReport]:
    """What to tell of it: its state; of one that ended before its start was told, the start first."""
    status = item.status
    if status is None:
        return []
    reports = [_report(item, status.state, datetime.fromisoformat(status.at), status.exit_code)]
    if item.ended and status.begun is not None and item.known.state != "running":
        reports.insert(0, _report(item, "running", datetime.fromisoformat(status.begun), None))
    reports[-1].detail = detail(status, item.spec)
    reports[-1].stopped = status.why == "stopped"
    return reports


def _report(item: Item, state: State, at: datetime, exit_code: int | None) -> WorkReport:
    return WorkReport(id=item.id, state=state, exit_code=exit_code, at=at)


def _never_seen(work: WorkId) -> WorkReport:
    said = S("This node has no record of having started it.")
    return WorkReport(id=work, state="lost", at=datetime.now(UTC), detail=said)


def _no_room(work: WorkId, error: OSError) -> WorkReport:
    said = S("It could not be started: {why}.", why=error.strerror or str(error))
    return WorkReport(id=work, state="exited", exit_code=127, at=datetime.now(UTC), detail=said)
