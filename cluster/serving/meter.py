"""What the proxy sees of an endpoint's requests, over the last minute, in constant memory.

    token = meter.begin(at)        a request has come (it counts as arrived now, and is in flight until its end)
    meter.queued(+1) … (-1)        it waits for a replica, and does so no more
    meter.end(token, at, ok)       it was answered; or it failed, or its caller has gone

One bucket a second, so that what is older than a minute goes away by itself; latencies in bins a tenth apart, so that a
percentile is at most a tenth too high. Times are seconds of any clock that does not run backwards. No I/O.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from math import ceil, floor, log

WINDOW = 60
"""Seconds that a sample looks back."""
STEP = 1.1
"""From one latency bin's upper end to the next one's."""
FASTEST, SLOWEST = 0.001, 3600.0
"""Seconds; latencies below and above fall into the first and the last bin."""
BINS = ceil(log(SLOWEST / FASTEST) / log(STEP)) + 1


@dataclass(slots=True)
class Token:
    """One request under way."""

    began: float
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """An endpoint's requests over the last `WINDOW` seconds."""

    requests_per_second: float
    """That have come, answered or not."""
    latency_p95: float | None
    """Seconds from coming to the end of the answer, waiting included; None when none has ended well."""
    in_flight: int
    """That have come and are not answered yet, those that wait included."""
    queue_depth: int
    """Of these, the ones that wait for a replica."""
    errors_per_second: float
    covers: float
    """Seconds that were really watched; less than the window after a start."""


@dataclass(slots=True)
class _Second:
    number: int
    begun: int = 0
    failed: int = 0
    latencies: Counter[int] = field(default_factory=Counter)
    """Bin -> requests that ended well in this second."""


class Meter:
    """Of one endpoint, from `at` on."""

    def __init__(self, at: float) -> None:
        self._since = at
        self._seconds: deque[_Second] = deque()
        self._begun = self._failed = self._in_flight = self._waiting = 0
        self._latencies: Counter[int] = Counter()

    def begin(self, at: float) -> Token:
        """A request has come."""
        self._second(at).begun += 1
        self._begun += 1
        self._in_flight += 1
        return Token(at)

    def end(self, token: Token, at: float, ok: bool) -> None:
        """It is over. Said again: nothing happens."""
        if token.ended:
            return
        token.ended = True
        self._in_flight -= 1
        second = self._second(at)
        if ok:
            number = bin_of(at - token.began)
            second.latencies[number] += 1
            self._latencies[number] += 1
        else:
            second.failed += 1
            self._failed += 1

    def queued(self, change: int) -> None:
        """So many more wait for a replica (`+1`), or fewer (`-1`)."""
        self._waiting = max(0, self._waiting + change)

    def sample(self, at: float) -> Sample:
        """How it is now."""
        self._forget(at)
        covers = min(float(WINDOW), max(0.0, at - self._since))
        span = max(1.0, covers)
        return Sample(
            requests_per_second=self._begun / span,
            latency_p95=self._percentile(0.95),
            in_flight=self._in_flight,
            queue_depth=self._waiting,
            errors_per_second=self._failed / span,
            covers=covers,
        )

    def _second(self, at: float) -> _Second:
        """The bucket of this second; a clock that runs backwards stands still."""
        self._forget(at)
        if not self._seconds or self._seconds[-1].number < floor(at):
            self._seconds.append(_Second(floor(at)))
        return self._seconds[-1]

    def _forget(self, at: float) -> None:
        """What is older than the window."""
        while self._seconds and self._seconds[0].number <= floor(at) - WINDOW:
            old = self._seconds.popleft()
            self._begun -= old.begun
            self._failed -= old.failed
            self._latencies.subtract(old.latencies)

    def _percentile(self, share: float) -> float | None:
        """The upper end of the bin in which the request of that rank (nearest rank) is."""
        total = self._latencies.total()
        if not total:
            return None
        wanted, seen = ceil(share * total), 0
        for number in sorted(self._latencies):
            seen += self._latencies[number]
            if seen >= wanted:
                return FASTEST * STEP**number
        raise AssertionError("the bins hold fewer than their total")


def bin_of(seconds: float) -> int:
    """The bin of a latency: `FASTEST * STEP ** bin` is its upper end."""
    if seconds <= FASTEST:
        return 0
    return min(BINS - 1, ceil(log(seconds / FASTEST) / log(STEP)))
