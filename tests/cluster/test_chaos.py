"""Killed at random points under load: nothing acknowledged is lost, nothing runs twice or leaks (`evals.chaos`)."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cluster.models import Event, Resources, S, Session
from evals.chaos import checks
from evals.chaos.adversary import WORK
from evals.chaos.load import KINDS, Promise
from evals.chaos.storm import Report, storm

SEED = 1
NOW = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.mark.slow
async def test_kill_9_at_random_points_under_load_loses_nothing_and_runs_nothing_twice(tmp_path: Path) -> None:
    held(await storm(tmp_path / "cluster", kills=12, seed=SEED, agents=2, people=6))


@pytest.mark.slow
async def test_nor_does_it_on_postgresql(tmp_path: Path, postgres: Any) -> None:
    database = await postgres.fresh()
    held(await storm(tmp_path / "cluster", kills=12, seed=SEED, agents=2, people=6, database=database))
    await postgres.drop(database)


def held(report: Report) -> None:
    assert report.wrong == [], f"with seed {SEED}"
    assert sum(report.kills.values()) >= 10
    assert report.kills.keys() == WORK.keys()
    assert report.sessions == sum(report.results.values()) > 5
    assert report.told["tried again"] > 0


# ── the checks would find what is wrong ──────────────────────────────────────────────────────────


def session(result: str | None, code: int | None, **more: Any) -> Session:
    whole = {"id": "s-1", "name": "s", "user": "ann", "project": "red", "resource_group": "default", "submitted": NOW}
    return Session.model_validate(
        {**whole, "state": "terminated", "resources": Resources(), "result": result, "exit_code": code, **more}
    )


@pytest.mark.parametrize(
    ("kind", "result", "code", "stopped", "struck", "fine"),
    [
        ("short", "success", 0, False, False, True),
        ("short", "success", None, False, False, False),
        ("short", "failure", 1, False, False, False),
        ("short", "lost", None, False, False, False),
        ("short", "lost", None, False, True, True),
        ("short", None, None, False, True, False),
        ("short", "cancelled", 143, True, False, True),
        ("short", "success", 0, True, False, False),
        ("failing", "failure", 3, False, False, True),
        ("failing", "failure", 1, False, False, False),
        ("endless", "cancelled", 143, True, False, True),
        ("endless", "failure", 143, True, False, False),
    ],
)
def test_a_session_ends_as_what_it_did(
    kind: str, result: str | None, code: int | None, stopped: bool, struck: bool, fine: bool
) -> None:
    promise = Promise("0-1", KINDS[kind], "s-1", stopped=stopped)
    assert (checks.wrong_end(promise, session(result, code), struck) == []) is fine


@pytest.mark.parametrize(
    ("lines", "stopped", "struck", "fine"),
    [
        (["1 0", "1 1"], False, False, True),
        (["1 1", "1 0"], True, False, True),
        (["1 0"], False, False, False),
        ([], False, False, False),
        ([], True, False, True),
        (["1 0"], False, True, True),
        (["1 0", "1 1", "1 1"], True, True, False),
        (["1 0", "2 1"], False, False, False),
        (["1 0", "1 2"], True, False, False),
    ],
)
def test_each_rank_runs_once(lines: list[str], stopped: bool, struck: bool, fine: bool) -> None:
    promise = Promise("0-1", KINDS["gang"], "s-1", stopped=stopped)
    assert (checks.wrong_runs(promise, lines, struck) == []) is fine


def event(seq: int, text: str = "{user} submitted {name}.") -> Event:
    return Event(seq=seq, at=NOW, kind="session_pending", target="s", message=S(text, user="ann", name="s"))


def test_events_have_no_gap_stand_and_tell_of_each_submission() -> None:
    promised, seen = [Promise("0-1", KINDS["short"])], {1: event(1)}
    assert checks.wrong_events([event(1), event(2, "{name} runs.")], promised, seen) == []
    assert checks.wrong_events([event(1), event(3, "{name} runs.")], promised, seen) != []
    assert checks.wrong_events([event(1)], [], seen) != []
    assert checks.wrong_events([event(1, "{name} was submitted.")], promised, seen) != []


def test_the_journal_is_what_was_acknowledged() -> None:
    promise = Promise("0-1", KINDS["short"], journal={"a-0001": "start_session", "a-0002": "terminate_sessions"})
    assert checks.wrong_journal(dict(promise.journal), [promise]) == []
    assert checks.wrong_journal({"a-0001": "start_session"}, [promise]) != []
    assert checks.wrong_journal({**promise.journal, "a-0003": "start_session"}, [promise]) != []
    assert checks.wrong_journal({**promise.journal, "a-0002": "start_session"}, [promise]) != []
