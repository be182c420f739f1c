"""Typed answers, without a model."""

import pytest

from helmsman.replies import pick, yes_or_no

NODES = ["a100-01", "a100-02", "gpu-1", "gpu-10"]


YES = ["yes", "Y", "Yes!", "ok", "go ahead", "응", "그래.", "ㅇㅇ", "네, 진행해주세요", "좋아요", "그럼"]
NO = ["no", "N", "nope", "cancel", "don’t", "never mind", "아니", "아뇨", "취소", "하지 마", "ㄴㄴ", "No, thanks."]
NEITHER = [
    "yes, but with 4 GPUs",
    "no, a100-02 instead",
    "네 장으로 바꿔줘",
    "아니 두 개로",
    "list nodes",
    "yes and no",
    "",
    "그래프 보여줘",
]


@pytest.mark.parametrize("text", YES)
def test_these_are_a_yes(text: str) -> None:
    assert yes_or_no(text) == "yes"


@pytest.mark.parametrize("text", NO)
def test_these_are_a_no(text: str) -> None:
    assert yes_or_no(text) == "no"


@pytest.mark.parametrize("text", NEITHER)
def test_these_are_neither(text: str) -> None:
    assert yes_or_no(text) is None


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("2", "a100-02"),
        ("#1", "a100-01"),
        ("2번", "a100-02"),
        ("the second one", "a100-02"),
        ("second one please", "a100-02"),
        ("두 번째", "a100-02"),
        ("두 번째 거요", "a100-02"),
        ("마지막", "gpu-10"),
        ("the last one", "gpu-10"),
        ("A100-02", "a100-02"),
        ("a100-02 please", "a100-02"),
        ("a100-02로 해줘", "a100-02"),
        ("gpu-1", "gpu-1"),
        ("gpu-1을", "gpu-1"),
        ("9", None),
        ("0", None),
        ("a100-01 or a100-02", None),
        ("list all the nodes that have free memory please", None),
        ("", None),
    ],
)
def test_a_line_picks_by_number_ordinal_or_name(text: str, choice: str | None) -> None:
    assert pick(text, NODES) == choice


def test_nothing_can_be_picked_from_nothing() -> None:
    assert pick("1", []) is None
