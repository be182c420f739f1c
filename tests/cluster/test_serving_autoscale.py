"""The autoscaler's judgement: examples, what must hold for whatever is measured, and days that are played through."""

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.models import Autoscaling
from cluster.serving.autoscale import BENT, COOL_DOWN, Decision, Memory, Seen, decide, logged, replay
from cluster.serving.meter import WINDOW

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
Metric = Literal["requests_per_second", "latency_p95", "queue_depth", "gpu_utilization"]
METRICS: tuple[Metric, ...] = ("requests_per_second", "latency_p95", "queue_depth", "gpu_utilization")


def policy(metric: Metric = "requests_per_second", target: float = 10, least: int = 1, most: int = 10) -> Autoscaling:
    return Autoscaling(metric=metric, target=target, min_replicas=least, max_replicas=most)


def seen(wanted: int, **more: Any) -> Seen:
    facts = {"at": NOW, "measured": NOW, "ready": wanted, "wanted": wanted, "requests_per_second": 0.0}
    return Seen.model_validate(facts | more)


# ── examples ─────────────────────────────────────────────────────────────────────────────────────


def test_more_requests_than_the_replicas_are_for_add_some_at_once() -> None:
    decided = decide(policy(), seen(2, requests_per_second=35.0))
    assert decided.after == 4
    assert str(decided.reason) == "35 requests a second, 10 a replica are wanted: 4 replicas, not 2."


def test_a_little_more_than_the_target_changes_nothing() -> None:
    assert decide(policy(), seen(2, requests_per_second=21.9)).after == 2
    assert decide(policy(), seen(2, requests_per_second=22.1)).after == 3


def test_one_step_doubles_at_most() -> None:
    assert decide(policy(most=1000), seen(20, requests_per_second=9000.0)).after == 40
    assert decide(policy(most=1000), seen(1, requests_per_second=9000.0)).after == 5


def test_fewer_come_only_when_fewer_were_enough_for_five_minutes() -> None:
    memory, at, after = Memory(), NOW, []
    for minute in range(7):
        rate = 28.0 if minute == 1 else 12.0
        decided = decide(policy(), seen(5, at=at, measured=at, requests_per_second=rate, memory=memory))
        memory, at = decided.memory, at + timedelta(minutes=1)
        after.append(decided.after)
    assert after == [5, 5, 5, 5, 5, 3, 5]  # three, since one minute of those five needed three


def test_one_busy_look_begins_the_five_minutes_anew() -> None:
    memory = decide(policy(), seen(5, requests_per_second=12.0)).memory
    assert memory.low_since == NOW
    later = NOW + timedelta(minutes=4)
    busy = decide(policy(), seen(5, at=later, measured=later, requests_per_second=50.0, memory=memory))
    assert busy.memory.low_since is None


def test_with_no_replicas_a_request_that_waits_starts_one() -> None:
    none = policy(least=0)
    assert decide(none, seen(0)).after == 0
    started = decide(none, seen(0, in_flight=1))
    assert started.after == 1
    assert str(started.reason) == "Requests come (0 a second) and there is no replica: 1 now."


def test_without_requests_for_five_minutes_none_is_left_if_that_is_allowed() -> None:
    idle = Memory(low_since=NOW - COOL_DOWN, low_peak=0)
    gone = decide(policy(least=0), seen(3, memory=idle))
    assert (gone.after, str(gone.reason)) == (0, "No requests for 5 minutes: 0 replicas, not 3.")
    assert decide(policy(least=1), seen(3, memory=idle)).after == 1
    assert decide(policy(least=0), seen(3, memory=idle, in_flight=1)).after == 1  # somebody is being answered


@pytest.mark.parametrize(("metric", "value"), [("latency_p95", 4.0), ("gpu_utilization", 0.9)])
def test_what_has_just_become_ready_is_waited_for_before_more_is_asked(metric: Metric, value: float) -> None:
    rule = policy(metric, target=value / 2, most=100)
    facts: dict[str, Any] = {"requests_per_second": 5.0, metric: value}
    assert decide(rule, seen(4, **facts)).after == 8
    assert decide(rule, seen(8, ready=4, **facts)).after == 8  # the same four say it; the others are coming
    assert decide(rule, seen(8, steady=WINDOW / 2, **facts)).after == 8  # half of what is seen is from before


def test_replicas_that_do_not_come_block_it_for_ten_minutes_only() -> None:
    rule = policy("latency_p95", target=1.0)
    slow: dict[str, Any] = {"ready": 4, "requests_per_second": 20.0, "latency_p95": 4.0}
    waited = [decide(rule, seen(8, memory=Memory(up_at=NOW - timedelta(minutes=m)), **slow)).after for m in (9, 10)]
    assert waited == [8, 10]


def test_a_number_outside_the_policy_is_put_right_whatever_is_measured() -> None:
    assert decide(policy(least=2), seen(1, requests_per_second=None)).after == 2
    assert decide(policy(most=3), seen(9, requests_per_second=None)).after == 3


