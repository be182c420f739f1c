"""Names that a small model put into the wrong place, or copied without the word that tells which."""

from typing import Any

import pytest

from cluster.models import Names
from helmsman.heard import put_right
from helmsman.turn import Call

NAMES = Names(
    nodes=["a100-01", "a100-02", "a100-03", "l40s-01", "l40s-02"],
    users=["jiwoo", "minho"],
    projects=["vision", "bio"],
    resource_groups=["serve", "train"],
)


def right(line: str, tool: str, **said: Any) -> dict[str, Any]:
    call = Call(id="1", tool=tool, said=said)
    put_right([call], line, NAMES)
    return call.said


@pytest.mark.parametrize(
    ("line", "tool", "said", "meant"),
    [
        ("squeue -u jiwoo", "list_sessions", {"resource_group": "jiwoo"}, {"user": "jiwoo"}),
        ("quota for bio?", "get_quota", {"user": "bio"}, {"project": "bio"}),
        ("inference in the serve group", "list_sessions", {"project": "serve"}, {"resource_group": "serve"}),
    ],
)
def test_a_name_of_another_kind_moves_where_the_tool_asks_for_it(
    line: str, tool: str, said: dict[str, Any], meant: dict[str, Any]
) -> None:
    assert right(line, tool, **said) == meant


def test_one_name_is_not_taken_twice() -> None:
    said = right("make a folder called eval-out", "create_folder", name="eval-out", project="eval-out")
    assert said == {"name": "eval-out"}


@pytest.mark.parametrize(
    ("line", "node", "meant"),
    [
        ("tell me about the second a100 box", "a100 box", "second a100 box"),
        ("take the first l40s out of rotation", "l40s", "first l40s"),
        ("l40s 2번 비워줘", "l40s", "l40s 2번"),
    ],
)
def test_the_ordinal_beside_a_name_belongs_to_it(line: str, node: str, meant: str) -> None:
    assert right(line, "get_node", node=node) == {"node": meant}


@pytest.mark.parametrize("user", ["bob", "me", "내"])
def test_what_fits_nowhere_else_stays_for_the_person_to_hear(user: str) -> None:
    assert right(f"show what {user} runs", "list_sessions", user=user) == {"user": user}


def test_a_name_that_is_right_stays() -> None:
    assert right("sessions of minho in vision", "list_sessions", user="minho", project="vision") == {
        "user": "minho",
        "project": "vision",
    }
