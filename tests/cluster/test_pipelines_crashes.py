"""A pipeline killed before and after every commit of its run, and taken up again: nothing runs twice, nothing is lost.

The server stops dead in the middle of a commit; its database is copied as it lies on the disk, and another server goes
on with the copy. The node goes on living, as nodes do, and tells again what was not answered.
"""

import asyncio
import contextlib
import shutil
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from cluster.clock import VirtualClock
from cluster.core import Core
from cluster.db.engine import COMMIT, Database
from cluster.db.tables import MemberRow, ProjectRow, UserRow
from cluster.models import (
    Beat,
    CancelPipelineRun,
    NodeInfo,
    Operation,
    OperationRequest,
    PipelineRun,
    PutPipeline,
    Resources,
    ResumePipelineRun,
    RunPipeline,
    RunState,
    StepState,
    WorkId,
    WorkReport,
)

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
DIAMOND = """
name: p
steps:
  - {name: top, command: top}
  - {name: left, after: [top], command: left, retries: 1}
  - {name: right, after: [top], command: right}
  - {name: bottom, after: [left, right], command: bottom}
"""


class Hooks:
    """Stops the server dead at its `at`-th commit: before it, or right after it. It counts both."""

    def __init__(self) -> None:
        self.at = 0
        self.passed = 0
        self.dead = asyncio.Event()

    async def here(self) -> None:
        self.passed += 1
        if self.passed == self.at:
            self.dead.set()
            await asyncio.Event().wait()


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Hooks:
    made = Hooks()
    commit, say = AsyncSession.commit, Database._say

    async def committed(self: AsyncSession) -> None:
        await made.here()
        await commit(self)
        await made.here()

    async def said(self: Database, what: str) -> None:
        if what == COMMIT:
            await made.here()
        await say(self, what)
        if what == COMMIT:
            await made.here()

    monkeypatch.setattr(AsyncSession, "commit", committed)
    monkeypatch.setattr(Database, "_say", said)
    return made


@dataclass
class Node:
    """Ends everything at the next look, with the exit codes of `plan` in turn (0 when they are used up)."""

    plan: dict[str, list[int]]
    running: dict[str, tuple[WorkId, str]] = field(default_factory=dict)
    outbox: list[WorkReport] = field(default_factory=list)
    began: Counter[str] = field(default_factory=Counter)
    won: Counter[str] = field(default_factory=Counter)
    holds: set[str] = field(default_factory=set)
    """Commands that go on until they are stopped."""
    seen: set[tuple[str, int]] = field(default_factory=set)

    async def join(self, core: Core) -> None:
        await core.agents.register(NodeInfo(name="n1", capacity=Resources(cpu=8, memory=2**36)))

    async def look(self, core: Core) -> None:
        """One beat; what has not been answered is told again the next time."""
        told = self.outbox[:]
        running = [ident for ident, _ in self.running.values()]
        reply = await core.agents.beat("n1", Beat(running=running, reports=told))
        del self.outbox[: len(told)]
        for order in reply.stop:
            if order.id.session in self.running:
                self._end(order.id, 143, stopped=True)
        for ident, command in [*self.running.values()]:
            if command not in self.holds:
                self._end(ident, (self.plan.get(command) or [0]).pop(0) if self.plan.get(command) else 0)
        for work in reply.start:
            self._start(work.id, str(work.command))

    def _start(self, ident: WorkId, command: str) -> None:
        if (ident.session, ident.attempt) in self.seen:
            return
        self.seen.add((ident.session, ident.attempt))
        self.running[ident.session] = (ident, command)
        self.began[command] += 1
        self._say(ident, "running")

    def _end(self, ident: WorkId, code: int, stopped: bool = False) -> None:
        _, command = self.running.pop(ident.session)
        self.won[command] += code == 0
        self._say(ident, "exited", code, stopped)

    def _say(self, ident: WorkId, state: str, code: int | None = None, stopped: bool = False) -> None:
        told = {"id": ident, "state": state, "exit_code": code, "stopped": stopped, "at": NOW}
        self.outbox.append(WorkReport.model_validate(told))


Story = Callable[[Core, Node], Awaitable[None]]


async def do(core: Core, operation: Operation, key: str) -> None:
    """As a client does it that asks again when it got no answer."""
    outcome = await core.execute(await core.user("ann"), OperationRequest(operation=operation, key=key))
    assert outcome.refused == []


async def until(core: Core, node: Node, true: Callable[[PipelineRun], bool]) -> PipelineRun:
    for _ in range(60):
        run = await core.pipelines.run(await core.user("ann"), "p")
        if true(run):
            return run
        await core.schedule_pass()
        await node.look(core)
    raise AssertionError(f"it does not get on: {run}")


def ended(run: PipelineRun) -> bool:
    return run.ended is not None


async def fails_and_is_resumed(core: Core, node: Node) -> None:
    """`left` fails twice, so the run fails; then it is resumed."""
    await do(core, RunPipeline(pipeline="p"), "run")
    await until(core, node, lambda run: ended(run) or node.began["left"] > 2)
    await do(core, ResumePipelineRun(run="r-0001"), "resume")
    await until(core, node, ended)


