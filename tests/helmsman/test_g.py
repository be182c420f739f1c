"""The shipped G: plain requests in both languages, and how it is run. Hard ones are for `evals/`."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from helmsman.models.g import SHIPPED, Cancelled, G
from helmsman.prompts import Call, ResultRows, Turn


@pytest.fixture(scope="module")
def g() -> G:
    return G.load()


PLAIN = [
    ("stop s-7f3a", Call("terminate_sessions", {"sessions": ["s-7f3a"]})),
    ("run `python train.py` with 2 cores", Call("start_session", {"command": "python train.py", "cpu": 2})),
    ("list nodes", Call("list_nodes")),
    ("why is vit-large pending", Call("explain_pending", {"session": "vit-large"})),
    ("cordon a100-03", Call("cordon_node", {"node": "a100-03"})),
    ("show the logs of exp-12", Call("get_session_logs", {"session": "exp-12"})),
    ("delete folder old-ckpt", Call("delete_folder", {"folder": "old-ckpt"})),
    ("undo", Call("undo")),
    ("s-7f3a 꺼줘", Call("terminate_sessions", {"sessions": ["s-7f3a"]})),
    ("`python train.py` 코어 2개로 돌려줘", Call("start_session", {"command": "python train.py", "cpu": 2})),
    ("노드 목록 보여줘", Call("list_nodes")),
    ("vit-large 왜 안 돌아?", Call("explain_pending", {"session": "vit-large"})),
    ("gpu-07 비워줘", Call("drain_node", {"node": "gpu-07"})),
    ("결과 폴더 지워줘", Call("delete_folder", {"folder": "결과"})),
    ("방금 거 되돌려줘", Call("undo")),
    ("클러스터 상태 알려줘", Call("get_cluster_status")),
]


@pytest.mark.parametrize(("line", "call"), PLAIN)
def test_a_plain_request_is_understood(g: G, line: str, call: Call) -> None:
    assert g.generate([Turn(line)]).calls == [call]


@pytest.mark.parametrize(
    ("line", "decision"),
    [("kill it", "ask"), ("노드 비워줘", "ask"), ("what's the weather tomorrow", "refuse"), ("안녕", "talk")],
)
def test_what_is_no_request_for_a_tool_calls_none(g: G, line: str, decision: str) -> None:
    assert g.generate([Turn(line)]).calls[0].tool == decision


@pytest.mark.parametrize("line", ["stop the second one", "두 번째 거 꺼줘"])
def test_the_second_one_is_the_second_row_of_the_last_result(g: G, line: str) -> None:
    rows = ResultRows("list_sessions", ["alpha-1", "s-91bc", "gamma"])
    turns = [Turn("what's running", [Call("list_sessions", {"status": "running"})], [rows]), Turn(line)]
    assert g.generate(turns).calls == [Call("terminate_sessions", {"sessions": ["s-91bc"]})]


def test_the_same_question_has_the_same_answer_from_many_threads(g: G) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(g.generate, [[Turn("stop s-7f3a")]] * 8))
    assert all(a.calls == answers[0].calls and a.confidence == answers[0].confidence for a in answers)


def test_an_answer_can_be_called_off(g: G) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        g.generate([Turn("list nodes")], stop)
    assert g.generate([Turn("list nodes")], threading.Event()).calls


def test_a_conversation_that_is_too_long_is_shortened_and_still_answered(g: G) -> None:
    turns = [Turn("stop s-7f3a " + "really, " * 400)] * 4
    answer = g.generate(turns)
    assert answer.calls
    assert g.generate([Turn("쇗뿱" * 3000)]).calls


def test_a_folder_without_a_model_says_what_is_missing(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        G.load(tmp_path)


def test_g_runs_without_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from helmsman.models.g import G; G.load(); assert 'torch' not in sys.modules, 'torch was loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SHIPPED.parents[1])
