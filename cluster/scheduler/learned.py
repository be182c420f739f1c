"""Short first without knowing run times: how long will a session still take, judged by those submitted near it?

People submit in bursts: what asks for as many GPUs at nearly the same time mostly runs as long. So the ended sessions
of the same size that were submitted nearest count most, those that still run count with what they have run so far, and
no name of anybody is looked at. From these follows a session's *index* (Gittins): the least, over every time that it
could be given, of the seconds expected for each chance that it ends. It is low when an end is near, and grows while the
session outlives all that it resembled. `ShortFirst` makes of it where the session *stands*; lower goes first:

    standing = index x weight / (1 + waited / PATIENCE)

Weight is the number of GPUs, and at most `GANG` for a session on several nodes: its parts must not starve it. Where the
group preempts, a session that may be stopped gives way to one that stands clearly lower (`preempt.CLEARLY`).
"""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cluster.scheduler.board import Board
from cluster.scheduler.fleet import Floats, Ints

KEPT = 512
"""So many ended sessions of each size are remembered."""

SIZES = 64
"""So many sizes (numbers of GPUs) are remembered; the one that ended nothing for longest goes first."""

NEAR = 8
"""So many neighbours are asked, among those submitted before and after each."""

CLOSE = 600.0
"""A neighbour submitted this many seconds away counts half."""

RECENT, RECENT_WEIGHT = 20, 0.1
"""The latest ended of the size count as well, together as much as this."""

TELLING, STILL = 600.0, 3.0
"""One that has run this many seconds is a neighbour too, and counts as if it took so many times what it has run."""

LEAST, GUESS_WEIGHT = 1200.0, 0.05
"""Without better knowledge: twice what it has run, at least so many seconds, or five times that; each counts so."""

GANG = 2.0
"""GPUs that a session on several nodes counts, however many it has."""

PATIENCE = 4 * 86400.0
"""Having waited this many seconds halves a standing."""

MOVED = 0.1
"""A change of a standing by less than this share is not worth telling the board."""


class RunTimes:
    """What ended sessions of one resource group tell of the others, by their number of GPUs. Its memory is bounded."""

    def __init__(self) -> None:
        self._ended: dict[float, deque[tuple[float, float]]] = {}

    def observe(self, gpus: float, submitted: float, seconds: float) -> None:
        """A session has ended that was submitted then (s since the epoch) and ran for `seconds` in all."""
        ended = self._ended.pop(gpus, None)
        if ended is None:
            ended = deque(maxlen=KEPT)
            if len(self._ended) >= SIZES:
                del self._ended[next(iter(self._ended))]
        self._ended[gpus] = ended
        ended.append((submitted, seconds))

    def expect(self, gpus: float, submitted: Floats, ran: Floats, of: Ints) -> Floats:
        """The index (s) of some sessions of one size: of those numbered `of` among all that wait and run, which were
        `submitted` then (s since the epoch) and have run so far (s)."""
        ended = np.array(self._ended.get(gpus, ()), np.float64).reshape(-1, 2)
        near, weight = _neighbours(ended, submitted, ran, of)
        recent = np.broadcast_to(ended[-RECENT:, 1], (len(of), len(ended[-RECENT:])))
        guess = np.maximum(2 * ran[of], LEAST)[:, None] * (1.0, 5.0)
        share = RECENT_WEIGHT / max(1, recent.shape[1])
        weights = [weight, np.full(recent.shape, share), np.full(guess.shape, GUESS_WEIGHT)]
        return index(np.concatenate([near, recent, guess], axis=1), np.concatenate(weights, axis=1), ran[of])


def _neighbours(ended: Floats, submitted: Floats, ran: Floats, of: Ints) -> tuple[Floats, Floats]:
    """Run times of the sessions submitted nearest to each, and what each of them counts."""
    told = np.flatnonzero(ran >= TELLING)
    when = np.concatenate([ended[:, 0], submitted[told]])
    seconds = np.concatenate([ended[:, 1], STILL * ran[told]])
    who = np.concatenate([np.full(len(ended), -1), told])
    if not len(when):
        return np.zeros((len(of), 0)), np.zeros((len(of), 0))
    order = np.argsort(when, kind="stable")
    when, seconds, who, mine = when[order], seconds[order], who[order], submitted[of]
    middle = (np.searchsorted(when, mine, "left") + np.searchsorted(when, mine, "right")) // 2
    at: Ints = middle[:, None] + np.arange(-NEAR, NEAR)
    there = (at >= 0) & (at < len(when))
    at = at.clip(0, len(when) - 1)
    there &= who[at] != of[:, None]
    return seconds[at], there * CLOSE / (CLOSE + np.abs(when[at] - mine[:, None]))


