"""Scores calls: were the right tools called, with all arguments right; was a question asked, a refusal given?

    python -m evals.calls CASES.jsonl                        G's own calls, names as people said them
    python -m evals.calls CASES.jsonl --answers ANSWERS      what `helmsman ask - --json` printed, names linked

One case a line: `{"id", "lang", "turns": [...], "expect": [[{"tool", "arguments"}], ...]}`. A turn is a text, or an
object `{"text", "calls", "results"}` whose calls and result rows are part of the context. `expect` belongs to the last
turns, one list each. `ask` is right when it is for the expected tool, `refuse` whatever its reason.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from helmsman.prompts import PSEUDO_CALLS, Call, ResultRows, Turn
from tools.catalogue import catalogue


class CallRow(BaseModel):
    """One call as cases and answers write it."""

    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)

    def call(self) -> Call:
        """The same for the model's prompt."""
        return Call(self.tool, dict(self.arguments))


class RowsRow(BaseModel):
    """The names that an earlier result showed."""

    tool: str
    names: list[str]


class Said(BaseModel):
    """One turn with what followed it."""

    text: str
    calls: list[CallRow] = Field(default_factory=list)
    results: list[RowsRow] = Field(default_factory=list)

    def turn(self) -> Turn:
        """The same for the model's prompt."""
        rows = [ResultRows(r.tool, r.names) for r in self.results]
        return Turn(self.text, [c.call() for c in self.calls], rows)


class Case(BaseModel):
    """One case; see the module's words for the form."""

    id: str
    lang: str
    turns: list[str | Said]
    expect: list[list[CallRow]]

    def asked(self) -> Iterator[tuple[list[Turn], list[CallRow]]]:
        """Each judged turn with its context; expected calls stand in for what an earlier judged turn did."""
        said = [Said(text=t) if isinstance(t, str) else t for t in self.turns]
        first = len(said) - len(self.expect)
        for i, expected in enumerate(self.expect):
            yield [*(s.turn() for s in said[: first + i]), Turn(said[first + i].text)], expected
            if not said[first + i].calls:
                said[first + i] = said[first + i].model_copy(update={"calls": expected})


@dataclass(frozen=True)
class Mark:
    """How one turn was judged. `meddled`: something was changed or stopped that nobody asked for."""

    id: str
    lang: str
    label: str
    tool_right: bool
    exact: bool
    meddled: bool
    said: list[CallRow]
    expected: list[CallRow]
    text: str


def judge(case: Case, turns: list[Turn], expected: list[CallRow], said: list[CallRow]) -> Mark:
    """Compares the calls of one turn with the expected ones."""
    tool_right = [c.tool for c in said] == [c.tool for c in expected]
    exact = tool_right and all(_same(a, b) for a, b in zip(said, expected, strict=True))
    asked = {c.tool for c in expected}
    meddled = any(c.tool not in asked and c.tool in catalogue() and catalogue()[c.tool].risk != "R" for c in said)
    label = expected[0].tool if len(expected) == 1 else "several"
    return Mark(case.id, case.lang, label, tool_right, exact, meddled, said, expected, turns[-1].user)


def _same(said: CallRow, expected: CallRow) -> bool:
    if expected.tool in PSEUDO_CALLS:
        return all(said.arguments.get(k) == v for k, v in expected.arguments.items() if k == "for")
    return bool(_plain(said.arguments) == _plain(expected.arguments))


def _plain(value: Any) -> Any:
    """A value without what never matters: letter case, space, the order of keys, 4 or 4.0."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, bool):
        return value
    return float(value) if isinstance(value, int | float) else " ".join(str(value).lower().split())


@dataclass(frozen=True)
class Rate:
    """Shares of a group of turns, 0..1."""

    count: int
    tool_right: float
    exact: float
    meddled: float


def rate(marks: Iterable[Mark]) -> Rate:
    """The shares over all marks; zeros over none."""
    found = list(marks)
    n = max(1, len(found))
    shares = (sum(getattr(m, name) for m in found) / n for name in ("tool_right", "exact", "meddled"))
    return Rate(len(found), *shares)


def report(marks: list[Mark]) -> str:
    """A table: all, by language, by tool."""
    groups: dict[str, list[Mark]] = defaultdict(list)
    for m in marks:
        for key in ("all", f"lang {m.lang}", m.label):
            groups[key].append(m)
    head = f"{'':26}{'n':>5}{'tool':>8}{'exact':>8}{'meddled':>9}"
    order = sorted(groups, key=lambda k: (k != "all", not k.startswith("lang"), k))
    return "\n".join([head, *(_line(key, rate(groups[key])) for key in order)])


def _line(key: str, r: Rate) -> str:
    return f"{key:26}{r.count:5}{r.tool_right:8.1%}{r.exact:8.1%}{r.meddled:9.1%}"


Model = Callable[[list[Turn]], list[Call]]


def run(cases: Iterable[Case], model: Model) -> list[Mark]:
    """Asks the model every judged turn."""
    marks = []
    for case in cases:
        for turns, expected in case.asked():
            said = [CallRow(tool=c.tool, arguments=dict(c.arguments)) for c in model(turns)]
            marks.append(judge(case, turns, expected, said))
    return marks


def from_answers(cases: Iterable[Case], path: Path) -> list[Mark]:
    """Judges what `helmsman ask -` printed: one JSON object a line, in the order of the cases."""
    marks = []
    answers = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    for case, answer in zip(cases, answers, strict=True):
        judged = answer["turns"][-len(case.expect) :]
        for (turns, expected), got in zip(case.asked(), judged, strict=True):
            marks.append(judge(case, turns, expected, _of_answer(got)))
    return marks


def _of_answer(turn: dict[str, Any]) -> list[CallRow]:
    calls = [CallRow(tool=c["tool"], arguments=c["arguments"]) for c in turn["calls"]]
    if calls:
        return calls
    return [CallRow(tool="ask" if turn["asks"] else "refuse" if turn["refused"] else "talk")]


def load(path: Path) -> list[Case]:
    """The cases of a JSON-lines file."""
    return [Case.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def main() -> None:
    """Scores one file of cases and prints the table, and the misses when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--answers", type=Path, help="output of `helmsman ask -` instead of G's own calls")
    parser.add_argument("--model", type=Path, help="G's folder; the shipped one when left out")
    parser.add_argument("--misses", action="store_true", help="print every turn that is not exact")
    given = parser.parse_args()
    cases = load(given.cases)
    marks = from_answers(cases, given.answers) if given.answers else run(cases, _shipped(given.model))
    if given.misses:
        for m in marks:
            if not m.exact:
                print(f"{m.id}: {m.text}\n    said     {_short(m.said)}\n    expected {_short(m.expected)}")
    print(report(marks))


def _short(calls: list[CallRow]) -> str:
    return "; ".join(f"{c.tool} {json.dumps(c.arguments, ensure_ascii=False)}" for c in calls)


def _shipped(folder: Path | None) -> Model:
    from helmsman.models.g import SHIPPED, G

    g = G.load(folder or SHIPPED)
    return lambda turns: g.generate(turns).calls


if __name__ == "__main__":
    main()
