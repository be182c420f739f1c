"""A pipeline on a real server and node, with files in a shared folder; the server is killed all along the way."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.client import Client
from cluster.errors import Unavailable
from cluster.models import CreateFolder, Operation, PipelineRun, PutPipeline, ResumePipelineRun, RunPipeline, RunState
from evals.chaos.house import House

pytestmark = pytest.mark.slow

DIAMOND = """
name: diamond
parameters: {word: "it's $(touch broken); a word"}
env: {OUT: files}
steps:
  - name: top
    mounts: [shared]
    command: |
      cd "$HELMSMAN_FOLDERS/shared"
      echo top >> log; printf '%s' {{ parameters.word }} > word; sleep 0.3
  - {name: left, after: [top], mounts: [shared], command: &side 'cd "$HELMSMAN_FOLDERS/shared"
      && cat word > "$HELMSMAN_STEP" && echo "$HELMSMAN_STEP" >> log && sleep 0.3'}
  - {name: right, after: [top], mounts: [shared], command: *side}
  - name: bottom
    after: [left, right]
    mounts: [shared]
    command: |
      cd "$HELMSMAN_FOLDERS/shared"
      echo bottom >> log; sleep 0.3
      test -e ready || exit 7
      cmp left right && cp left "$HELMSMAN_RUN"
"""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "house", agents=1)
    yield made
    made.close()


class People:
    """Somebody who asks until there is an answer."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def ask(self, what: Callable[[Client], object]) -> object:
        end = time.monotonic() + 60
        while True:
            try:
                client = self._house.connect()
                try:
                    return await what(client)  # type: ignore[misc]
                finally:
                    await client.close()
            except Unavailable:
                assert time.monotonic() < end, "the server does not come back"
                await asyncio.sleep(0.05)

    async def do(self, operation: Operation, key: str) -> None:
        outcome = await self.ask(lambda client: client.execute(operation, key=key))
        assert outcome.refused == []  # type: ignore[attr-defined]

    async def run(self) -> PipelineRun:
        found = await self.ask(lambda client: client.pipeline_run("diamond"))
        assert isinstance(found, PipelineRun)
        return found


async def ended(people: People, house: House, log: Path, kills: bool) -> tuple[PipelineRun, int]:
    """The run's end; with `kills` the server dies after each line in the log, and once more soon after."""
    end, seen, struck = time.monotonic() + 90, 0, 0
    while (run := await people.run()).ended is None:
        assert time.monotonic() < end, run
        lines = len(log.read_text().splitlines()) if log.exists() else 0
        if kills and lines > seen:
            seen = lines
            for _ in range(2):
                house.server.kill()
                house.server.start()
                struck += 1
                await people.run()
        await asyncio.sleep(0.02)
    return run, struck


async def test_a_diamond_with_files_survives_kill_9_of_its_server_and_is_resumed(house: House) -> None:
    people = People(house)
    for daemon in house.daemons:
        daemon.start()
    shared = house.server.folder / "volumes" / "default" / "shared"
    await people.do(CreateFolder(name="shared"), "folder")
    shared = next(house.server.folder.glob("volumes/*/shared"), shared)
    await people.do(PutPipeline(text=DIAMOND), "put")
    await until_there_is_a_node(people)
    await people.do(RunPipeline(pipeline="diamond"), "run")
    run, struck = await ended(people, house, shared / "log", kills=True)
    assert run.state is RunState.FAILED
    assert struck >= 6, "twice after each line, and two steps write at the same time"
    assert str(run.reasons[0].message).startswith("Step bottom failed with exit code 7")
    (shared / "ready").touch()
    await people.do(ResumePipelineRun(run=run.id), "resume")
    run, _ = await ended(people, house, shared / "log", kills=False)
    assert run.state is RunState.SUCCEEDED
    written = (shared / "log").read_text().split()
    assert sorted(written) == ["bottom", "bottom", "left", "right", "top"]
    assert written[0] == "top"
    assert written[3:] == ["bottom", "bottom"]
    assert (shared / run.id).read_text() == "it's $(touch broken); a word"
    assert sorted(p.name for p in shared.iterdir()) == sorted(["log", "word", "left", "right", "ready", run.id])


async def until_there_is_a_node(people: People) -> None:
    end = time.monotonic() + 60
    while (await people.ask(lambda client: client.nodes())).total == 0:  # type: ignore[attr-defined]
        assert time.monotonic() < end, "the node does not come"
        await asyncio.sleep(0.05)
