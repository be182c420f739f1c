"""The meter against a list of everything that happened."""

import sys
from math import ceil, floor

from hypothesis import given
from hypothesis import strategies as st

from cluster.serving.meter import BINS, FASTEST, SLOWEST, STEP, WINDOW, Meter, Token, bin_of

Steps = list[tuple[str, float, bool]]
STEPS = st.lists(
    st.tuples(st.sampled_from(["begin", "end", "wait", "on", "look"]), st.floats(0, 20), st.booleans()), max_size=120
)


class Naive:
    """Remembers everything."""

    def __init__(self, at: float) -> None:
        self.since = at
        self.begun: list[float] = []
        self.ended: list[tuple[float, float, bool]] = []
        self.waiting = 0

    def recent(self, when: float, now: float) -> bool:
        return floor(when) > floor(now) - WINDOW

    def check(self, meter: Meter, now: float, in_flight: int) -> None:
        seen = meter.sample(now)
        span = max(1.0, min(WINDOW, now - self.since))
        assert seen.requests_per_second == sum(self.recent(at, now) for at in self.begun) / span
        assert seen.errors_per_second == sum(self.recent(at, now) and not ok for at, _, ok in self.ended) / span
        assert (seen.in_flight, seen.queue_depth) == (in_flight, self.waiting)
        fine = sorted(took for at, took, ok in self.ended if ok and self.recent(at, now))
        if not fine:
            assert seen.latency_p95 is None
            return
        exact = max(FASTEST, fine[ceil(0.95 * len(fine)) - 1])
        assert seen.latency_p95 is not None
        assert exact * 0.999999 <= seen.latency_p95 <= exact * STEP * 1.000001


@given(STEPS, st.floats(0, 1e6))
def test_it_says_what_a_list_of_all_requests_would_say(steps: Steps, start: float) -> None:
    now, meter, naive, under_way = start, Meter(start), Naive(start), list[Token]()
    for what, wait, ok in steps:
        now += wait
        if what == "begin":
            under_way.append(meter.begin(now))
            naive.begun.append(now)
        elif what == "end" and under_way:
            token = under_way.pop(0)
            meter.end(token, now, ok)
            meter.end(token, now, not ok)  # said twice
            naive.ended.append((now, now - token.began, ok))
        elif what in ("wait", "on") and (what == "wait" or naive.waiting):
            change = 1 if what == "wait" else -1
            meter.queued(change)
            naive.waiting += change
        naive.check(meter, now, len(under_way))


def test_it_stays_small_whatever_it_has_seen() -> None:
    meter = Meter(0.0)
    for i in range(20_000):
        token = meter.begin(i / 50)
        meter.end(token, i / 50 + (i % 977) / 10, ok=i % 7 > 0)
    assert len(meter._seconds) <= WINDOW + 1
    assert len(meter._latencies) <= BINS
    assert sys.getsizeof(meter._latencies) < 20_000


def test_a_clock_that_runs_backwards_breaks_nothing() -> None:
    meter = Meter(100.0)
    token = meter.begin(200.0)
    meter.end(token, 150.0, ok=True)
    meter.begin(149.0)
    assert meter.sample(200.0).in_flight == 1
    assert meter.sample(120.0).covers == 20.0
    assert meter.sample(10_000.0).requests_per_second == 0


def test_the_slowest_and_the_fastest_have_a_bin() -> None:
    assert (bin_of(0), bin_of(-1), bin_of(FASTEST)) == (0, 0, 0)
    assert bin_of(10 * SLOWEST) == bin_of(1e12) == BINS - 1