def test_so_few_that_were_too_few_are_not_tried_again_for_the_same_load() -> None:
    rule = policy("latency_p95", target=1.0)
    up = decide(rule, seen(2, requests_per_second=20.0, latency_p95=3.0))
    assert up.after == 4  # three times as slow says too few, but not how many
    calm: dict[str, Any] = {"latency_p95": 0.2, "memory": up.memory.model_copy(update={"low_since": NOW - COOL_DOWN})}
    assert decide(rule, seen(3, requests_per_second=20.0, **calm)).after == 3
    assert decide(rule, seen(3, requests_per_second=9.0, **calm)).after == 2


# ── what must hold ───────────────────────────────────────────────────────────────────────────────

AMOUNT = st.none() | st.floats(0, 1e6)
POLICIES = st.builds(
    lambda metric, target, least, more: policy(metric, target, least, max(1, least + more)),
    st.sampled_from(METRICS),
    st.floats(1e-3, 1e4),
    st.integers(0, 20),
    st.integers(0, 50),
)
MEMORIES = st.builds(
    Memory,
    low_since=st.none() | st.integers(0, 900).map(lambda s: NOW - timedelta(seconds=s)),
    low_peak=st.integers(0, 60),
    scarce=st.integers(0, 60),
    scarce_load=st.floats(0, 1e4),
    enough=st.integers(0, 60),
    enough_load=st.floats(0, 1e4),
    up_at=st.none() | st.integers(0, 900).map(lambda s: NOW - timedelta(seconds=s)),
)
SEEN = st.builds(
    Seen,
    at=st.just(NOW),
    wanted=st.integers(0, 100),
    ready=st.integers(0, 100),
    steady=st.floats(0, 1e4),
    requests_per_second=AMOUNT,
    latency_p95=AMOUNT,
    in_flight=st.integers(0, 10_000),
    gpu_utilization=st.none() | st.floats(0, 1),
    covers=st.floats(0, 60),
    measured=st.integers(0, 600).map(lambda s: NOW - timedelta(seconds=s)),
    memory=MEMORIES,
)


def within(rule: Autoscaling, at: Seen) -> bool:
    return rule.min_replicas <= at.wanted <= rule.max_replicas


@given(POLICIES, SEEN)
def test_it_stays_within_the_policy_and_never_more_than_doubles(rule: Autoscaling, at: Seen) -> None:
    after = decide(rule, at).after
    assert rule.min_replicas <= after <= rule.max_replicas
    if within(rule, at):
        assert after <= max(2 * at.wanted, at.wanted + 4)


@pytest.mark.parametrize("metric", METRICS)
@given(wanted=st.integers(2, 50), load=st.floats(0, 1), how=st.sampled_from(["stale", "missing", "young"]))
def test_what_is_not_known_never_takes_a_replica_away(metric: Metric, wanted: int, load: float, how: str) -> None:
    rule = policy(metric, target=10, least=0, most=60)
    low: dict[str, Any] = {"latency_p95": load, "gpu_utilization": load, "in_flight": 0}
    at = seen(wanted, requests_per_second=load, memory=Memory(low_since=NOW - 2 * COOL_DOWN), **low)
    assert decide(rule, at).after < wanted, "this one would go down, were it known"
    unknown: dict[str, Any] = {
        "stale": {"measured": NOW - timedelta(seconds=91)},
        "missing": {"requests_per_second": None, "latency_p95": None, "gpu_utilization": None},
        "young": {"covers": 59.0},
    }[how]
    if how != "missing" or metric != "queue_depth":  # what is open is counted, not measured
        assert decide(rule, at.model_copy(update=unknown)).after >= wanted


@given(POLICIES, SEEN)
def test_stale_measurements_never_take_one_away_whatever_they_are(rule: Autoscaling, at: Seen) -> None:
    if within(rule, at):
        assert decide(rule, at.model_copy(update={"measured": NOW - timedelta(seconds=91)})).after >= at.wanted


@given(POLICIES, SEEN)
def test_nothing_is_taken_away_without_a_cool_down_or_while_somebody_asks_the_last_one(
    rule: Autoscaling, at: Seen
) -> None:
    decided = decide(rule, at)
    if within(rule, at) and decided.after < at.wanted:
        assert at.memory.low_since is not None
        assert NOW - at.memory.low_since >= COOL_DOWN
        assert decided.after > 0 or not at.in_flight


@given(POLICIES, SEEN, st.floats(0, 1e6), st.floats(0, 1e6))
def test_more_load_never_means_fewer_replicas(rule: Autoscaling, at: Seen, one: float, other: float) -> None:
    low, high = sorted([one, other])
    name = "in_flight" if rule.metric == "queue_depth" else rule.metric
    share = 1e-6 if name == "gpu_utilization" else 1
    kind = int if name == "in_flight" else float
    still = {"requests_per_second": 5.0, "in_flight": 3, "memory": at.memory.model_copy(update={"scarce": 0})}
    less, more = (at.model_copy(update=still | {name: kind(value * share)}) for value in (low, high))
    assert decide(rule, less).after <= decide(rule, more).after


