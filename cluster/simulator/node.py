"""A simulated node's agent: says and obeys what a real one does, with `Life`s instead of processes."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random

from cluster.models import Beat, BeatReply, Device, LogChunk, NodeInfo, Resources, Sample, Work, WorkId, WorkReport
from cluster.sentence import S, Sentence
from cluster.simulator.life import Life, board, wobble
from cluster.simulator.scenario import NodeSpec
from cluster.units import human_duration

HEAT = 25.0
"""°C that a hot node is warmer."""

STOPPED = 143
"""Exit code of what was told to stop, as a shell says it."""

GIB = 2**30


@dataclass(slots=True)
class Piece:
    """One rank of a session that runs here."""

    id: WorkId
    life: Life
    cpu: float
    memory: int
    devices: dict[int, float]
    ends: datetime | None = None
    limit: float | None = None
    """Its time limit in seconds."""
    written: int = 0
    """Bytes of output so far."""
    told: datetime | None = None
    """Output was told up to here; None right after the start."""

    @property
    def deadline(self) -> datetime | None:
        """When it is over, by itself or by its limit."""
        limit = None if self.limit is None else self.life.began + timedelta(seconds=self.limit)
        return min((when for when in (self.ends, limit) if when), default=None)

    @property
    def limited(self) -> bool:
        """Its limit comes before its own end."""
        limit = None if self.limit is None else self.life.began + timedelta(seconds=self.limit)
        return limit is not None and self.deadline == limit and limit != self.ends


@dataclass(slots=True)
class SimulatedAgent:
    """The agent of one node. `compose` makes its next beat, `heard` takes the answer."""

    spec: NodeSpec
    seed: int
    pieces: dict[tuple[str, int, int], Piece] = field(default_factory=dict)
    silent: bool = False
    """It does not speak and does not hear: the node is lost."""
    heat: float = 0.0
    _reports: list[WorkReport] = field(default_factory=list)
    _logs: list[LogChunk] = field(default_factory=list)
    _known: set[tuple[str, int, int]] = field(default_factory=set)

    def copy(self) -> "SimulatedAgent":
        """A twin that goes on from here by itself."""
        twin = SimulatedAgent(self.spec, self.seed, {}, self.silent, self.heat, self._reports[:], self._logs[:])
        twin._known = set(self._known)
        twin.pieces = {key: replace(piece) for key, piece in self.pieces.items()}
        return twin

    # ── what it says ─────────────────────────────────────────────────────────────────────────────

    def info(self) -> NodeInfo:
        spec = self.spec
        capacity = Resources(cpu=spec.cpu, memory=spec.memory, gpu=spec.gpu)
        devices = [Device(index=i, model=spec.gpu_model or "GPU", memory=_memory_of(spec)) for i in range(spec.gpu)]
        return NodeInfo(
            name=spec.name,
            capacity=capacity,
            devices=devices,
            gpu_model=spec.gpu_model,
            rack=spec.rack,
            resource_group=spec.resource_group,
            isolation="simulated",
        )

    def compose(self, now: datetime) -> Beat:
        """What there is to say now: ends, output since the last beat, measurements."""
        for piece in [*self.pieces.values()]:
            if piece.deadline is not None and piece.deadline <= now:
                self._finish(piece, piece.deadline)
            else:
                self._print(piece, piece.life.lines(piece.told or piece.life.began, now), now)
        running = [piece.id for piece in self.pieces.values()]
        return Beat(running=running, reports=self._reports[:], logs=self._logs[:], sample=self.sample(now))

    def heard(self, reply: BeatReply, now: datetime) -> bool:
        """The beat arrived, and this is the answer. True when it brought something new to do."""
        self._reports.clear()
        self._logs.clear()
        for order in reply.stop:
            self._stop(order.id, now)
        started = [work for work in reply.start if self._start(work, now)]
        return bool(reply.stop or started)

    @property
    def news(self) -> bool:
        """It has something to say that matters: a start or an end."""
        return bool(self._reports)

    def next_end(self) -> datetime | None:
        """When the next of its sessions ends."""
        return min((piece.deadline for piece in self.pieces.values() if piece.deadline), default=None)

    # ── what it does ─────────────────────────────────────────────────────────────────────────────

    def adopt(self, piece: Piece) -> None:
        """It runs already, and the server knows."""
        self._known.add(_key(piece.id))
        self.pieces[_key(piece.id)] = piece

    def crash(self, session: str, now: datetime) -> None:
        """The session fails here and now."""
        for piece in [piece for piece in self.pieces.values() if piece.id.session == session]:
            self._print(
                piece,
                ["Traceback (most recent call last):", "RuntimeError: CUDA error: unspecified launch failure"],
                now,
            )
            self._end(piece, 1, now, None)

    def _start(self, work: Work, now: datetime) -> bool:
        if _key(work.id) in self._known:
            return False
        life = Life.of_work(self.seed, work, now)
        lasts = life.lasts(work.time_limit)
        ends = None if lasts is None else now + lasts
        self.adopt(Piece(work.id, life, work.cpu, work.memory, dict(work.devices), ends, work.time_limit))
        self._report(work.id, "preparing", now)
        self._report(work.id, "running", now)
        return True

    def _stop(self, id_: WorkId, now: datetime) -> None:
        piece = self.pieces.get(_key(id_))
        if piece is not None:
            self._end(piece, STOPPED, now, S("It was stopped."))
            self._reports[-1].stopped = True
        elif _key(id_) not in self._known:
            self._known.add(_key(id_))
            self._reports.append(
                WorkReport(id=id_, state="lost", at=now, detail=S("This node has no record of having started it."))
            )

    def _finish(self, piece: Piece, at: datetime) -> None:
        self._print(piece, piece.life.lines(piece.told or piece.life.began, at), at)
        if piece.limited:
            said = S("It reached its time limit of {limit}.", limit=human_duration(piece.limit or 0))
            self._end(piece, STOPPED, at, said)
        else:
            self._print(piece, ["done"], at)
            self._end(piece, piece.life.exit_code(), at, None)

    def _end(self, piece: Piece, code: int, at: datetime, detail: Sentence | None) -> None:
        del self.pieces[_key(piece.id)]
        self._report(piece.id, "exited", at, code, detail)

    def _report(
        self, id_: WorkId, state: str, at: datetime, code: int | None = None, detail: Sentence | None = None
    ) -> None:
        values = {"id": id_, "state": state, "exit_code": code, "at": at, "detail": detail}
        self._reports.append(WorkReport.model_validate(values))

    def _print(self, piece: Piece, lines: Iterable[str], until: datetime) -> None:
        piece.told = until
        text = "".join(f"{line}\n" for line in lines).encode()
        if text and piece.id.rank == 0:
            data = base64.b64encode(text).decode()
            self._logs.append(LogChunk(id=piece.id, offset=piece.written, data=data))
            piece.written += len(text)

    # ── what it measures ─────────────────────────────────────────────────────────────────────────

    def sample(self, now: datetime) -> Sample:
        """Utilisation, temperature and power at this moment."""
        use = {key: piece.life.utilization(now) for key, piece in self.pieces.items()}
        devices = [self._device(i, use, now) for i in range(self.spec.gpu)]
        cpu = sum(piece.cpu * _cpu_use(piece, use[key]) for key, piece in self.pieces.items()) / max(self.spec.cpu, 1)
        memory = sum(piece.memory * self._fill(piece) for piece in self.pieces.values()) / max(self.spec.memory, 1)
        return Sample(
            cpu_utilization=round(min(1.0, cpu + 0.01), 3),
            memory_utilization=round(min(1.0, memory + 0.02), 3),
            temperature=self._temperature(devices, cpu, now),
            power=round(180 + 2.2 * self.spec.cpu * cpu + sum(device.power or 0 for device in devices), 1),
            devices=devices,
            sessions={piece.id.session: use[key] for key, piece in self.pieces.items()},
        )

    def _device(self, index: int, use: dict[tuple[str, int, int], float], now: datetime) -> Device:
        held = {key: piece.devices.get(index, 0.0) for key, piece in self.pieces.items()}
        load = min(1.0, sum(share * use[key] for key, share in held.items()))
        idle, full = board(self.spec.gpu_model)
        return Device(
            index=index,
            model=self.spec.gpu_model or "GPU",
            memory=_memory_of(self.spec),
            used=min(1.0, sum(held.values())),
            utilization=round(load, 3),
            temperature=round(31 + self.heat + 38 * load + wobble(self.seed, f"{self.spec.name}/{index}", now, 1.5), 1),
            power=round(idle + (full - idle) * load, 1),
        )

    def _temperature(self, devices: list[Device], cpu: float, now: datetime) -> float:
        shift = wobble(self.seed, self.spec.name, now, 0.8)
        if self.spec.temperature is not None:
            return round(self.spec.temperature + self.heat + shift, 1)
        hottest = max((device.temperature or 0 for device in devices), default=0.0)
        return round(max(hottest, 33 + self.heat + 25 * cpu + shift), 1)

    def _fill(self, piece: Piece) -> float:
        """The share of its memory that a piece really uses."""
        return Random(f"{self.seed}/{piece.id.session}/memory").uniform(0.35, 0.9)


def _key(id_: WorkId) -> tuple[str, int, int]:
    return id_.session, id_.attempt, id_.rank


def _cpu_use(piece: Piece, use: float) -> float:
    """A GPU session keeps some of its cores busy, another all that it uses."""
    return 0.4 * use if piece.devices else use


def _memory_of(spec: NodeSpec) -> int:
    """Memory of one GPU: as given, else as its model's name says (A100-80G), else 24 GiB."""
    if spec.gpu_memory is not None:
        return spec.gpu_memory
    digits = [part.rstrip("GgBb") for part in (spec.gpu_model or "").split("-") if part[:1].isdigit()]
    return int(digits[0]) * GIB if digits and digits[0].isdigit() else 24 * GIB
