"""`helmsman ask`: the contract of DESIGN.md §5, on the real core in a simulated world."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helmsman import cli

SCENARIO = """
name: little
clock: 2026-03-02T09:00:00+09:00
resource_groups: [{name: train}]
nodes:
  - {name: "a100-[01-02]", resource_group: train, cpu: 64, memory: 512g, gpu: 8, gpu_model: A100-80G}
projects: [{name: vision, gpu: 16}]
users:
  - {name: root, role: admin, projects: [vision]}
  - {name: alice, role: user, projects: [vision]}
  - {name: bob, role: user, projects: [vision]}
images: [{name: "pytorch:2.8"}]
folders: [{name: imagenet, project: vision, size: 1t}]
sessions:
  - {name: sweep, id: s-7f3a, user: alice, project: vision, type: batch, image: "pytorch:2.8", gpu: 4, cpu: 8,
     memory: 64g, status: running, node: a100-01, started: -3h, command: "python sweep.py"}
"""
SCRIPT = """
- {when: "^list", calls: [{tool: list_nodes}]}
- {when: "^cordon", calls: [{tool: cordon_node, arguments: {node: the first a100}}]}
- {when: "^stop", calls: [{tool: terminate_sessions, arguments: {sessions: [sweep]}}]}
- {when: "^start", calls: [{tool: start_session, arguments: {image: pytorch, gpu: two, memory: 64 GB, name: mine}}]}
- {when: "^get mine", calls: [{tool: get_session, arguments: {session: mine}}]}
- {when: "^nine", calls: [{tool: start_session, arguments: {image: pytorch, gpu: 9, node_count: 1}}]}
- {when: "^which", calls: [{tool: get_node}]}
- {when: "^cake", calls: [{tool: refuse, arguments: {about: out_of_scope}}]}
- {when: "^undo", calls: [{tool: undo}]}
- when: "^tomorrow"
  calls: [{tool: start_session, arguments: {image: pytorch, name: late, start_at: "tomorrow 06:00"}}]
"""


class Answer:
    """What the command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def calls(self) -> list[Any]:
        return [(c["tool"], c["status"]) for turn in self.json["turns"] for c in turn["calls"]]


