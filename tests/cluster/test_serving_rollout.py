"""What an endpoint needs next, as a judgement: played with pretended replicas through every kind of trouble."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.models import EndpointState
from cluster.models import ReplicaPhase as Phase
from cluster.serving import rollout
from cluster.serving.rollout import (
    Deleted,
    Drain,
    Forgiven,
    GiveUp,
    Seen,
    Start,
    Step,
    Stop,
    Updated,
    Wish,
    due,
    failed_again,
    next_steps,
    pause,
)

T0 = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
STEADY = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])


@dataclass
class Theatre:
    """An endpoint and its replicas, played in memory: the same steps as `steps.take`, without a cluster."""

    wish: Wish
    room: int = 100
    """So many replicas fit."""
    warm_up: float = 10
    broken: frozenset[int] = frozenset()
    """Revisions whose replicas never get ready."""
    now: datetime = T0
    replicas: dict[str, Seen] = field(default_factory=dict)
    made: int = 0
    fewest: int = 10**6
    """Healthy ones that take requests, at the worst moment since `watch`."""

    def take(self, step: Step) -> None:
        wish = self.wish
        match step:
            case Start(count):
                for _ in range(count):
                    self.made += 1
                    ident = f"s-{self.made:03d}"
                    self.replicas[ident] = Seen(ident, wish.revision, Phase.WAITING, self.now)
            case Drain(ident):
                self._set(ident, Phase.DRAINING)
            case Stop(ident, why):
                self._set(ident, Phase.STOPPING)
                if why != "drained":
                    self.fail()
            case GiveUp():
                self.wish = replace(
                    wish, revision=wish.former or 0, former=None, updating=None, failures=0, failed_at=None
                )
            case Updated():
                self.wish = replace(wish, former=None, updating=None, failures=0, failed_at=None)
            case Forgiven():
                self.wish = replace(wish, failures=0, failed_at=None)
            case Deleted():
                self.wish = replace(wish, state=EndpointState.DELETED)

    def fail(self) -> None:
        many = failed_again(self.wish.failures, self.wish.failed_at, self.now)
        self.wish = replace(self.wish, failures=many, failed_at=self.now)

    def settle(self) -> None:
        """Steps and what agents do, until nothing happens any more at this moment."""
        for _ in range(200):
            steps = next_steps(self.wish, [*self.replicas.values()], self.now)
            for step in steps:
                self.take(step)
            if not self._agents() and not steps:
                return
            self.fewest = min(self.fewest, self.healthy)
        raise AssertionError(f"no end: {steps}")

    def _agents(self) -> bool:
        """Give places, start, get healthy, end."""
        changed = False
        for seen in [*self.replicas.values()]:
            age = (self.now - seen.since).total_seconds()
            if seen.phase is Phase.STOPPING:
                del self.replicas[seen.session]
                changed = True
            elif seen.phase is Phase.WAITING and self.holding < self.room:
                self._set(seen.session, Phase.STARTING)
                changed = True
            elif seen.phase is Phase.STARTING and age >= self.warm_up and seen.revision not in self.broken:
                self._set(seen.session, Phase.HEALTHY)
                changed = True
        return changed

    def _set(self, ident: str, phase: Phase) -> None:
        self.replicas[ident] = replace(self.replicas[ident], phase=phase, since=self.now)

    @property
    def holding(self) -> int:
        return sum(r.phase is not Phase.WAITING for r in self.replicas.values())

    @property
    def healthy(self) -> int:
        return sum(r.phase is Phase.HEALTHY for r in self.replicas.values())

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.settle()

    def run(self, until: Callable[[], bool], most: float = 4 * 3600) -> None:
        """From event to event, as a keeper is woken: agents every 5 s, and when something is due."""
        end = self.now + timedelta(seconds=most)
        while not until():
            assert self.now < end, f"stuck: {self.wish} {self.replicas}"
            self.later(5)

    def watch(self) -> None:
        self.fewest = self.healthy

    def update(self, revision: int) -> None:
        former = self.wish.former if self.wish.former is not None else self.wish.revision
        self.wish = replace(self.wish, former=former, revision=revision, updating=self.now, failures=0, failed_at=None)

    @property
    def done(self) -> bool:
        right = [r.revision == self.wish.revision for r in self.replicas.values()]
        return self.wish.former is None and self.healthy == self.wish.wanted == len(right) and all(right)


def running(wanted: int, **more: object) -> Theatre:
    """An endpoint whose replicas are all healthy."""
    theatre = Theatre(Wish(EndpointState.ACTIVE, T0, wanted, 1), **more)  # type: ignore[arg-type]
    theatre.settle()
    theatre.run(lambda: theatre.done)
    return theatre


# ── updates ──────────────────────────────────────────────────────────────────────────────────────


@STEADY
@given(wanted=st.integers(1, 6), spare=st.integers(1, 3), warm_up=st.floats(0, 120))
def test_with_room_for_one_more_an_update_never_has_fewer_healthy_than_are_wanted(
    wanted: int, spare: int, warm_up: float
) -> None:
    theatre = running(wanted, room=wanted + spare, warm_up=warm_up)
    theatre.watch()
    theatre.update(2)
    theatre.settle()
    theatre.run(lambda: theatre.done)
    assert theatre.fewest >= wanted


@STEADY
@given(wanted=st.integers(2, 6), warm_up=st.floats(0, 120))
def test_without_room_an_update_has_at_most_one_fewer_and_still_ends(wanted: int, warm_up: float) -> None:
    theatre = running(wanted, room=wanted, warm_up=warm_up)
    theatre.watch()
    theatre.update(2)
    theatre.settle()
    theatre.run(lambda: theatre.done)
    assert theatre.fewest == wanted - 1


def test_a_single_replica_without_room_for_a_second_goes_on_and_the_update_is_given_up() -> None:
    theatre = running(1, room=1)
    theatre.watch()
    theatre.update(2)
    theatre.settle()
    theatre.run(lambda: theatre.done)
    assert (theatre.wish.revision, theatre.fewest) == (1, 1)
    assert theatre.now - T0 >= rollout.ROOM_LIMIT


@STEADY
@given(wanted=st.integers(1, 5), room=st.integers(0, 3))
def test_a_revision_that_never_gets_ready_is_given_up_and_the_old_replicas_stay(wanted: int, room: int) -> None:
    theatre = running(wanted, room=wanted + room, broken=frozenset({2}))
    theatre.watch()
    theatre.update(2)
    theatre.settle()
    theatre.run(lambda: theatre.done)
    assert theatre.wish.revision == 1
    assert theatre.fewest >= max(1, wanted - (0 if room else 1))


def test_another_update_in_the_middle_of_one_ends_with_the_last_and_may_go_back_to_the_first() -> None:
    for broken, expected in ((frozenset[int](), 3), (frozenset({3}), 1)):
        theatre = running(3, broken=broken)
        theatre.update(2)
        theatre.settle()
        theatre.later(15)
        assert {r.revision for r in theatre.replicas.values()} == {1, 2}
        theatre.update(3)
        theatre.settle()
        theatre.run(lambda: theatre.done)  # noqa: B023
        assert theatre.wish.revision == expected


def test_replicas_of_the_new_revision_that_fail_three_times_end_the_update() -> None:
    theatre = running(2)
    theatre.update(2)
    theatre.settle()
    for _ in range(rollout.MOST_TRIES):
        theatre.run(lambda: any(r.revision == 2 for r in theatre.replicas.values()))
        for ident in [r.session for r in theatre.replicas.values() if r.revision == 2]:
            del theatre.replicas[ident]
            theatre.fail()
        theatre.settle()
    theatre.run(lambda: theatre.done)
    assert theatre.wish.revision == 1


# ── whatever happens ─────────────────────────────────────────────────────────────────────────────

EVENTS = st.one_of(
    st.tuples(st.just("wait"), st.floats(1, 600)),
    st.tuples(st.just("crash"), st.integers(0, 9)),
    st.tuples(st.just("away"), st.integers(0, 9)),
    st.tuples(st.just("back"), st.integers(0, 9)),
    st.tuples(st.just("sick"), st.integers(0, 9)),
    st.tuples(st.just("scale"), st.integers(0, 5)),
    st.tuples(st.just("update"), st.integers(2, 5)),
    st.tuples(st.just("room"), st.integers(1, 8)),
)


def happen(theatre: Theatre, what: str, number: float) -> None:
    idents = sorted(theatre.replicas)
    victim = theatre.replicas[idents[int(number) % len(idents)]] if idents else None
    match what:
        case "wait":
            theatre.now += timedelta(seconds=number)
        case "scale":
            theatre.wish = replace(theatre.wish, wanted=int(number))
        case "update" if number != theatre.wish.revision:
            theatre.update(int(number))
        case "room":
            theatre.room = int(number)
        case "crash" if victim:
            del theatre.replicas[victim.session]
            theatre.fail()
        case "away" | "sick" if victim and victim.phase is Phase.HEALTHY:
            theatre._set(victim.session, Phase.AWAY if what == "away" else Phase.UNHEALTHY)
        case "back" if victim and victim.phase is Phase.AWAY:
            theatre._set(victim.session, Phase.HEALTHY)


@STEADY
@given(events=st.lists(EVENTS, max_size=25), wanted=st.integers(0, 4))
def test_whatever_happens_it_becomes_what_was_asked_for_in_the_end(
    events: list[tuple[str, float]], wanted: int
) -> None:
    theatre = Theatre(Wish(EndpointState.ACTIVE, T0, wanted, 1))
    theatre.settle()
    for what, number in events:
        happen(theatre, what, number)
        theatre.settle()
    theatre.room = 100
    for ident in [r.session for r in theatre.replicas.values() if r.phase is Phase.AWAY]:
        del theatre.replicas[ident]  # its session is lost in the end
    theatre.run(lambda: theatre.done)


@STEADY
@given(events=st.lists(EVENTS, max_size=15), wanted=st.integers(0, 4), busy=st.integers(0, 3))
def test_a_deleted_endpoint_starts_nothing_and_is_gone_in_time(
    events: list[tuple[str, float]], wanted: int, busy: int
) -> None:
    theatre = Theatre(Wish(EndpointState.ACTIVE, T0, wanted, 1))
    theatre.settle()
    for what, number in events:
        happen(theatre, what, number)
        theatre.settle()
    for ident in sorted(theatre.replicas)[:busy]:
        theatre.replicas[ident] = replace(theatre.replicas[ident], in_flight=5)
    theatre.wish = replace(theatre.wish, state=EndpointState.DELETING, state_since=theatre.now)
    made, began = theatre.made, theatre.now
    theatre.settle()
    for what, number in events:
        if what != "wait":
            happen(theatre, what, number)
        theatre.settle()
    theatre.run(lambda: theatre.wish.state is EndpointState.DELETED, rollout.DELETE_LIMIT.total_seconds() + 10)
    theatre.run(lambda: not theatre.replicas)
    assert theatre.made == made
    assert theatre.now - began <= rollout.DELETE_LIMIT + timedelta(seconds=10)


@STEADY
@given(events=st.lists(EVENTS, max_size=20), wanted=st.integers(1, 4))
def test_there_are_never_many_more_replicas_than_are_wanted(events: list[tuple[str, float]], wanted: int) -> None:
    theatre = Theatre(Wish(EndpointState.ACTIVE, T0, wanted, 1))
    theatre.settle()
    for what, number in events:
        if what not in ("scale", "back", "away"):
            happen(theatre, what, number)
        theatre.settle()
        staying = [r for r in theatre.replicas.values() if r.phase not in rollout.GONE]
        assert len(staying) <= wanted + 1


# ── single rules ─────────────────────────────────────────────────────────────────────────────────


def test_a_draining_replica_is_stopped_when_it_has_answered_or_when_its_time_is_over() -> None:
    wish = Wish(EndpointState.ACTIVE, T0, 0, 1)
    busy = Seen("s-1", 1, Phase.DRAINING, T0, in_flight=1)
    almost = T0 + rollout.DRAIN_LIMIT - timedelta(seconds=1)
    assert next_steps(wish, [busy], almost) == []
    assert due(wish, [busy], almost) == T0 + rollout.DRAIN_LIMIT
    assert next_steps(wish, [busy], T0 + rollout.DRAIN_LIMIT) == [Stop("s-1", "drained")]
    assert next_steps(wish, [replace(busy, in_flight=0)], T0) == [Stop("s-1", "drained")]


def test_pauses_double_up_to_a_limit_and_a_failure_long_ago_is_not_in_a_row() -> None:
    assert [pause(n).total_seconds() for n in (1, 2, 3, 4, 30)] == [2, 4, 8, 16, 300]
    assert failed_again(4, T0, T0 + timedelta(minutes=1)) == 5
    assert failed_again(4, T0, T0 + rollout.FORGIVEN_AFTER) == 1


def test_what_is_least_worth_keeping_goes_first() -> None:
    wish = Wish(EndpointState.ACTIVE, T0, 1, 1)
    old = Seen("s-old", 1, Phase.HEALTHY, T0)
    young = Seen("s-young", 1, Phase.HEALTHY, T0 + timedelta(hours=1))
    waiting = Seen("s-waiting", 1, Phase.WAITING, T0)
    steps = next_steps(wish, [old, young, waiting], T0 + timedelta(hours=2))
    assert steps == [Drain("s-waiting"), Drain("s-young")]


@pytest.mark.parametrize("state", [EndpointState.DELETING, EndpointState.DELETED])
def test_what_is_left_of_a_deleted_endpoint_is_drained(state: EndpointState) -> None:
    wish = Wish(state, T0, 3, 1)
    assert next_steps(wish, [Seen("s-1", 1, Phase.HEALTHY, T0)], T0) == [Drain("s-1")]
    assert Start(1) not in next_steps(wish, [], T0)


def test_while_an_old_replica_leaves_its_room_is_waited_for_and_no_other_is_taken() -> None:
    wish = Wish(EndpointState.ACTIVE, T0, 2, 2, former=1, updating=T0)
    leaving = Seen("s-1", 1, Phase.DRAINING, T0, in_flight=1)
    staying = [Seen(f"s-{n}", 1, Phase.HEALTHY, T0) for n in (2, 3)]
    new = Seen("s-4", 2, Phase.WAITING, T0)
    later = T0 + rollout.ROOM_PATIENCE
    assert next_steps(wish, [leaving, *staying, new], later) == []
    assert next_steps(wish, [*staying, new], later) == [Drain("s-2")]


def test_a_replica_whose_node_is_lost_has_a_stand_in_at_once_and_the_spare_one_goes_when_it_is_back() -> None:
    wish = Wish(EndpointState.ACTIVE, T0, 1, 1)
    away = Seen("s-1", 1, Phase.AWAY, T0)
    assert next_steps(wish, [away], T0) == [Start(1)]
    stand_in = Seen("s-2", 1, Phase.HEALTHY, T0 + timedelta(minutes=1))
    assert next_steps(wish, [away, stand_in], T0) == []
    assert next_steps(wish, [replace(away, phase=Phase.HEALTHY), stand_in], T0) == [Drain("s-2")]


# ── nodes that are emptied ───────────────────────────────────────────────────────────────────────


def test_an_update_that_has_moved_partly_and_finds_no_more_room_is_given_up_as_well() -> None:
    """One has moved; since then a node was lost, and there is room for nothing new."""
    wish = Wish(EndpointState.ACTIVE, T0, 3, 2, former=1, updating=T0)
    replicas = [Seen("s-1", 1, Phase.HEALTHY, T0), Seen("s-2", 2, Phase.HEALTHY, T0), Seen("s-3", 2, Phase.WAITING, T0)]
    assert next_steps(wish, replicas, T0 + rollout.ROOM_LIMIT - timedelta(seconds=1)) == []
    assert next_steps(wish, replicas, T0 + rollout.ROOM_LIMIT) == [GiveUp("room")]


@pytest.mark.parametrize("wanted", [1, 3])
def test_replicas_on_a_node_that_is_emptied_serve_until_their_stand_ins_do(wanted: int) -> None:
    wish = Wish(EndpointState.ACTIVE, T0, wanted, 1)
    leaving = [Seen(f"s-{n}", 1, Phase.HEALTHY, T0, leaving=T0) for n in range(wanted)]
    assert next_steps(wish, leaving, T0) == [Start(wanted)]
    coming = [Seen(f"t-{n}", 1, Phase.STARTING, T0) for n in range(wanted)]
    assert next_steps(wish, [*leaving, *coming], T0) == []
    ready = [replace(coming[0], phase=Phase.HEALTHY), *coming[1:]]
    assert next_steps(wish, [*leaving, *ready], T0) == [Drain("s-0")]


def test_without_room_the_last_replica_of_an_emptied_node_is_let_go_when_its_time_is_over() -> None:
    wish = Wish(EndpointState.ACTIVE, T0, 1, 1)
    last = Seen("s-1", 1, Phase.HEALTHY, T0, leaving=T0)
    waits = Seen("s-2", 1, Phase.WAITING, T0)
    almost = T0 + wish.moves_within - timedelta(seconds=1)
    assert next_steps(wish, [last, waits], almost) == []
    assert due(wish, [last], almost) == T0 + wish.moves_within
    assert next_steps(wish, [last, waits], T0 + wish.moves_within) == [Drain("s-1")]


@STEADY
@given(wanted=st.integers(1, 5), spare=st.integers(1, 3), emptied=st.sets(st.integers(0, 4)), update=st.booleans())
def test_emptying_nodes_never_leaves_fewer_healthy_than_are_wanted_and_ends(
    wanted: int, spare: int, emptied: set[int], update: bool
) -> None:
    theatre = running(wanted, room=wanted + spare)
    theatre.watch()
    if update:
        theatre.update(2)
    idents = sorted(theatre.replicas)
    for ident in {idents[n % wanted] for n in emptied}:
        theatre.replicas[ident] = replace(theatre.replicas[ident], leaving=theatre.now)
    theatre.settle()
    theatre.run(lambda: theatre.done and not any(r.leaving for r in theatre.replicas.values()))
    assert theatre.fewest >= wanted


def test_a_new_server_lets_no_old_replica_go_before_it_has_asked_it() -> None:
    wish = Wish(EndpointState.ACTIVE, T0, 1, 2, former=1, updating=T0)
    unasked = Seen("s-1", 1, Phase.STARTING, T0, ran_before=True)
    new = Seen("s-2", 2, Phase.STARTING, T0)
    assert next_steps(wish, [unasked, new], T0) == []
    assert due(wish, [unasked, new], T0) == T0 + rollout.ASKED_WITHIN
    assert next_steps(wish, [unasked, new], T0 + rollout.ASKED_WITHIN) == [Drain("s-1")]
    assert next_steps(wish, [replace(unasked, ran_before=False), new], T0) == [Drain("s-1")]
