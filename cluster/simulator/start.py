"""From a loaded scenario to its simulated fleet: what runs already, what has been printed, what will go wrong."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

from cluster.lifecycle import ENDED
from cluster.models import NodeStatus, SessionState, WorkId
from cluster.scheduler.state import Placement
from cluster.simulator.fleet import Fleet, Happening
from cluster.simulator.life import PACE, Life, kind_of
from cluster.simulator.loading import Loaded
from cluster.simulator.node import Piece, SimulatedAgent
from cluster.simulator.scenario import FaultSpec, Scenario, SessionSpec

RUNS = (SessionState.RUNNING, SessionState.TERMINATING)
"""States in which an agent has a session."""

LINES = 40
"""So many lines a session has printed before the scenario's clock."""

ATTEMPT = 1
"""Of everything that a scenario starts with."""

AFTER = {"lost": "recovered", "hot": "cool"}
"""What ends a fault that lasts for a while."""


def start_fleet(loaded: Loaded, seed: int) -> Fleet:
    """The agents of all nodes, with the sessions that run there."""
    scenario = loaded.scenario
    agents = {node.name: SimulatedAgent(node, seed, silent=node.status == NodeStatus.LOST) for node in scenario.nodes}
    for session in scenario.sessions:
        if session.status in RUNS:
            life = life_of(scenario, session, seed)
            written = len("".join(past_lines(scenario, session, seed)).encode())
            for rank, placement in enumerate(loaded.placements[session.id or ""]):
                agents[placement.node].adopt(_piece(scenario, session, life, rank, placement, written))
    return Fleet(agents, [happening for fault in scenario.faults for happening in _happenings(scenario, fault)])


def life_of(scenario: Scenario, session: SessionSpec, seed: int) -> Life:
    """The session as it will be played."""
    use = session.gpu_utilization if session.gpu else session.cpu_utilization
    began = scenario.when(session.started or timedelta(0))
    kind = kind_of(session.type, session.command, session.gpu)
    base = 0.0 if use is None and session.idle else use
    return Life(seed, session.id or "", kind, began, session.command, base, scenario.now, session.log is not None)


def _piece(
    scenario: Scenario, session: SessionSpec, life: Life, rank: int, placement: Placement, written: int
) -> Piece:
    limit = session.time_limit.total_seconds() if session.time_limit else None
    over = limit is not None and life.began + timedelta(seconds=limit) <= scenario.now
    return Piece(
        id=WorkId(session=session.id or "", attempt=ATTEMPT, rank=rank),
        life=life,
        cpu=placement.cpu,
        memory=placement.memory,
        devices=dict(placement.devices),
        ends=_end(scenario, session, life),
        limit=None if over else limit,
        written=written if rank == 0 else 0,
        told=scenario.now,
    )


def _end(scenario: Scenario, session: SessionSpec, life: Life) -> datetime | None:
    """When it will end by itself: after the clock, whatever was drawn."""
    limit = session.time_limit.total_seconds() if session.time_limit else None
    lasts = session.runs_for or life.lasts(limit)
    if lasts is None:
        return None
    end, draw = life.began + lasts, Random(f"{life.seed}/{life.id}/rest")
    if end > scenario.now:
        return end
    return scenario.now + timedelta(seconds=round(draw.uniform(300, 10_800)))


# ── what was printed ─────────────────────────────────────────────────────────────────────────────


def past_lines(scenario: Scenario, session: SessionSpec, seed: int) -> list[str]:
    """What a session has printed up to the clock (or its end), with line breaks; the scenario's `log` comes last."""
    if session.started is None:
        return []
    life = life_of(scenario, session, seed)
    until = scenario.when(session.ended) if session.ended and session.status in ENDED else scenario.now
    given = session.log.splitlines() if isinstance(session.log, str) else session.log or []
    wanted = 5 if session.log is not None else LINES
    talking = Life(life.seed, life.id, life.kind, life.began, life.command)
    lines = talking.lines(until - timedelta(seconds=PACE[life.kind] * wanted), until)
    return [f"{line}\n" for line in (*lines, *given)]


def write_logs(loaded: Loaded, seed: int, data_dir: Path) -> None:
    """The output so far of every session that has run: `logs/<session>/<attempt>.<rank>.log`."""
    for session in loaded.scenario.sessions:
        lines = past_lines(loaded.scenario, session, seed)
        if lines:
            folder = data_dir / "logs" / (session.id or "")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{ATTEMPT}.0.log").write_text("".join(lines), encoding="utf-8")


# ── what will go wrong ───────────────────────────────────────────────────────────────────────────


def _happenings(scenario: Scenario, fault: FaultSpec) -> Iterator[Happening]:
    at = scenario.when(fault.when)
    session = next((each.id or "" for each in scenario.sessions if fault.session in (each.id, each.name)), "")
    yield Happening(at, fault.kind, fault.node or "", session)
    if fault.duration and fault.kind in AFTER:
        yield Happening(at + fault.duration, AFTER[fault.kind], fault.node or "", session)
