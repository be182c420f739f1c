"""What a line points at in a list."""

import pytest

from helmsman.prompts import Call, ResultRows, Turn
from helmsman.prompts.ordinals import pointed
from helmsman.prompts.spans import said


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        ("stop the second one", [1]),
        ("details of number 3", [2]),
        ("cancel the first two", [0, 1]),
        ("drop the last two", [4, 5]),
        ("the last one", [5]),
        ("kill the 4th", [3]),
        ("first and third please", [0, 2]),
        ("두 번째 거 꺼줘", [1]),
        ("둘째하고 셋째", [1, 2]),
        ("3번 종료", [2]),
        ("위에 두 개 취소", [0, 1]),
        ("마지막 거 지워줘", [5]),
        ("stop s-7f3a", []),
        ("gpu-3번", []),
        ("the last 20 lines", []),
        ("the ninth", []),
    ],
)
def test_a_line_points_at_rows(line: str, rows: list[int]) -> None:
    assert pointed(line, 6) == rows


def test_only_the_rows_pointed_at_may_be_copied() -> None:
    rows = [ResultRows("list_sessions", ["a-1", "b-2", "c-3"])]
    past = Turn("list", [Call("list_sessions")], rows)
    assert said([past, Turn("stop the second")]).splitlines() == ["stop the second", "list", "b-2"]
    assert said([past, Turn("stop a-1")]).splitlines() == ["stop a-1", "list", "a-1", "b-2", "c-3"]
