"""Names that a small model has miscopied."""

import pytest

from cluster.models import Names
from helmsman.heard import put_right
from helmsman.turn import Call

NAMES = Names(
    nodes=["a100-01", "a100-02", "a100-05", "gpu-1", "gpu-10"],
    users=["minho", "jiwoo"],
    sessions={"s-7f3a": "sweep", "s-91bc": "vit"},
)


@pytest.mark.parametrize(
    ("line", "said", "meant"),
    [
        ("cordon a100-02", {"node": "a100-05"}, {"node": "a100-02"}),
        ("cordon A100-02", {"node": "a100-0"}, {"node": "a100-02"}),
        ("gpu-10을 닫아줘", {"node": "gpu-1"}, {"node": "gpu-10"}),
        ("gpu-1을 닫아줘", {"node": "gpu-1"}, {"node": "gpu-1"}),
        ("stop s-7f3a and s-91bc", {"sessions": ["s-7f3a", "s-91bb"]}, {"sessions": ["s-7f3a", "s-91bc"]}),
        ("cordon the second one", {"node": "a100-02"}, {"node": "a100-02"}),
        ("cordon the second a100 box", {"node": "second a100 box"}, {"node": "second a100 box"}),
        ("show my sessions on gpu-1", {"user": "me", "node": "gpu-1"}, {"user": "me", "node": "gpu-1"}),
        ("민호 세션 보여줘", {"user": "민호"}, {"user": "민호"}),
        ("list a100-02", {}, {}),
    ],
)
def test_what_the_line_names_is_meant(line: str, said: dict[str, object], meant: dict[str, object]) -> None:
    call = Call(id="1", tool="x", said=dict(said))
    put_right([call], line, NAMES)
    assert call.said == meant


def test_a_name_that_another_call_uses_is_not_taken_twice() -> None:
    calls = [Call(id="1", tool="x", said={"node": "a100-05"}), Call(id="2", tool="x", said={"node": "a100-02"})]
    put_right(calls, "close that one and a100-02", NAMES)
    assert [c.said["node"] for c in calls] == ["a100-05", "a100-02"]
