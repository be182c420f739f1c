"""What a simulated session does with its time: how hard it works, what it prints, when it ends.

Everything follows from the seed, the session's id and the time, so that two runs of a scenario are the same.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import pi, sin
from random import Random

from cluster.models import SessionType, Work


class Kind(StrEnum):
    """What sort of program it is, as far as its looks go."""

    TRAINING = "training"
    SERVING = "serving"
    NOTEBOOK = "notebook"
    DATA = "data"
    COMMAND = "command"


PACE = {Kind.TRAINING: 20, Kind.SERVING: 7, Kind.NOTEBOOK: 900, Kind.DATA: 30, Kind.COMMAND: 60}
"""Seconds between two lines of output."""

BASE = {Kind.TRAINING: 0.88, Kind.SERVING: 0.55, Kind.NOTEBOOK: 0.12, Kind.DATA: 0.8, Kind.COMMAND: 0.4}
"""Usual utilisation of what it holds."""

SWAY = 0.08
"""How far utilisation moves around its usual value, as a share of it."""

MOST_LINES = 200
"""No more lines than this come in one go."""

_SLEEP = re.compile(r"\bsleep (\d+(?:\.\d+)?)\b")
_SERVER = re.compile(r"\b(serve|server|uvicorn|gunicorn)\b")
_EXIT = re.compile(r"\bexit (\d+)\b|\b(false)$")


def kind_of(type_: SessionType, command: str | None, gpu: float) -> Kind:
    """By its type, and by whether it has a GPU; a plain shell command is just that."""
    if type_ in (SessionType.INFERENCE, SessionType.SYSTEM) or _SERVER.search(command or ""):
        return Kind.SERVING
    if command is None:
        return Kind.NOTEBOOK
    if _SLEEP.search(command):
        return Kind.COMMAND
    return Kind.TRAINING if gpu else Kind.DATA


@dataclass(frozen=True, slots=True)
class Life:
    """One session as the simulator plays it."""

    seed: int
    id: str
    kind: Kind
    began: datetime
    command: str | None = None
    base: float | None = None
    """Utilisation around which it moves; of its kind when None."""
    steady: datetime | None = None
    """Up to this moment utilisation is just `base`, as a scenario says it of its clock."""
    silent: bool = False
    """It prints nothing more (it hangs, or its log was given)."""

    @classmethod
    def of_work(cls, seed: int, work: Work, now: datetime) -> "Life":
        """Of work that the server just gave out."""
        serves = "HELMSMAN_ENDPOINT" in work.env
        type_ = SessionType.BATCH if work.command else SessionType.INTERACTIVE
        kind = kind_of(SessionType.INFERENCE if serves else type_, work.command, sum(work.devices.values()))
        return cls(seed, work.id.session, kind, now, work.command)

    def _random(self, *what: object) -> Random:
        return Random(f"{self.seed}/{self.id}/{'/'.join(map(str, what))}")

    def utilization(self, at: datetime) -> float:
        """0..1: its usual value, slowly swaying, with a little noise every ten seconds."""
        base = BASE[self.kind] if self.base is None else self.base
        if self.steady is not None and at <= self.steady:
            return base
        age = (at - self.began).total_seconds()
        phase = self._random("phase").random() * 2 * pi
        noise = self._random("noise", int(at.timestamp() // 10)).uniform(-0.5, 0.5)
        value = base * (1 + SWAY * sin(age / 90 + phase) + SWAY * noise)
        return round(min(1.0, max(0.0, value)), 3)

    def lasts(self, limit: float | None) -> timedelta | None:
        """How long it runs by itself; None when until it is stopped. `limit` in seconds is not passed here."""
        if self.kind in (Kind.NOTEBOOK, Kind.SERVING) or self.command is None:
            return None
        if found := _SLEEP.search(self.command):
            return timedelta(seconds=float(found[1]))
        draw = self._random("lasts")
        if limit is not None:
            return timedelta(seconds=round(limit * draw.uniform(0.4, 0.95)))
        return timedelta(seconds=round(min(86_400.0, 60 * draw.lognormvariate(3.6, 0.9))))

    def exit_code(self) -> int:
        """0, unless the command says otherwise."""
        found = _EXIT.search(self.command or "")
        return int(found[1] or 1) if found else 0

    def lines(self, after: datetime, until: datetime) -> list[str]:
        """What it prints in (after, until], the last `MOST_LINES` of it."""
        if self.silent:
            return []
        pace = PACE[self.kind]
        first = int((after - self.began).total_seconds() // pace) + 1
        last = int((until - self.began).total_seconds() // pace)
        return [self._line(n) for n in range(max(first, last - MOST_LINES + 1, 1), last + 1)]

    def _line(self, n: int) -> str:
        at, draw = self.began + timedelta(seconds=n * PACE[self.kind]), self._random("line", n)
        match self.kind:
            case Kind.TRAINING:
                loss = 1.4 + 6 / (1 + n / 40) ** 0.5 + draw.uniform(-0.06, 0.06)
                rate = 3e-4 / (1 + n / 900)
                return f"step {n * 25:>7} | loss {loss:.3f} | lr {rate:.2e} | {draw.uniform(41, 44):.1f}k tok/s"
            case Kind.SERVING:
                path = draw.choice(["/v1/chat/completions", "/v1/chat/completions", "/v1/embeddings", "/health"])
                return f'{at:%H:%M:%S} INFO "POST {path}" 200 {draw.uniform(0.2, 2.1):.2f}s'
            case Kind.DATA:
                return f"{at:%H:%M:%S} {n * draw.randint(180, 220)} files done, {draw.uniform(6, 8):.1f} files/s"
            case Kind.NOTEBOOK:
                return f"[I {at:%H:%M:%S} ServerApp] Saving file at /analysis-{draw.randint(1, 9)}.ipynb"
            case Kind.COMMAND:
                return f"{at:%H:%M:%S} still running ({n} min)"


# ── devices and nodes ────────────────────────────────────────────────────────────────────────────

BOARD = {"h100": (70, 700), "a100": (60, 400), "l40s": (35, 350), "v100": (40, 300), "t4": (10, 70)}
"""Watts of a GPU when idle and at full load."""


def board(model: str | None) -> tuple[int, int]:
    """Idle and full watts of a GPU of this model."""
    name = (model or "").lower()
    return next((watts for key, watts in BOARD.items() if key in name), (40, 300))


def wobble(seed: int, what: str, at: datetime, size: float) -> float:
    """A small change every ten seconds, within ±size."""
    return Random(f"{seed}/{what}/{int(at.timestamp() // 10)}").uniform(-size, size)
