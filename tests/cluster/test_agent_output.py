"""Output is bounded: the beginning and the end are kept, and a line says what is missing."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.agents.byhand import end_all, ended, output, record, state, until, work
from cluster.agents.keeping import Keeper
from cluster.agents.record import Record
from cluster.agents.runner import Runner
from cluster.agents.specify import Ways
from cluster.models import Beat, StopOrder, WorkId


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    made = Runner(tmp_path / "work", Ways("process", "process", most_output=4000))
    made.adopt()
    yield made
    end_all(made)


def kept(tmp_path: Path, said: list[bytes], most: int = 400) -> str:
    keeper = Keeper(Record(tmp_path), most)
    theirs = os.dup(keeper.writing)
    keeper.begin()
    for piece in said:
        os.write(theirs, piece)
    os.close(theirs)
    keeper.finish()
    return (tmp_path / "output.log").read_text()


def test_what_has_room_is_kept_as_it_is(tmp_path: Path) -> None:
    assert kept(tmp_path, [b"a" * 100, b"b" * 100]) == "a" * 100 + "b" * 100


@pytest.mark.parametrize("line", [1, 7, 50, 64])
def test_of_too_much_the_beginning_and_the_end_are_kept(tmp_path: Path, line: int) -> None:
    whole = b"".join(f"{n:0{line}d}\n".encode() for n in range(2000 // line))
    told = kept(tmp_path, [whole[i : i + 90] for i in range(0, len(whole), 90)])
    parts = re.fullmatch(r"(.{200})\n\[helmsman: more .*?\]\n\n\[helmsman: (\d+) bytes .*?\]\n(.*)", told, re.DOTALL)
    assert parts
    head, missing, end = parts[1], int(parts[2]), parts[3]
    assert whole.decode() == head + whole.decode()[200 : 200 + missing] + end
    assert 100 <= len(end) <= 200
    assert [p.name for p in tmp_path.iterdir()] == ["output.log"]


def test_a_command_that_says_too_much_still_ends_and_its_end_is_told(runner: Runner) -> None:
    runner.accept(work("for i in $(seq 5000); do echo line $i; done; exit 3"))
    assert ended(runner).exit_code == 3
    told = output(runner)
    assert len(told) < 4300
    assert told.startswith("line 1\nline 2\n")
    assert told.endswith("line 4999\nline 5000\n")
    assert "bytes of output left out here" in told


def test_what_was_told_already_is_never_changed(runner: Runner) -> None:
    runner.accept(work("seq 2000; while [ ! -e go ]; do sleep 0.02; done; seq 2000; echo end"))
    until(lambda: "more output" in output(runner))
    first = Beat(logs=runner.logs())
    runner.acknowledge(first)
    before = output(runner)
    (record(runner).private / "go").touch()
    ended(runner)
    assert output(runner).startswith(before)
    assert output(runner).endswith("\nend\n")


def test_a_stopped_commands_last_words_are_kept(runner: Runner) -> None:
    runner.accept(work("trap 'echo bye; exit 7' TERM; seq 2000; while true; do sleep 0.05; done"))
    until(lambda: "more output" in output(runner) and state(runner) == "running")
    runner.stop(StopOrder(id=WorkId(session="s1", attempt=1), grace=10))
    assert ended(runner).exit_code == 7
    assert output(runner).endswith("bye\n")
