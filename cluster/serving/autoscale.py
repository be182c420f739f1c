"""How many replicas an endpoint is to have: the judgement, without any I/O.

    decide(policy, seen) -> Decision          the number, why, and what to remember until the next look
    replay(rows) -> numbers                   the same again, from the log

After the Kubernetes Horizontal Pod Autoscaler: the ratio of what is measured to what is wanted, a tolerance, at most a
doubling at once, and down only when no more was needed for a whole cool-down. What is otherwise, and why: README.md.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from pydantic import Field

from cluster.models import Autoscaling
from cluster.models.base import Model
from cluster.sentence import Param, S, Sentence
from cluster.serving.meter import WINDOW

TOLERANCE = 0.1
"""So far the measured may be from the target before anything is done."""
COOL_DOWN = timedelta(minutes=5)
"""For so long fewer replicas must have been enough, before there are fewer."""
STALE = timedelta(seconds=90)
"""What was measured longer ago says nothing."""
COMING = timedelta(minutes=10)
"""Replicas that were asked for are waited for so long, before more are asked for on top of them."""
BENT = frozenset({"latency_p95", "queue_depth"})
"""Metrics that grow faster than the load, so that they say whether there are too few replicas rather than how many are
right: steps are small, and what was too few is remembered."""
SHRINK = 0.8
"""A step down leaves at least this share of the replicas, where the metric is one of those."""
EASED = 0.8
"""That so few replicas were too few is remembered until the requests are down to this share of what they were then."""


class Memory(Model):
    """What one look leaves to the next. Without it (after a restart) nothing is scaled down for a cool-down."""

    low_since: datetime | None = None
    """Since when fewer replicas than there are would have been enough, without a break."""
    low_peak: int = 0
    """The most that were needed in that time."""
    up_at: datetime | None = None
    """When more were asked for last."""
    scarce: int = 0
    """So many replicas were too few …"""
    scarce_load: float = 0
    """… at so many requests a second."""
    enough: int = 0
    """So many were enough, before a step down …"""
    enough_load: float = 0


class Seen(Model):
    """All that a decision follows from. `None` is: not measured."""

    at: datetime
    wanted: int = Field(ge=0)
    """Replicas that there are to be."""
    ready: int = Field(ge=0)
    steady: float = Field(default=1e9, ge=0)
    """Seconds since the last of them became ready."""
    requests_per_second: float | None = None
    latency_p95: float | None = None
    in_flight: int = 0
    """Requests that are not answered yet, those that wait for a replica included."""
    gpu_utilization: float | None = None
    """Of the ready replicas, on average."""
    covers: float = float(WINDOW)
    """Seconds that the measurements look back; less than the window after a start."""
    measured: datetime
    memory: Memory = Memory()


class Decision(Model):
    """`after` replicas from now on, because of `reason`."""

    after: int
    reason: Sentence
    memory: Memory


def decide(policy: Autoscaling, seen: Seen) -> Decision:
    """The number of replicas, never below the least nor above the most that the policy allows."""
    if not policy.min_replicas <= seen.wanted <= policy.max_replicas:
        return _within(policy, seen)
    if seen.wanted == 0:
        return _from_nothing(policy, seen)
    needed = _needed(policy, seen)
    if needed is None:
        keep = S("It is not measured just now; nothing is changed.")
        return Decision(after=seen.wanted, reason=keep, memory=_forgotten(seen.memory))
    if needed > seen.wanted:
        return _up(policy, seen, needed)
    if needed == seen.wanted:
        keep = S("{count} replicas are right.", count=needed)
        return Decision(after=needed, reason=keep, memory=_forgotten(seen.memory))
    return _down(policy, seen, needed)


# ── the cases ────────────────────────────────────────────────────────────────────────────────────


def _within(policy: Autoscaling, seen: Seen) -> Decision:
    """It is set to more or fewer than the policy allows."""
    after = _clamped(policy, seen.wanted)
    words = {"before": seen.wanted, "after": after}
    reason = (
        S("{before} replicas are fewer than the least: {after}.", **words)
        if after > seen.wanted
        else S("{before} replicas are more than the most: {after}.", **words)
    )
    return Decision(after=after, reason=reason, memory=_forgotten(seen.memory))


def _from_nothing(policy: Autoscaling, seen: Seen) -> Decision:
    """A request that waits, or has come lately, is reason enough for one."""
    if not seen.in_flight and not (_fresh(seen) and seen.requests_per_second):
        reason = S("There are no requests, and no replicas.")
        return Decision(after=0, reason=reason, memory=_forgotten(seen.memory))
    rate = seen.requests_per_second or 0
    shared = _shared(policy, seen) if policy.metric == "requests_per_second" else None
    after = min(_clamped(policy, max(1, shared or 1)), _most_at_once(policy, 0))
    reason = S("Requests come ({rate} a second) and there is no replica: {after} now.", rate=_short(rate), after=after)
    return Decision(after=after, reason=reason, memory=_forgotten(seen.memory))


def _up(policy: Autoscaling, seen: Seen, needed: int) -> Decision:
    """At once, but at most to the double; and it is remembered that so few were too few."""
    after = min(needed, _most_at_once(policy, seen.wanted))
    load, memory = seen.requests_per_second or 0, seen.memory
    if policy.metric in BENT and memory.enough > seen.wanted and load <= (1 + TOLERANCE) * memory.enough_load:
        after = min(after, memory.enough)  # a step down was one too many; it is taken back
    memory = Memory(up_at=seen.at, scarce=seen.wanted, scarce_load=load)
    return Decision(after=after, reason=_said(policy, seen, after), memory=memory)


def _down(policy: Autoscaling, seen: Seen, needed: int) -> Decision:
    """When for a whole cool-down no more was needed than there will be, and everything there is was ready."""
    needed = max(needed, _learned(policy, seen))
    memory = seen.memory
    if needed >= seen.wanted:
        reason = S("Fewer than {count} replicas were too few not long ago.", count=seen.wanted)
        return Decision(after=seen.wanted, reason=reason, memory=_forgotten(memory))
    since = memory.low_since or seen.at
    peak = max(needed, memory.low_peak if memory.low_since else 0)
    waiting = memory.model_copy(update={"low_since": since, "low_peak": peak})
    if seen.at - since < COOL_DOWN or seen.covers < WINDOW:
        reason = S(
            "{after} replicas would be enough; that is done when it has been so for {minutes} minutes.",
            after=peak,
            minutes=COOL_DOWN.seconds // 60,
        )
        return Decision(after=seen.wanted, reason=reason, memory=waiting)
    after = max(peak, _least_at_once(seen.wanted)) if policy.metric in BENT and seen.requests_per_second else peak
    enough = {"enough": seen.wanted, "enough_load": seen.requests_per_second or 0}
    memory = _forgotten(memory).model_copy(update=enough)
    return Decision(after=after, reason=_said(policy, seen, after), memory=memory)


# ── how many would be right ──────────────────────────────────────────────────────────────────────


def _needed(policy: Autoscaling, seen: Seen) -> int | None:
    """By the policy's metric, within its bounds; None when it can't be told."""
    if not _fresh(seen):
        return None
    if policy.metric == "requests_per_second":
        found = _shared(policy, seen)
    elif not seen.requests_per_second and not seen.in_flight and seen.requests_per_second is not None:
        found = 0  # nobody asks for anything
    else:
        found = _by_ratio(policy, seen)
    if found is None:
        return None
    if seen.in_flight or seen.requests_per_second:
        found = max(1, found)
    return _clamped(policy, found)


def _shared(policy: Autoscaling, seen: Seen) -> int | None:
    """Requests come however many replicas there are, so that their rate alone says how many there must be."""
    if seen.requests_per_second is None:
        return None
    share = seen.requests_per_second / policy.target
    if seen.wanted and abs(share / seen.wanted - 1) <= TOLERANCE:
        return seen.wanted
    return min(ceil(share - 1e-9), policy.max_replicas)


def _by_ratio(policy: Autoscaling, seen: Seen) -> int | None:
    """What each ready replica shows, against what it should: as many times more, or fewer, are needed.

    What comes of those that are not ready yet, or have become so only within the last window, has not shown: no more
    are asked for on top of them.
    """
    value = _shown(policy, seen)
    if value is None or not seen.ready:
        return None
    ratio = value / policy.target
    if abs(ratio - 1) <= TOLERANCE:
        return seen.wanted
    found = min(ceil(min(ratio, 1e6) * seen.ready - 1e-9), policy.max_replicas)
    if ratio < 1:
        return min(found, seen.wanted)
    return max(found, seen.wanted) if _settled(seen) else seen.wanted


def _settled(seen: Seen) -> bool:
    """What is measured is what the replicas do that were asked for; or some of them do not come."""
    up_at = seen.memory.up_at
    there = seen.ready >= seen.wanted or up_at is None or seen.at - up_at >= COMING
    return there and seen.steady >= WINDOW


def _shown(policy: Autoscaling, seen: Seen) -> float | None:
    match policy.metric:
        case "latency_p95":
            return seen.latency_p95
        case "queue_depth":
            return seen.in_flight / max(1, seen.ready)
        case _:
            return seen.gpu_utilization


def _learned(policy: Autoscaling, seen: Seen) -> int:
    """The least that is known to be enough for the present load; 0 when nothing is known."""
    memory = seen.memory
    eased = (seen.requests_per_second or 0) < EASED * memory.scarce_load
    return 0 if policy.metric not in BENT or not memory.scarce or eased else memory.scarce + 1


def _fresh(seen: Seen) -> bool:
    return seen.at - seen.measured <= STALE


def _clamped(policy: Autoscaling, count: int) -> int:
    return min(max(count, policy.min_replicas), policy.max_replicas)


def _most_at_once(policy: Autoscaling, count: int) -> int:
    """Where one step up may lead."""
    return max(2 * count, count + (1 if policy.metric in BENT else 4))


def _least_at_once(count: int) -> int:
    """Where one step down may lead."""
    return min(count - 1, ceil(SHRINK * count))


def _forgotten(memory: Memory) -> Memory:
    """Without the time in which fewer would have been enough."""
    return memory.model_copy(update={"low_since": None, "low_peak": 0})


# ── words ────────────────────────────────────────────────────────────────────────────────────────


def _said(policy: Autoscaling, seen: Seen, after: int) -> Sentence:
    """What was measured, what is wanted, and so how many."""
    if not seen.requests_per_second and not seen.in_flight:
        return S(
            "No requests for {minutes} minutes: {after} replicas, not {before}.",
            minutes=COOL_DOWN.seconds // 60,
            before=seen.wanted,
            after=after,
        )
    words: dict[str, Param] = {"target": _short(policy.target), "before": seen.wanted, "after": after}
    match policy.metric:
        case "requests_per_second":
            text = S(
                "{value} requests a second, {target} a replica are wanted: {after} replicas, not {before}.",
                value=_short(seen.requests_per_second or 0),
                **words,
            )
        case "queue_depth":
            text = S(
                "{value} requests under way, {target} a replica are wanted: {after} replicas, not {before}.",
                value=seen.in_flight,
                **words,
            )
        case "latency_p95":
            text = S(
                "95 % of answers come within {value} s, {target} s are wanted: {after} replicas, not {before}.",
                value=_short(seen.latency_p95 or 0),
                **words,
            )
        case "gpu_utilization":
            text = S(
                "The GPUs are used to {value} %, {target} % are wanted: {after} replicas, not {before}.",
                value=_short(100 * (seen.gpu_utilization or 0)),
                **words | {"target": _short(100 * policy.target)},
            )
    return text


def _short(value: float) -> str:
    return f"{value:.3g}"


# ── the log ──────────────────────────────────────────────────────────────────────────────────────


def logged(policy: Autoscaling, seen: Seen) -> dict[str, Any]:
    """All that a decision followed from, for `scaling_decisions.seen`."""
    return {"policy": policy.model_dump(mode="json"), "seen": seen.model_dump(mode="json")}


def replay(rows: Iterable[dict[str, Any]]) -> Iterator[Decision]:
    """The decisions again, from what `logged` has written."""
    for row in rows:
        yield decide(Autoscaling.model_validate(row["policy"]), Seen.model_validate(row["seen"]))
