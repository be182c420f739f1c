"""The scorer of calls, and that no evaluation text was trained on."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from evals.calls import CallRow, Case, Said, from_answers, load, rate, report, run
from finetune.utterances import read
from helmsman.prompts import Call, Turn

CASES = [
    Case(
        id="1",
        lang="en",
        turns=["stop a"],
        expect=[[CallRow(tool="terminate_sessions", arguments={"sessions": ["a"]})]],
    ),
    Case(id="2", lang="ko", turns=["노드"], expect=[[CallRow(tool="list_nodes")]]),
    Case(
        id="3",
        lang="en",
        turns=["stop it", "a"],
        expect=[
            [CallRow(tool="ask", arguments={"for": "terminate_sessions"})],
            [CallRow(tool="terminate_sessions", arguments={"sessions": ["a"]})],
        ],
    ),
]


def oracle(turns: list[Turn]) -> list[Call]:
    line = turns[-1].user
    if line == "stop it":
        return [Call("ask", {"for": "terminate_sessions", "about": "sessions"})]
    return [Call("list_nodes")] if line == "노드" else [Call("terminate_sessions", {"sessions": ["A"]})]


def test_a_perfect_model_scores_everything() -> None:
    r = rate(run(CASES, oracle))
    assert (r.count, r.tool_right, r.exact, r.meddled) == (4, 1, 1, 0)


def test_a_wrong_argument_is_the_right_tool_but_not_exact() -> None:
    r = rate(run(CASES[:1], lambda _: [Call("terminate_sessions", {"sessions": ["b"]})]))
    assert (r.tool_right, r.exact, r.meddled) == (1, 0, 0)


def test_changing_what_nobody_asked_for_is_meddling() -> None:
    assert rate(run(CASES[1:2], lambda _: [Call("drain_node", {"node": "n"})])).meddled == 1
    assert rate(run(CASES[1:2], lambda _: [Call("list_sessions")])).meddled == 0


def test_a_missing_and_an_additional_call_are_wrong() -> None:
    assert rate(run(CASES[1:2], lambda _: [])).tool_right == 0
    assert rate(run(CASES[1:2], lambda _: [Call("list_nodes"), Call("undo")])).tool_right == 0


def test_earlier_expected_calls_are_context_for_later_turns() -> None:
    seen: list[list[Turn]] = []
    run(CASES[2:], lambda turns: seen.append(turns) or oracle(turns))  # type: ignore[func-returns-value]
    assert seen[1][0].calls == [Call("ask", {"for": "terminate_sessions"})]
    assert [t.user for t in seen[1]] == ["stop it", "a"]


def test_context_turns_are_not_judged() -> None:
    case = Case(id="4", lang="en", turns=[Said(text="x"), "노드"], expect=[[CallRow(tool="list_nodes")]])
    assert rate(run([case], oracle)).count == 1


def test_answers_of_helmsman_ask_are_judged(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    path.write_text(
        '{"turns": [{"calls": [{"tool": "terminate_sessions", "arguments": {"sessions": ["a"]}}], '
        '"asks": false, "refused": false}]}\n'
        '{"turns": [{"calls": [], "asks": true, "refused": false}]}\n'
    )
    marks = from_answers(CASES[:2], path)
    assert [m.exact for m in marks] == [True, False]
    assert marks[1].said == [CallRow(tool="ask")]


def test_the_report_counts_by_language_and_by_tool() -> None:
    table = report(run(CASES, oracle))
    assert re.search(r"lang ko +1 +100\.0%", table)
    assert re.search(r"terminate_sessions +2 +100\.0%", table)


SETS = sorted((Path(__file__).parents[2] / "evals" / "sets").glob("*.jsonl"))


@pytest.mark.parametrize("path", SETS, ids=lambda p: p.name)
def test_no_evaluation_text_was_trained_on(path: Path) -> None:
    trained = {_plain(r.text) for d in read() for r in d.requests}
    grams = {g for line in trained for g in _grams(line)}
    lines = [_plain(t if isinstance(t, str) else t.text) for case in load(path) for t in case.turns]
    long = [line for line in lines if len(line.split()) >= 4]
    assert not [line for line in long if line in trained]
    copied = [
        line for line in long if (found := _grams(line)) and len([g for g in found if g in grams]) > len(found) / 2
    ]
    assert len(copied) <= 0.02 * len(lines), copied


def _plain(line: str) -> str:
    return " ".join(re.findall(r"\w+", line.lower()))


def _grams(line: str) -> list[str]:
    words: Iterable[str] = line.split()
    listed = list(words)
    return [" ".join(listed[i : i + 5]) for i in range(len(listed) - 4)]