Asking = Callable[..., Answer]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Asking:
    """`ask("list nodes", "--json")`: the command as a shell runs it, in this process."""
    for name, text in (("little.yaml", SCENARIO), ("script.yaml", SCRIPT)):
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("HELMSMAN_CONFIG", str(tmp_path / "config.toml"))
    for name in ("DATA", "STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    (tmp_path / "config.toml").touch()

    def run(*arguments: str, stdin: str = "") -> Answer:
        flags = ["--scenario", str(tmp_path / "little.yaml"), "--model", f"scripted:{tmp_path / 'script.yaml'}"]
        monkeypatch.setattr(sys, "argv", ["helmsman", "ask", *flags, *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return Answer(int(ended.value.code or 0), out, err)

    return run


def test_one_object_of_schema_1_with_linked_arguments_and_the_journal(ask: Asking) -> None:
    answer = ask("--json", "--approve", "all", "list nodes", "start it", "get mine")
    report = answer.json
    assert list(report) == ["schema", "turns", "state"]
    assert report["schema"] == 1
    assert list(report["turns"][0]) == ["text", "calls", "answer", "asks", "refused", "latency_ms"]
    assert list(report["turns"][0]["calls"][0]) == ["id", "tool", "arguments", "risk", "status", "result"]
    start = report["turns"][1]["calls"][0]
    assert start["arguments"] == {"image": "pytorch:2.8", "name": "mine", "memory": "64g", "gpu": 2}
    assert (start["risk"], start["status"]) == ("W", "done")
    assert report["turns"][2]["calls"][0]["result"]["state"] == "running"
    assert [e["action"] for e in report["state"]["journal"]] == ["start_session"]
    assert answer.code == 0
    assert "thinking" in answer.err


@pytest.mark.parametrize(
    ("approve", "text", "calls", "code"),
    [
        ("never", "cordon it", [("cordon_node", "denied")], 6),
        ("safe", "cordon it", [("cordon_node", "done")], 0),
        ("safe", "stop sweep", [("terminate_sessions", "denied")], 6),
        ("all", "stop sweep", [("terminate_sessions", "done")], 0),
        ("all", "nine", [("start_session", "refused")], 4),
        ("all", "cake", [], 4),
        ("all", "which", [], 3),
    ],
)
def test_approval_and_exit_codes(ask: Asking, approve: str, text: str, calls: list[Any], code: int) -> None:
    answer = ask("--json", "--approve", approve, text)
    assert (answer.calls, answer.code) == (calls, code)
    assert bool(answer.json["state"]["journal"]) is (code == 0)


def test_approval_is_never_given_when_nothing_is_said(ask: Asking) -> None:
    assert ask("--json", "cordon it").calls == [("cordon_node", "denied")]


def test_approvals_of_the_configuration_do_not_count_here(ask: Asking, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('approvals = ["cordon_node"]')
    assert ask("--json", "cordon it").calls == [("cordon_node", "denied")]


def test_a_question_that_the_next_turn_answers_is_no_failure(ask: Asking) -> None:
    answer = ask("--json", "which", "the second one")
    first, second = answer.json["turns"]
    assert (first["asks"], second["asks"]) == (True, False)
    assert second["calls"][0]["arguments"] == {"node": "a100-02"}
    assert answer.code == 0


def test_a_later_turn_can_undo_what_an_earlier_one_did(ask: Asking) -> None:
    answer = ask("--json", "--approve", "all", "cordon it", "undo that")
    assert answer.calls == [("cordon_node", "done"), ("undo", "done")]
    assert [e["action"] for e in answer.json["state"]["journal"]] == ["cordon_node", "undo"]


def test_times_are_those_of_the_scenario(ask: Asking) -> None:
    answer = ask("--json", "--approve", "all", "tomorrow at 6")
    assert answer.json["turns"][0]["calls"][0]["arguments"]["start_at"] == "2026-03-03T06:00:00+09:00"


def test_the_asking_person_has_no_more_rights_than_their_own(ask: Asking) -> None:
    answer = ask("--json", "--approve", "all", "--user", "bob", "stop sweep", "cordon it")
    assert answer.calls == [("terminate_sessions", "refused"), ("cordon_node", "refused")]
    assert answer.json["state"]["journal"] == []
    assert answer.code == 4


def test_without_json_a_person_reads_the_views(ask: Asking) -> None:
    answer = ask("list nodes")
    assert "a100-02" in answer.out
    assert "Traceback" not in answer.out + answer.err


def test_cases_run_each_on_a_fresh_copy(ask: Asking) -> None:
    cases = [{"id": "a", "turns": ["start it"]}, {"id": 2, "turns": ["get mine"]}, {"id": "c", "turns": ["start it"]}]
    answer = ask("--approve", "all", "--json", "-", stdin="\n".join(map(json.dumps, cases)) + "\n\n")
    lines = [json.loads(line) for line in answer.out.splitlines()]
    assert [line["id"] for line in lines] == ["a", 2, "c"]
    assert [line["turns"][0]["calls"][0]["status"] for line in lines] == ["done", "refused", "done"]
    assert [len(line["state"]["journal"]) for line in lines] == [1, 0, 1]
    assert answer.code == 0


def test_a_line_that_is_no_case_is_told_and_the_others_run(ask: Asking) -> None:
    answer = ask("-", stdin='{"id": 1}\n{"id": 2, "turns": ["list nodes"]}\nnonsense\n')
    assert [json.loads(line)["id"] for line in answer.out.splitlines()] == [2]
    assert "line 1" in answer.err
    assert "line 3" in answer.err
    assert answer.code == 2


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["--user", "bbo", "list"], "There is no user bbo", 2),
        (["--approve", "maybe", "list"], "approve", 2),
        (["--scenario", "no-such.yaml", "list"], "no-such.yaml", 2),
        (["--model", "qwen", "list"], "base_url", 2),
        ([], "TEXT", 2),
    ],
)
def test_a_mistake_of_use_is_one_sentence(ask: Asking, arguments: list[str], said: str, code: int) -> None:
    answer = ask(*arguments)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert "Traceback" not in answer.err


def test_a_dead_model_is_exit_code_5(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELMSMAN_ENDPOINT__BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("HELMSMAN_ENDPOINT__RETRIES", "0")
    answer = ask("--model", "dead", "--json", "list")
    assert answer.code == 5
    assert "http://127.0.0.1:9/v1" in answer.json["turns"][0]["answer"]


def test_a_bug_in_a_turn_is_one_sentence_and_its_traceback_goes_to_the_log(
    ask: Asking, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("helmsman.nodes.to_messages", lambda exchanges: 1 / 0)
    answer = ask("--json", "list")
    assert answer.code == 5
    assert "ZeroDivisionError" in answer.json["turns"][0]["answer"]
    assert "Traceback" not in answer.out + answer.err
    assert "Traceback" in (tmp_path / "state/helmsman/logs/helmsman.log").read_text()