@given(st.lists(st.tuples(POLICIES, SEEN), max_size=20))
def test_the_log_gives_the_same_decisions_again(pairs: list[tuple[Autoscaling, Seen]]) -> None:
    made = [decide(rule, at) for rule, at in pairs]
    stored = json.loads(json.dumps([logged(rule, at) for rule, at in pairs]))
    assert list(replay(stored)) == made


# ── played through ───────────────────────────────────────────────────────────────────────────────

LOOK = 15
"""Seconds between two looks."""
SERVICE = 0.2
"""Seconds that an answer takes when nothing else is asked."""
CAPACITY = 10.0
"""Requests a second that a replica can answer."""


@dataclass
class World:
    """Replicas that take two minutes to start, and answer the slower the fuller they are."""

    rule: Autoscaling
    wanted: int
    at: datetime = NOW
    memory: Memory = field(default_factory=Memory)
    starting: list[datetime] = field(default_factory=list)
    ready_at: list[datetime] = field(default_factory=list)
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW // LOOK))
    log: list[dict[str, Any]] = field(default_factory=list)
    made: list[Decision] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    late: int = 0

    def __post_init__(self) -> None:
        self.ready_at = [NOW - timedelta(hours=1)] * self.wanted

    def look(self, load: float) -> None:
        """`LOOK` seconds at `load` requests a second, and one decision."""
        self.at += timedelta(seconds=LOOK)
        self.ready_at += [due for due in self.starting if due <= self.at]
        self.starting = [due for due in self.starting if due > self.at]
        facts = self._seen(load)
        decided = decide(self.rule, facts)
        self.memory = decided.memory
        self.log.append(logged(self.rule, facts))
        self.made.append(decided)
        self._become(decided.after)

    def _seen(self, load: float) -> Seen:
        ready = len(self.ready_at)
        busy = load / (ready * CAPACITY) if ready else load
        latency = SERVICE / (1 - busy) if busy < 0.995 else 40.0
        self.latencies.append(latency)
        self.late += busy > 1 or (load > 0 and not ready)
        steady = (self.at - max(self.ready_at)).total_seconds() if ready else 0
        return Seen(
            at=self.at,
            measured=self.at,
            wanted=self.wanted,
            ready=ready,
            steady=steady,
            requests_per_second=load,
            latency_p95=max(self.latencies) if load and ready else None,
            in_flight=round(load * latency),
            gpu_utilization=min(1.0, busy) if ready else None,
            memory=self.memory,
        )

    def _become(self, count: int) -> None:
        if count > self.wanted:
            self.starting += [self.at + timedelta(minutes=2)] * (count - self.wanted)
        for _ in range(self.wanted - count):
            (self.starting or self.ready_at).pop()
        self.wanted = count
        self.counts.append(count)

    @property
    def changes(self) -> list[int]:
        return [after - before for before, after in pairwise(self.counts) if after != before]


TARGETS: dict[Metric, float] = {
    "requests_per_second": 7.0,
    "latency_p95": 0.8,
    "queue_depth": 5.0,
    "gpu_utilization": 0.7,
}


@pytest.mark.parametrize("metric", METRICS)
@settings(deadline=None, max_examples=60)
@given(load=st.floats(0.5, 150), first=st.integers(1, 30))
def test_at_constant_load_it_comes_to_rest_and_the_load_is_carried(metric: Metric, load: float, first: int) -> None:
    world = World(policy(metric, TARGETS[metric], 1, 40), first)
    for _ in range(int(timedelta(hours=6).total_seconds()) // LOOK):
        world.look(load)
    resting = world.counts[len(world.counts) // 2 :]
    assert len(set(resting)) == 1, world.counts
    assert resting[-1] * CAPACITY > load
    turns = sum((a > 0) != (b > 0) for a, b in pairwise(world.changes))
    assert turns <= (6 if metric in BENT else 1)


def day(hour: float) -> float:
    """Requests a second: nobody at night, a rise in the morning, a peak after lunch, a second one in the evening."""
    if hour < 6 or hour >= 23:
        return 0.0
    morning = max(0.0, 1 - abs(hour - 11) / 4)
    after_lunch = max(0.0, 1 - abs(hour - 14.5) / 2.5)
    evening = max(0.0, 1 - abs(hour - 20) / 2)
    return 2 + 50 * morning + 80 * after_lunch + 35 * evening


def played(metric: Metric, least: int = 0, load: Callable[[float], float] = day) -> World:
    world = World(policy(metric, TARGETS[metric], least, 20), max(1, least))
    for look in range(24 * 3600 // LOOK):
        world.look(load(look * LOOK / 3600))
    return world


@pytest.mark.parametrize("metric", METRICS)
def test_a_day_is_followed_from_nothing_to_the_peak_and_back(metric: Metric) -> None:
    world = played(metric)
    assert world.counts[5 * 3600 // LOOK] == 0  # at night
    assert max(world.counts) >= 11  # the peak's 106 requests a second
    assert world.counts[-1] == 0
    assert world.late * LOOK < 20 * 60, "of 17 hours, at most 20 minutes over what the replicas can do"
    assert len(world.changes) < 60
    assert [d.after for d in replay(world.log)] == world.counts
