"""What is to be done about a run, for random graphs, outcomes, crashes: it ends, in order, and nothing runs twice."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import Conflict
from cluster.models import Reason, RunState, S, SessionResult, StepState
from cluster.pipelines import lifecycle
from cluster.pipelines.moves import Begin, Finish, Move, Settle, Step, Stop, Work, next_look, next_moves

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
R, P = RunState, StepState


@dataclass
class Play:
    """A run as it is written, its sessions, and what was begun. `outcomes`: of every try of a step, in turn."""

    steps: dict[str, Step]
    outcomes: dict[str, list[SessionResult]]
    state: RunState = R.RUNNING
    since: datetime = NOW
    now: datetime = NOW
    sessions: dict[str, Work] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    won: list[str] = field(default_factory=list)
    """Steps whose session succeeded, once for each."""

    def moves(self) -> list[Move]:
        return next_moves(self.state, self.since, list(self.steps.values()), self.sessions, self.now)

    def do(self, move: Move) -> None:
        """One move, as the keeper writes it: in one transaction."""
        match move:
            case Begin(name):
                step = self.steps[name]
                ident = f"{name}/{len(self.begun)}"
                self.begun.append(name)
                self.sessions[ident] = Work(ident, ended=False)
                self._become(name, P.RUNNING, session=ident, tries=step.tries + 1)
            case Settle(name, to, reasons):
                self._become(name, to, reasons=reasons)
            case Stop(name):
                ident = self.steps[name].session or ""
                self.sessions[ident] = replace(self.sessions[ident], stopping=True)
            case Finish(to):
                assert to in lifecycle.RUN[self.state].follows
                self.state, self.since = to, self.now

    def _become(self, name: str, to: StepState, **more: object) -> None:
        step = self.steps[name]
        assert to in lifecycle.STEP[step.state].follows, (name, step.state, to)
        self.steps[name] = replace(step, state=to, since=self.now, **more)  # type: ignore[arg-type]

    @property
    def live(self) -> list[str]:
        return [ident for ident, work in self.sessions.items() if not work.ended]

    def end(self, ident: str) -> None:
        """A session ends, as its outcome says; one that was stopped as cancelled."""
        name, work = ident.split("/")[0], self.sessions[ident]
        tries = self.steps[name].tries
        result = SessionResult.CANCELLED if work.stopping else self.outcomes[name][tries - 1]
        self.sessions[ident] = replace(work, ended=True, result=result, exit_code=1)
        if result is SessionResult.SUCCESS:
            self.won.append(name)


RESULTS = st.sampled_from(
    [SessionResult.SUCCESS] * 3 + [SessionResult.FAILURE, SessionResult.LOST, SessionResult.CANCELLED]
)


@st.composite
def plays(draw: st.DrawFn) -> Play:
    count = draw(st.integers(1, 8))
    steps, outcomes = {}, {}
    for i in range(count):
        name = f"s{i}"
        after = tuple(draw(st.lists(st.sampled_from(sorted(steps)), unique=True, max_size=3))) if steps else ()
        retries = draw(st.integers(0, 2))
        steps[name] = Step(name, P.WAITING, NOW, after, retries=retries, delay=draw(st.sampled_from([0.0, 30.0])),
                           may_fail=draw(st.booleans()), left_out=draw(st.integers(0, 5)) == 0)  # fmt: skip
        outcomes[name] = [draw(RESULTS) for _ in range(retries + 1)]
    order = draw(st.permutations(list(steps)))
    return Play({name: steps[name] for name in order}, outcomes)


def run_on(play: Play, draw: st.DrawFn) -> None:
    """To its end: sessions end in any order, and the keeper is killed before any of its writes, ten times at most."""
    crashes = draw(st.integers(0, 10), label="crashes")
    for _ in range(400):
        moves = play.moves()
        if moves:
            written = draw(st.integers(0, len(moves)), label="written before the crash") if crashes else len(moves)
            crashes -= written < len(moves)
            for move in moves[:written]:
                play.do(move)
        elif play.live:
            play.end(draw(st.sampled_from(play.live), label="ends"))
        elif play.state in lifecycle.RUN_ENDED:
            return
        else:
            looks = [at for at in next_look(play.state, play.since, list(play.steps.values())) if at > play.now]
            assert looks, "it waits for nothing"
            play.now = min(looks)
    raise AssertionError("it does not end")


def check_order(play: Play) -> None:
    for name in play.begun:
        for other in play.steps[name].after:
            assert play.steps[other].lets_go_on, (name, other)


def expected(play: Play, name: str) -> StepState:
    """What becomes of a step, by the definition alone."""
    step = play.steps[name]
    before = {other: expected(play, other) for other in step.after}
    if not all(_passes(play, other, state) for other, state in before.items()):
        return P.SKIPPED
    if step.left_out:
        return P.SKIPPED
    for result in play.outcomes[name]:
        if result is SessionResult.SUCCESS:
            return P.SUCCEEDED
        if result is SessionResult.CANCELLED:
            return P.FAILED
    return P.FAILED


def _passes(play: Play, name: str, state: StepState) -> bool:
    step = play.steps[name]
    unhindered = step.left_out and all(_passes(play, other, expected(play, other)) for other in step.after)
    return state is P.SUCCEEDED or unhindered or (step.may_fail and state is P.FAILED)


@given(plays(), st.data())
@settings(max_examples=300, deadline=None)
def test_every_run_ends_as_its_definition_and_its_sessions_say(play: Play, data: st.DataObject) -> None:
    run_on(play, data.draw)
    assert {name: step.state for name, step in play.steps.items()} == {n: expected(play, n) for n in play.steps}
    failed = [n for n, step in play.steps.items() if step.state is P.FAILED and not step.may_fail]
    assert play.state is (R.FAILED if failed else R.SUCCEEDED)
    assert len(play.won) == len(set(play.won))
    for name, step in play.steps.items():
        assert play.begun.count(name) == step.tries <= step.retries + 1
    check_order(play)


@given(plays(), st.data())
@settings(max_examples=200, deadline=None)
def test_a_run_that_is_cancelled_at_any_moment_ends_cancelled_and_begins_nothing_more(
    play: Play, data: st.DataObject
) -> None:
    for _ in range(data.draw(st.integers(0, 12), label="moves before")):
        moves = play.moves()
        if moves and not isinstance(moves[0], Finish):
            play.do(moves[0])
        elif play.live:
            play.end(play.live[0])
    if play.state is not R.RUNNING:
        return
    play.state, play.since, begun = R.CANCELLING, play.now, len(play.begun)
    run_on(play, data.draw)
    assert play.state is R.CANCELLED
    assert len(play.begun) == begun
    assert all(step.settled for step in play.steps.values())
    assert play.live == []


@given(plays(), st.data())
@settings(max_examples=200, deadline=None)
def test_resumed_until_it_succeeds_each_step_succeeds_once(play: Play, data: st.DataObject) -> None:
    run_on(play, data.draw)
    for _ in range(30):
        if play.state is R.SUCCEEDED:
            break
        play.outcomes = {name: [SessionResult.SUCCESS] * 3 for name in play.steps}
        play.state, play.since = R.RUNNING, play.now
        for name, step in play.steps.items():
            if not step.lets_go_on:
                play.steps[name] = replace(step, state=P.WAITING, since=play.now, tries=0, session=None, reasons=())
        run_on(play, data.draw)
    assert play.state is R.SUCCEEDED
    assert len(play.won) == len(set(play.won))
    due = [n for n, step in play.steps.items() if not step.left_out and not step.may_fail]
    assert set(due) <= set(play.won)


# ── one by one ───────────────────────────────────────────────────────────────────────────────────


def step(name: str, state: StepState = P.RUNNING, **more: object) -> Step:
    return Step(name, state, NOW, session=f"s-{name}", **more)  # type: ignore[arg-type]


def test_a_step_that_waits_for_what_never_comes_fails_with_that_reason() -> None:
    reason = Reason(code="quota", message=S("no"))
    sessions = {"s-a": Work("a", ended=False, never=(reason,))}
    assert next_moves(R.RUNNING, NOW, [step("a")], sessions, NOW) == [Settle("a", P.FAILED, (reason,), stop=True)]


def test_a_step_whose_session_vanished_fails() -> None:
    (move,) = next_moves(R.RUNNING, NOW, [step("a")], {}, NOW)
    assert isinstance(move, Settle)
    assert (move.to, move.reasons[0].code) == (P.FAILED, "unavailable")


def test_a_cancelled_run_loses_its_patience_after_15_minutes_and_says_with_whom() -> None:
    sessions = {"s-a": Work("a", ended=False, stopping=True)}
    late = NOW + timedelta(seconds=lifecycle.CANCELLING_FOR)
    assert next_moves(R.CANCELLING, NOW, [step("a")], sessions, late - timedelta(seconds=1)) == []
    (move,) = next_moves(R.CANCELLING, NOW, [step("a")], sessions, late)
    assert isinstance(move, Settle)
    assert str(move.reasons[0].message) == "Nobody said in time that the session a has ended."
    assert next_look(R.CANCELLING, NOW, []) == [late]


def test_a_session_of_a_cancelled_run_that_comes_back_is_stopped_again() -> None:
    assert next_moves(R.CANCELLING, NOW, [step("a")], {"s-a": Work("a", ended=False)}, NOW) == [Stop("a")]


def test_a_step_that_succeeded_while_its_run_was_cancelled_has_succeeded() -> None:
    sessions = {"s-a": Work("a", ended=True, result=SessionResult.SUCCESS)}
    assert next_moves(R.CANCELLING, NOW, [step("a")], sessions, NOW) == [Settle("a", P.SUCCEEDED)]


# ── the tables ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("table", [lifecycle.RUN, lifecycle.STEP])
def test_every_state_is_in_its_table_and_a_limit_leads_somewhere(
    table: dict[RunState, lifecycle.Stage[RunState]],
) -> None:
    for stage in table.values():
        assert stage.follows <= table.keys()
        assert (stage.limit is None) == (stage.then is None)
        assert stage.then is None or stage.then in stage.follows


def test_a_state_that_may_not_follow_is_refused() -> None:
    from cluster.db.tables import RunRow

    row = RunRow(id="r-0001", state="succeeded", state_since=NOW)
    with pytest.raises(Conflict, match="r-0001 is succeeded; it can't become running"):
        lifecycle.move_run(row, R.RUNNING, NOW)


def test_the_readme_has_the_tables_as_they_are() -> None:
    readme = Path(lifecycle.__file__).parent / "README.md"
    assert lifecycle.table() in readme.read_text(encoding="utf-8")
