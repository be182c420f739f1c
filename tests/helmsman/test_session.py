"""One conversation in several processes, and after a crash of any."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helmsman.errors import Busy, HelmsmanError, Stale
from helmsman.events import Event
from helmsman.models.scripted import Line, ScriptedModel, Wish
from helmsman.store import Store


def calls(*wishes: tuple[str, dict[str, str]]) -> Line:
    return Line(calls=[Wish(tool=tool, arguments=arguments) for tool, arguments in wishes])


CORDON = calls(("cordon_node", {"node": "a100-01"}))
CORDON_2 = calls(("cordon_node", {"node": "a100-02"}))
BOTH = Line(calls=[*CORDON.calls, *CORDON_2.calls])
LIST = calls(("list_nodes", {}))


class Killed(BaseException):
    """Stands for a kill -9 at this very place."""


def bury(file: Path) -> None:
    """Make every holder of a lease a dead process, as after a kill."""
    with sqlite3.connect(file) as db:
        db.execute("UPDATE threads SET pid = 2147483600 WHERE holder IS NOT NULL")


# ── lines while a question is open ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("line", "done"), [("응", 1), ("yes", 1), ("ㄴㄴ", 0), ("취소", 0)])
async def test_a_typed_yes_or_no_answers_the_plan(talk, line: str, done: int) -> None:
    t = await talk(CORDON)
    await t.say("close it", line)
    assert len(t.toy.done) == done
    assert await t.desk.store.question(t.session.thread) is None


async def test_any_other_line_is_a_no_with_that_line_as_the_next_request(talk) -> None:
    t = await talk(CORDON, CORDON_2)
    await t.say("close a100-01", "no, a100-02 instead")
    assert await t.story() == (
        "> close a100-01\nplan: cordon_node a100-01?\n> no, a100-02 instead\nno\ncordon_node: denied\n"
        "< All right, nothing was changed.\n(denied)\nplan: cordon_node a100-02?"
    )
    await t.say("yes")
    assert t.toy.done == ["cordon_node a100-02"]


async def test_a_no_with_a_comment_on_the_card_does_the_same(talk) -> None:
    t = await talk(CORDON, CORDON_2)
    await t.say("close a100-01")
    await t.decide("no", comment="a100-02 instead")
    assert (await t.story()).endswith("(denied)\nplan: cordon_node a100-02?")
    assert [m.content for m in t.desk.model.seen[-1] if m.type == "human"] == ["close a100-01", "a100-02 instead"]


async def test_the_second_one_points_into_the_last_result(talk) -> None:
    t = await talk(LIST, CORDON)
    await t.say("list", "close the first one")
    tool = next(m for m in t.desk.model.seen[-1] if m.type == "tool")
    assert tool.artifact == ["a100-01", "a100-02", "cpu-01"]


# ── two holders of one thread ────────────────────────────────────────────────────────────────────


async def test_a_question_raised_in_one_process_is_answered_in_another(talk) -> None:
    terminal = await talk(BOTH)
    await terminal.say("close both")
    web = await talk(thread=terminal.session.thread)
    await web.decide("yes")
    assert web.toy.done == ["cordon_node a100-01", "cordon_node a100-02"]
    assert await terminal.story() == await web.story()
    with pytest.raises(Stale):
        await terminal.decide("yes")


async def test_only_one_of_two_answers_at_the_same_time_counts(talk) -> None:
    terminal = await talk(CORDON)
    await terminal.say("close it")
    web = await talk(thread=terminal.session.thread)
    both = await asyncio.gather(terminal.decide("yes"), web.decide("no"), return_exceptions=True)
    assert [type(r) for r in both if r] == [Stale]
    assert len(await web.bodies("decided")) == 1


async def test_a_follower_in_another_process_sees_events_as_they_come(talk) -> None:
    terminal = await talk(LIST)
    web = await talk(thread=None)
    web.session.thread = terminal.session.thread
    seen: list[Event] = []

    async def follow() -> None:
        async for event in web.session.events():
            seen.append(event)
            if event.body.kind == "turn_ended":
                return

    following = asyncio.create_task(follow())
    await terminal.say("list")
    async with asyncio.timeout(3):
        await following
    assert [e.seq for e in seen] == list(range(1, len(seen) + 1))


async def test_a_second_request_while_one_runs_is_told_to_wait(talk) -> None:
    t = await talk(LIST)
    running, go_on = asyncio.Event(), asyncio.Event()

    class Slow(ScriptedModel):
        async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
            running.set()
            await go_on.wait()
            return self._generate(messages)

    t.desk.model = Slow(lines=[LIST])
    first = asyncio.create_task(t.say("list"))
    await running.wait()
    other = await talk(thread=t.session.thread)
    with pytest.raises(Busy):
        await other.say("list again")
    go_on.set()
    await first
    assert (await t.last("turn_ended")).outcome == "done"


# ── stop ─────────────────────────────────────────────────────────────────────────────────────────


async def test_stop_from_another_process_ends_a_turn_that_thinks(talk) -> None:
    t = await talk(LIST)
    running = asyncio.Event()

    class Endless(ScriptedModel):
        async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
            running.set()
            await asyncio.Event().wait()

    t.desk.model = Endless()
    turn = asyncio.create_task(t.say("list"))
    await running.wait()
    other = await talk(thread=t.session.thread)
    await other.session.stop()
    async with asyncio.timeout(3):
        await turn
    assert (await t.last("turn_ended")).outcome == "stopped"
    t.desk.model = ScriptedModel(lines=[LIST])
    await t.say("list")
    assert (await t.last("turn_ended")).outcome == "done"


async def test_stop_between_two_changes_says_what_had_already_happened(talk) -> None:
    t = await talk(BOTH)
    await t.say("close both")
    t.toy.after_effect = lambda: t.session._kit.stopping.set()
    await t.decide("yes")
    assert t.toy.done == ["cordon_node a100-01"]
    ended = await t.last("turn_ended")
    assert (ended.outcome, ended.done) == ("stopped", ["cordon_node a100-01: done"])


async def test_stop_while_a_plan_is_open_is_a_no(talk) -> None:
    t = await talk(CORDON)
    await t.say("close it")
    await t.session.stop()
    assert (await t.last("turn_ended")).outcome == "denied"
    assert t.toy.done == []


async def test_a_stop_when_nothing_runs_does_not_stop_the_next_turn(talk) -> None:
    t = await talk(LIST)
    await t.session.stop()
    await t.say("list")
    assert (await t.last("turn_ended")).outcome == "done"


# ── crashes ──────────────────────────────────────────────────────────────────────────────────────


async def test_an_open_question_survives_its_process(talk) -> None:
    t = await talk(CORDON)
    await t.say("close it")
    await t.desk.close()
    again = await talk(thread=t.session.thread)
    await again.say("yes")
    assert again.toy.done == ["cordon_node a100-01"]


async def test_killed_after_the_effect_and_before_the_checkpoint_it_is_not_done_twice(talk, tmp_path: Path) -> None:
    t = await talk(BOTH)
    await t.say("close both")

    def killed() -> None:
        raise Killed

    t.toy.after_effect = killed
    with pytest.raises(Killed):
        await t.decide("yes")
    assert t.toy.done == ["cordon_node a100-01"]
    bury(tmp_path / "conversations.db")
    t.toy.after_effect = lambda: None
    again = await talk(LIST, thread=t.session.thread)
    await again.session.recover()
    assert again.toy.done == ["cordon_node a100-01", "cordon_node a100-02"]
    assert (await again.last("turn_ended")).outcome == "done"
    assert len(await again.bodies("call_started")) == 2
    await again.say("list")
    assert (await again.last("turn_ended")).outcome == "done"


async def test_killed_between_the_yes_and_the_act_it_is_carried_out_by_the_next_process(talk, tmp_path: Path) -> None:
    t = await talk(CORDON)
    await t.say("close it")

    async def killed(*args, **kwargs):
        raise Killed

    t.desk.agent.ainvoke = killed
    with pytest.raises(Killed):
        await t.decide("yes")
    bury(tmp_path / "conversations.db")
    again = await talk(thread=t.session.thread)
    await again.session.recover()
    assert again.toy.done == ["cordon_node a100-01"]


async def test_what_was_approved_long_ago_is_not_done_by_itself_any_more(talk, tmp_path: Path) -> None:
    t = await talk(CORDON)
    await t.say("close it")

    def killed() -> None:
        raise Killed

    t.toy.before_effect = killed
    with pytest.raises(Killed):
        await t.decide("yes")
    t.toy.before_effect = lambda: None
    bury(tmp_path / "conversations.db")
    with sqlite3.connect(tmp_path / "conversations.db") as db:
        db.execute("UPDATE questions SET at = at - 3600")
    again = await talk(LIST, thread=t.session.thread)
    await again.session.recover()
    assert again.toy.done == []
    assert (await again.last("turn_ended")).outcome == "stopped"
    await again.say("list")
    assert (await again.last("turn_ended")).outcome == "done"


async def test_killed_while_thinking_the_next_line_finds_the_thread_usable(talk, tmp_path: Path) -> None:
    t = await talk(LIST)

    class Deadly(ScriptedModel):
        async def astream(self, *args, **kwargs):
            raise Killed
            yield

    t.desk.model = Deadly()
    with pytest.raises(Killed):
        await t.say("list")
    bury(tmp_path / "conversations.db")
    again = await talk(LIST, LIST, thread=t.session.thread)
    await again.say("once more")
    outcomes = [e.outcome for e in await again.bodies("turn_ended")]
    assert outcomes == ["done", "done"]


async def test_a_dead_model_is_a_sentence_and_the_next_request_works(talk) -> None:
    t = await talk(LIST)

    class Broken(ScriptedModel):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            raise RuntimeError("out of order")

    t.desk.model = Broken()
    await t.say("list")
    assert "out of order" in (await t.last("answered")).text
    assert (await t.last("turn_ended")).outcome == "failed"
    t.desk.model = ScriptedModel(lines=[LIST])
    await t.say("list")
    assert (await t.last("turn_ended")).outcome == "done"


async def test_what_is_kept_on_disk_stays_small(talk, tmp_path: Path) -> None:
    t = await talk(*[LIST] * 12)
    for i in range(12):
        await t.say(f"list {i}")
    with sqlite3.connect(tmp_path / "conversations.db") as db:
        assert db.execute("SELECT COUNT(*) FROM checkpoints").fetchone()[0] == 1
        assert db.execute("SELECT LENGTH(checkpoint) FROM checkpoints").fetchone()[0] < 20_000
    assert len([m for m in t.desk.model.seen[-1] if m.type == "human"]) <= 7


async def test_a_full_disk_is_a_sentence_and_nothing_is_done(talk) -> None:
    t = await talk(CORDON)
    plain = t.desk.saver.aput

    async def full(*args, **kwargs):
        raise sqlite3.OperationalError("database or disk is full")

    t.desk.saver.aput = full
    await t.say("close it")
    assert "disk is full" in (await t.last("answered")).text
    assert (await t.last("turn_ended")).outcome == "failed"
    t.desk.saver.aput = plain
    await t.say("close it")
    assert t.toy.done == []


@pytest.mark.parametrize("content", ["", "this is no database, whatever its name says" * 99])
async def test_a_place_that_cannot_be_used_is_a_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "file" / "conversations.db"
    if content:
        path.parent.mkdir()
        path.write_text(content)
    else:
        path.parent.touch()
    with pytest.raises(HelmsmanError, match=r"conversations\.db"):
        await Store.open(path)


# ── threads ──────────────────────────────────────────────────────────────────────────────────────


async def test_threads_are_listed_newest_first_by_their_first_line(talk) -> None:
    first, second = await talk(LIST), await talk(LIST)
    await first.say("list the nodes")
    await second.say("노드 목록")
    threads = await first.session.threads()
    assert [(t.title, t.turns) for t in threads] == [("노드 목록", 1), ("list the nodes", 1)]


async def test_somebody_elses_thread_can_not_be_opened(talk) -> None:
    from cluster.errors import NotFound

    t = await talk(LIST)
    await t.say("list")
    t.desk.owner = "jiwoo@toy"
    with pytest.raises(NotFound):
        await t.desk.open(t.session.thread)
    assert await t.desk.threads() == []


_PROCESS = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import conftest
from helmsman.desk import open_desk
from helmsman.models.scripted import Line, ScriptedModel, Wish
from helmsman.store import Store
from helmsman.settings import Settings
from tools.registry import Registry

async def main():
    toy = conftest.Toy(Path({folder!r}) / "done.jsonl")
    toy.after_effect = lambda: (print("acted", flush=True), sys.stdin.read())
    model = ScriptedModel(lines=[Line(calls=[Wish(tool="cordon_node", arguments={{"node": "a100-01"}})])])
    desk = await open_desk(Settings(), toy, Path({folder!r}), model)
    desk.registry = Registry([conftest.ToyCordon()])
    session = await desk.open()
    print(session.thread, flush=True)
    await session.send("close it", "test")
    await session.send("yes", "test")

asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_real_process_killed_in_the_act_is_taken_over_at_once(talk, tmp_path: Path) -> None:
    code = _PROCESS.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert process.stdout
    with process:
        thread = process.stdout.readline().strip()
        assert process.stdout.readline().strip() == "acted"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    started = time.monotonic()
    t = await talk(LIST, thread=thread)
    await t.say("list")
    assert time.monotonic() - started < 5
    assert t.toy.done == ["cordon_node a100-01"]
    assert [e.outcome for e in await t.bodies("turn_ended")] == ["done", "done"]
