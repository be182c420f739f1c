"""GET /v1/diagnosis: what the checks are to look at is gathered here, and nothing else is done."""

import asyncio
import os
from collections.abc import Sequence, Sized
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import func, select

from cluster import access, records
from cluster.db.tables import EventRow, SessionRow
from cluster.diagnosis import checks
from cluster.diagnosis.seen import Disk, Seen
from cluster.diagnosis.sessions import failed
from cluster.ledger import Ledger
from cluster.lifecycle import WAITING
from cluster.live import LiveSession
from cluster.models import Diagnosis, Endpoint, Finding, Node, PipelineRun, RunState, Session, SessionState, User
from cluster.pipelines.reads import RunQuery
from cluster.serving.reads import EndpointQuery
from cluster.storage.reads import FolderQuery
from cluster.transaction import Transaction, seen_by

if TYPE_CHECKING:
    from cluster.core import Core

SHOWN = 20
"""Findings are told, the worst; the rest is counted."""
LATELY = timedelta(days=1)
"""What ended before that is over."""
MOST_ENDED, MOST_LIVE, MOST_WAITING = 500, 1000, 200
"""Sessions that are looked at; the idle and the largest first; of those that wait the oldest."""
MOST_LOGS = 60
TAIL = 64 * 1024
"""Bytes of a log that are read, from its end."""
MOST_RUNS, MOST_FAILED_RUNS = 200, 10


class _Live(NamedTuple):
    """What the ledger gives, between two commits."""

    nodes: list[Node]
    sessions: list[Session]
    attempts: dict[str, int]
    """Session id -> the attempt whose output is meant."""
    target: Session | None
    not_seen: int


class Diagnoses:
    """Looks and judges, filtered by what the asking person may see; changes nothing."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    async def diagnose(self, user: User, target: str | None) -> Diagnosis:
        """Of one node, endpoint or session; or of everything. Raises `NotFound` and `Ambiguous`."""
        now = self._core.clock.now()
        endpoints = (await self._core.serving.endpoints.all(user, EndpointQuery(limit=1000))).items
        known = {at.name for at in endpoints} | set(self._core.ledger.nodes)
        live = await self._live(user, now, target if target not in known else None)
        ended, attempts = await self._ended(user, now)
        wanted = [live.target] if live.target else []
        sessions = current([*live.sessions, *ended, *wanted])
        only = _only(target, live, endpoints)
        logs = await self._logs(worth_reading(sessions, only), attempts | live.attempts)
        seen = await self._seen(user, now, live, sessions, endpoints)
        return _judged(replace(seen, logs=logs), target, live.target)

    async def _seen(
        self, user: User, now: datetime, live: _Live, sessions: list[Session], endpoints: list[Endpoint]
    ) -> Seen:
        directory, admin = self._core.directory, access.is_admin(user)
        return Seen(
            now=now,
            user=user.name,
            admin=admin,
            nodes=live.nodes,
            closed=await self._closed([n.name for n in live.nodes]),
            selectors={name: group.selector for name, group in directory.groups.items()},
            limits={key: row.gpu for key, row in directory.quotas.items() if admin and row.gpu is not None},
            sessions=sessions,
            endpoints=endpoints,
            runs=await self._runs(user, now),
            folders=(await self._core.folders.folders(user, FolderQuery(limit=1000))).items,
            disk=None if self._core.simulated else await asyncio.to_thread(_disk, self._core.data_dir),
            not_seen=live.not_seen,
        )

    # ── gathering ────────────────────────────────────────────────────────────────────────────────

    async def _live(self, user: User, now: datetime, target: str | None) -> _Live:
        """Nodes and live sessions; and the session called `target`, which may have ended long ago."""
        async with self._core.still() as ledger:
            tx = Transaction(self._core, user, now, dry_run=True)
            meant = await tx.session(target) if target is not None else None
            seen = [s for s in ledger.sessions.values() if access.sees(user, s.user, s.project)]
            chosen = _chosen(seen)
            decided = self._core.outlook.plan(now)
            shown = {s.id: self._core.shown(user, s, decided) for s in [*chosen, *([meant] if meant else [])]}
            return _Live(
                nodes=_nodes(ledger),
                sessions=[shown[s.id] for s in chosen],
                attempts={s.id: s.attempt for s in [*chosen, *([meant] if meant else [])]},
                target=shown[meant.id] if meant else None,
                not_seen=len(ledger.sessions) - len(seen),
            )

    async def _ended(self, user: User, now: datetime) -> tuple[list[Session], dict[str, int]]:
        table = SessionRow.__table__
        wanted = select(table).where(seen_by(user), table.c.ended >= now - LATELY)
        async with self._core.db.read() as db:
            rows = (await db.execute(wanted.order_by(table.c.ended.desc()).limit(MOST_ENDED))).mappings()
            found = [LiveSession.of(row) for row in rows]
        return [records.session(s) for s in found], {s.id: s.attempt for s in found}

    async def _closed(self, nodes: Sequence[str]) -> dict[str, datetime]:
        """When a node was last cordoned or drained, as its events say."""
        kinds = ("node_cordoned", "node_draining")
        latest = select(EventRow.target, func.max(EventRow.at)).where(EventRow.kind.in_(kinds))
        async with self._core.db.read() as db:
            rows = await db.execute(latest.where(EventRow.target.in_(nodes)).group_by(EventRow.target))
            return {str(name): at for name, at in rows}

    async def _runs(self, user: User, now: datetime) -> list[PipelineRun]:
        """Of each pipeline the latest; of those that failed lately with their steps."""
        page = await self._core.pipelines.runs(user, RunQuery(limit=MOST_RUNS))
        latest = {(run.project, run.pipeline): run for run in reversed(page.items)}
        failed_ = [r for r in latest.values() if r.state is RunState.FAILED and (r.ended or now) >= now - LATELY]
        return [await self._core.pipelines.run(user, run.id) for run in failed_[:MOST_FAILED_RUNS]]

    async def _logs(self, sessions: list[Session], attempts: dict[str, int]) -> dict[str, str]:
        paths = {s.id: self._core.agents.log_file(s.id, attempts[s.id]) for s in sessions}
        return await asyncio.to_thread(lambda: {ident: tail(path) for ident, path in paths.items()})


def _nodes(ledger: Ledger) -> list[Node]:
    rows = [ledger.nodes[name] for name in sorted(ledger.nodes)]
    return [records.node(row, list(ledger.ranks_on(row.name)), []) for row in rows]


def _chosen(seen: list[LiveSession]) -> list[LiveSession]:
    """Those that are looked at, of a crowd."""
    waiting = sorted((s for s in seen if s.state in WAITING), key=lambda s: s.submitted)
    holding = sorted((s for s in seen if s.state not in WAITING), key=lambda s: (not records.idle(s), -s.gpu, s.id))
    return [*holding[:MOST_LIVE], *waiting[:MOST_WAITING]]


def current(sessions: Sequence[Session]) -> list[Session]:
    """Each once; of those that have ended, none that its user has started again under the same name."""
    by_id = {s.id: s for s in sessions}
    latest: dict[tuple[str, str], datetime] = {}
    for s in by_id.values():
        latest[s.user, s.name] = max(s.submitted, latest.get((s.user, s.name), s.submitted))
    return [s for s in by_id.values() if s.ended is None or s.submitted >= latest[s.user, s.name]]


def worth_reading(sessions: Sequence[Session], only: frozenset[str] | None) -> list[Session]:
    """Whose output is read: the failed ones', the idle ones', then the largest running ones'. `only`: these ids."""
    wanted = [s for s in sessions if failed(s) or (s.state is SessionState.RUNNING and s.resources.gpu)]
    wanted = [s for s in sessions if s.id in only] if only is not None else wanted
    return sorted(wanted, key=lambda s: (not failed(s), not s.idle, -s.resources.gpu, s.id))[:MOST_LOGS]