async def is_cancelled_and_resumed(core: Core, node: Node) -> None:
    """`left` goes on for ever; the run is cancelled while it does, and resumed."""
    node.holds = {"left"} if node.began["left"] == 0 or "left" in {c for _, c in node.running.values()} else set()
    await do(core, RunPipeline(pipeline="p"), "run")
    await until(core, node, lambda run: node.began["left"] > 0)
    await do(core, CancelPipelineRun(run="r-0001"), "cancel")
    await until(core, node, lambda run: run.state is not RunState.CANCELLING)
    node.holds = set()
    await do(core, ResumePipelineRun(run="r-0001"), "resume")
    await until(core, node, ended)


async def opened(where: Path) -> Core:
    return await Core.open(where / "cluster.db", clock=VirtualClock(NOW), data_dir=where, name="lab")


@pytest.fixture
async def base(tmp_path: Path) -> Path:
    """A folder with a cluster in which ann has the pipeline."""
    where = tmp_path / "base"
    where.mkdir()
    core = await opened(where)
    async with core.db.write() as db:
        db.add_all([ProjectRow(name="red"), UserRow(name="ann", role="user")])
        await db.flush()
        db.add(MemberRow(project="red", user="ann"))
    await do(core, PutPipeline(text=DIAMOND), "put")
    await Node({}).join(core)
    await core.close()
    return where


def copy(source: Path, target: Path) -> Path:
    """The files as they lie there, whatever is under way."""
    target.mkdir()
    for file in source.glob("cluster.db*"):
        if not file.name.endswith("-shm"):
            shutil.copy(file, target)
    with contextlib.closing(sqlite3.connect(target / "cluster.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return target


async def kill(core: Core, task: "asyncio.Task[None]") -> None:
    """Nothing of it goes on; what it would still have done is not done."""
    rounds = core.writer._rounds
    for each in [task, rounds]:
        if each is not None:
            each.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await each
    await core.db.close()


async def killed_at(
    at: int, hooks: Hooks, base: Path, folder: Path, story: Story, plan: dict[str, list[int]]
) -> tuple[Node, Any]:
    """The story, with one server that is killed at its `at`-th place and one that goes on; the run as it ended."""
    node = Node({command: codes[:] for command, codes in plan.items()})
    where = copy(base, folder / "first")
    core = await opened(where)
    hooks.at, hooks.passed, hooks.dead = at, 0, asyncio.Event()
    task = asyncio.ensure_future(story(core, node))
    dead = asyncio.ensure_future(hooks.dead.wait())
    await asyncio.wait([task, dead], return_when=asyncio.FIRST_COMPLETED)
    hooks.at = 0
    if hooks.dead.is_set():
        after = copy(where, folder / "second")
        await kill(core, task)
        core = await opened(after)
        await node.join(core)
        await story(core, node)
    else:
        dead.cancel()
        task.result()
    run = await core.pipelines.run(await core.user("ann"), "p")
    total = (await core.pipelines.runs(await core.user("ann"), _every())).total
    assert total == 1
    await core.close()
    return node, run


def _every() -> Any:
    from cluster.pipelines.reads import RunQuery

    return RunQuery()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("story", "plan", "began"),
    [
        (fails_and_is_resumed, {"left": [1, 2]}, {"top": 1, "left": 3, "right": 1, "bottom": 1}),
        (is_cancelled_and_resumed, {}, {"top": 1, "left": 2, "right": 1, "bottom": 1}),
    ],
)
async def test_killed_at_every_commit_each_step_succeeds_exactly_once(
    hooks: Hooks, base: Path, tmp_path: Path, story: Story, plan: dict[str, list[int]], began: dict[str, int]
) -> None:
    at, killed = 0, True
    while killed:
        at += 1
        folder = tmp_path / str(at)
        folder.mkdir()
        node, run = await killed_at(at, hooks, base, folder, story, plan)
        killed = hooks.dead.is_set()
        shutil.rmtree(folder)
        assert run.state is RunState.SUCCEEDED, f"killed at {at}"
        assert {s.name: s.state for s in run.steps} == dict.fromkeys(began, StepState.SUCCEEDED)
        assert node.won == dict.fromkeys(began, 1), f"killed at {at}"
        assert all(node.began[step] == times for step, times in began.items() if step != "right"), f"killed at {at}"
        assert 1 <= node.began["right"] <= 2
    assert at > 40, "there are as many places to die at"


@pytest.mark.parametrize("step", ["top", "left", "right", "bottom"])
async def test_a_run_that_fails_at_any_step_is_resumed_and_each_step_succeeds_once(
    hooks: Hooks, base: Path, step: str
) -> None:
    core, node = await opened(base), Node({step: [1, 1] if step == "left" else [1]})
    await do(core, RunPipeline(pipeline="p"), "run")
    run = await until(core, node, ended)
    assert run.state is RunState.FAILED
    await do(core, ResumePipelineRun(run="p"), "resume")
    assert (await until(core, node, ended)).state is RunState.SUCCEEDED
    assert node.won == dict.fromkeys(["top", "left", "right", "bottom"], 1)
    await core.close()