def index(seconds: Floats, weights: Floats, ran: Floats) -> Floats:
    """The Gittins index of each row: the least, over a time it is given, of expected seconds / chance that it ends.

    `seconds` (sessions x cases) it could take in all, `weights` what each case counts; cases it has outlived do not.
    """
    order = np.argsort(seconds, axis=1)
    left = np.take_along_axis(seconds, order, axis=1) - ran[:, None]
    weight = np.take_along_axis(weights, order, axis=1) * (left > 0)
    left = np.maximum(left, 0.0)
    ends = weight.cumsum(axis=1)
    expected = (weight * left).cumsum(axis=1) + (ends[:, -1:] - ends) * left
    found: Floats = np.divide(expected, ends, out=np.full(ends.shape, np.inf), where=ends > 0).min(axis=1)
    return found


@dataclass(slots=True)
class _Live:
    gpus: float
    nodes: int
    submitted: float
    ran: float = 0.0
    """In earlier attempts (s)."""
    since: float | None = None
    """When it began to run; None while it waits."""

    def so_far(self, now: float) -> float:
        return self.ran + (0.0 if self.since is None else max(0.0, now - self.since))

    @property
    def weight(self) -> float:
        return min(self.gpus, GANG) if self.nodes > 1 else max(self.gpus, 0.1)


class ShortFirst:
    """The sessions of one resource group, told bit by bit, and where each stands. Times in s since the epoch.

    A session that is stopped and queued again is taken to resume: what it has run is known, and counts.
    Ask for the standing of new sessions at once and for all of them every few minutes, and `line_up` the board.
    """

    def __init__(self) -> None:
        self.run_times = RunTimes()
        self._live: dict[str, _Live] = {}

    def submitted(self, ident: str, gpus: float, nodes: int, at: float) -> None:
        """It waits. `gpus` in all, on so many `nodes`."""
        self._live[ident] = _Live(gpus, nodes, at)

    def started(self, ident: str, at: float) -> None:
        """It runs."""
        self._live[ident].since = at

    def stopped(self, ident: str, at: float) -> None:
        """It waits again."""
        live = self._live[ident]
        live.ran, live.since = live.so_far(at), None

    def ended(self, ident: str, at: float) -> None:
        """It is gone. One that never ran teaches nothing."""
        live = self._live.pop(ident)
        if seconds := live.so_far(at):
            self.run_times.observe(live.gpus, live.submitted, seconds)

    def forget(self, ident: str) -> None:
        """It is gone, and teaches nothing: it was stopped, or lost."""
        del self._live[ident]

    def standings(self, now: float, of: Collection[str] | None = None) -> dict[str, float]:
        """Where those stand, or all; lower goes first."""
        wanted = self._live.keys() if of is None else of
        found: dict[str, float] = {}
        for gpus in sorted({self._live[ident].gpus for ident in wanted}):
            alike = [(ident, live) for ident, live in self._live.items() if live.gpus == gpus]
            mine = np.array([i for i, (ident, _) in enumerate(alike) if of is None or ident in of], np.int64)
            stand = self._of_size(gpus, [live for _, live in alike], mine, now)
            found |= zip((alike[i][0] for i in mine), stand, strict=True)
        return found

    def _of_size(self, gpus: float, alike: Sequence[_Live], mine: Ints, now: float) -> list[float]:
        submitted = np.array([live.submitted for live in alike])
        ran = np.array([live.so_far(now) for live in alike])
        weight = np.array([alike[i].weight for i in mine])
        waited = np.maximum(0.0, now - submitted - ran)[mine]
        standing: Floats = self.run_times.expect(gpus, submitted, ran, mine) * weight / (1 + waited / PATIENCE)
        return list(map(float, standing))


def line_up(board: Board, standings: dict[str, float]) -> None:
    """Tell the board where its sessions stand; those it does not know, and small changes, are left."""
    for ident, standing in standings.items():
        if (request := board.pending.get(ident)) is not None:
            if _moved(request.standing, standing):
                board.withdraw(ident)
                board.submit(replace(request, standing=standing))
        elif (running := board.running.get(ident)) is not None and _moved(running.standing, standing):
            board.change(replace(running, standing=standing))


def _moved(before: float, now: float) -> bool:
    return abs(now - before) > MOVED * before