def _only(target: str | None, live: _Live, endpoints: list[Endpoint]) -> frozenset[str] | None:
    """The sessions that a target is about; None: all."""
    if target is None:
        return None
    if live.target:
        return frozenset({live.target.id})
    replicas = {r.session for at in endpoints if at.name == target for r in at.replicas}
    there = {s.id for s in live.sessions if any(a.node == target for a in s.allocations)}
    return frozenset(replicas | there)


def tail(path: Path) -> str:
    """The end of a session's output, decoded; empty where there is none (any more)."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            return file.read(TAIL).replace(b"\0", b"").decode(errors="replace")
    except OSError:
        return ""


def _disk(path: Path) -> Disk:
    stat = os.statvfs(path)
    return Disk(free=stat.f_bavail * stat.f_frsize, size=stat.f_blocks * stat.f_frsize)


# ── judging ──────────────────────────────────────────────────────────────────────────────────────


def _judged(seen: Seen, target: str | None, session: Session | None) -> Diagnosis:
    node = next((n for n in seen.nodes if n.name == target), None)
    endpoint = next((e for e in seen.endpoints if e.name == target), None)
    if target is None:
        found = checks.everything(seen)
        return _told(seen, found, Diagnosis(summary=checks.summary(seen, found), findings=[], total=0))
    thing = session or endpoint or node
    assert thing is not None, "a target that is none of these was not found before"
    if isinstance(thing, Session):
        found = checks.of_session(seen, thing)
    elif isinstance(thing, Endpoint):
        found = checks.of_endpoint(seen, thing)
    else:
        found = checks.of_node(seen, thing)
    kind = type(thing).__name__.lower()
    shape = {"target": thing.name, "kind": kind, "summary": checks.of_one(thing, found), "findings": [], "total": 0}
    return _told(seen, found, Diagnosis.model_validate(shape))


def _told(seen: Seen, found: list[Finding], made: Diagnosis) -> Diagnosis:
    looked: dict[str, Sized] = {
        "nodes": seen.nodes,
        "sessions": seen.sessions,
        "logs": seen.logs,
        "endpoints": seen.endpoints,
        "runs": seen.runs,
        "folders": seen.folders,
    }
    severities = [f.severity for f in found]
    return made.model_copy(
        update={
            "findings": found[:SHOWN],
            "total": len(found),
            "counts": {word: count for word in ("error", "warning", "info") if (count := severities.count(word))},
            "looked_at": {word: len(things) for word, things in looked.items() if things},
            "not_seen": seen.not_seen,
        }
    )
