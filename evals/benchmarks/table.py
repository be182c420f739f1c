"""The READMEs' table of targets, made from the committed results."""

import sys
from collections.abc import Iterator
from pathlib import Path

from evals.benchmarks import NAMES
from evals.benchmarks.report import Report, Target, Wrong, shown

HERE = Path(__file__).parent
READMES = (HERE / "README.md", HERE.parents[1] / "README.md")
RESULTS = HERE / "results"
BEGIN = "<!-- table: `python -m evals.benchmarks table` writes this from results/*.json, and a test compares it -->"
END = "<!-- end of table -->"


def write_all(check: bool = False) -> int:
    """`write` in each README that has the table."""
    return max(write(check, readme) for readme in READMES)


def write(check: bool, readme: Path, results: Path = RESULTS) -> int:
    """Put the table between the README's markers; with `check` only compare, and 1 when it is out of date."""
    before = readme.read_text(encoding="utf-8")
    if BEGIN not in before or END not in before:
        raise Wrong(f"{readme} has no place for the table; put back the two marker lines.")
    head, rest = before.split(BEGIN, 1)
    after = f"{head}{BEGIN}\n\n{made(results)}\n{END}{rest.split(END, 1)[1]}"
    if check:
        return int(after != before) and _stale(readme)
    readme.write_text(after, encoding="utf-8")
    return 0


def _stale(readme: Path) -> int:
    print(f"The table in {readme} is out of date: python -m evals.benchmarks table", file=sys.stderr)
    return 1


def reports(results: Path = RESULTS) -> list[Report]:
    """The kept results, in the order of `NAMES`, others after them."""
    found = [Report.model_validate_json(p.read_text(encoding="utf-8")) for p in sorted(results.glob("*.json"))]
    return sorted(found, key=lambda r: NAMES.index(r.name) if r.name in NAMES else len(NAMES))


def made(results: Path = RESULTS) -> str:
    """The table in Markdown, a line for each target, met or not; below it on what it was measured."""
    kept = reports(results)
    lines = ["| benchmark | figure | reached | target | | known |", "|---|---|---|---|---|---|"]
    lines += [_line(report, target) for report in kept for target in report.targets]
    return "\n".join([*lines, "", *_measured(kept)]) + "\n"


def _line(report: Report, target: Target) -> str:
    sign = "≥" if target.better == "more" else "≤"
    unit = f" {target.unit}" if target.unit else ""
    met = "met" if target.met else "**missed**"
    return (
        f"| {report.name} | {target.what} | {shown(target.value)}{unit} | {sign} {shown(target.target)}{unit} | {met} "
        f"| {target.known} |"
    )


def _measured(kept: list[Report]) -> Iterator[str]:
    for report in kept:
        e = report.environment
        yield f"- {report.name}: `{report.command}`, {e.date[:10]}, {e.cores} x {e.cpu}, commit {e.commit}"
