"""What a line says plainly stands, whatever a small model made of it."""

from typing import Any

import pytest

from helmsman.plainly import put_plain
from helmsman.turn import Call


def right(line: str, tool: str, **said: Any) -> dict[str, Any]:
    call = Call(id="1", tool=tool, said=said)
    put_plain(call, line)
    return call.said


@pytest.mark.parametrize(
    ("line", "said", "meant"),
    [
        ("run x.py on 2 gpus w/ 64 gigs", {"gpu": 64, "memory": "2g"}, {"gpu": 2, "memory": "64g"}),
        ("4 gpu 32 cpu 128g", {"gpu": 0, "cpu": 4, "memory": "128g"}, {"gpu": 4, "cpu": 32, "memory": "128g"}),
        ("gpu 0.5개로 돌려줘", {"gpu": 5}, {"gpu": 0.5}),
        ("코어 3개로 실행", {"cpu": 1}, {"cpu": 3}),
    ],
)
def test_an_amount_belongs_to_the_unit_beside_it(line: str, said: dict[str, Any], meant: dict[str, Any]) -> None:
    assert right(line, "start_session", **said) == meant


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("two nodes, 8 gpus each", {"gpu_per_node": 8, "node_count": 2}),
        ("a pod with 2 gpus, no, 4 gpus", {"gpu": 4}),
        ("run `python t.py --8gpu` please", {"command": "python t.py --8gpu", "gpu": 1}),
        ("an A100", {"gpu": 1, "gpu_model": "A100"}),
    ],
)
def test_what_can_be_read_in_two_ways_is_left_alone(line: str, said: dict[str, Any]) -> None:
    assert right(line, "start_session", **said) == said


@pytest.mark.parametrize(
    ("line", "meant"),
    [("create a folder called results", "results"), ("results 폴더 만들어줘", "results"), ("make a folder", "old")],
)
def test_a_new_things_name_is_in_the_line_and_not_in_what_was_said_before(line: str, meant: str) -> None:
    assert right(line, "create_folder", name="old") == {"name": meant}
