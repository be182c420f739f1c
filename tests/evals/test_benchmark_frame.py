"""The frame of the benchmarks: what the command line takes, what a report shows and keeps, the README's table."""

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from evals.benchmarks import NAMES, __main__, table
from evals.benchmarks.report import Environment, Figure, Options, Report, Series, Target, Wrong, shown


def report(name: str = "openb", value: float = 93.1) -> Report:
    return Report(
        name=name,
        title="fill to 130 %",
        command=f"python -m evals.benchmarks {name}",
        columns=["list", "allocated"],
        rows=[["default", value], ["cpu050", None]],
        targets=[Target(what="GPU allocation", value=value, target=95.4, unit="%", known="FGD 95.39")],
        ratios={"ours / best fit": 1.02},
        notes=["one seed"],
        figures=[
            Figure(title="a", y="%", series=[Series(name="ours", x=["default"], y=[value])], line=95.4),
            Figure(title="b", y="ms", kind="lines", series=[Series(name="ours", x=[1, 2], y=[3, 4])], log=True),
        ],
    )


def test_a_target_knows_whether_it_is_met_in_both_directions() -> None:
    more, less = Target(what="rate", value=5, target=5), Target(what="time", value=5.1, target=5, better="less")
    assert (more.met, less.met) == (True, False)
    assert more.line() == "5, target ≥ 5: met"
    assert less.line() == "5.1, target ≤ 5: missed"


def test_the_printed_report_has_its_rows_targets_ratios_and_notes() -> None:
    out = io.StringIO()
    report().print(Console(file=out, width=100))
    said = out.getvalue()
    assert "fill to 130 %" in said
    assert "93.1" in said
    assert "GPU allocation: 93.1 %, target ≥ 95.4 %: missed" in said
    assert "ours / best fit: 1.02" in said
    assert "one seed" in said


def test_a_kept_report_reads_back_with_its_environment_and_a_plot_beside_it(tmp_path: Path) -> None:
    found = report()
    json, png = found.keep(tmp_path / "deep" / "openb.json")
    assert Report.model_validate_json(json.read_text()) == found
    assert found.environment.cores >= 1
    assert found.environment.cpu
    assert png.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_there_is_the_json_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert report().keep(tmp_path / "openb.json") == [tmp_path / "openb.json"]


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), ("a", "a"), (3, "3"), (12345.6, "12,346"), (0.123456, "0.1235"), (True, "True")]
)
def test_cells_read_well(value: str | int | float | None, text: str) -> None:
    assert shown(value) == text


# ── lists ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "openb").mkdir()
    for name in ("pods_a.csv", "pods_b.csv", "other.csv"):
        (tmp_path / "openb" / name).write_text("")
    return tmp_path


def test_all_lists_are_read_when_none_is_named(data: Path) -> None:
    assert list(Options(data).files("openb", "pods_*.csv")) == ["a", "b"]
    assert list(Options(data).files("openb", "pods_*.csv", default=["b"])) == ["b"]


def test_a_list_nobody_thought_of_is_read_by_its_file(data: Path) -> None:
    elsewhere = data / "mine.csv"
    elsewhere.write_text("")
    found = Options(data, lists=("b", "other", str(elsewhere))).files("openb", "pods_*.csv")
    assert {name: path.name for name, path in found.items()} == {
        "b": "pods_b.csv",
        "other": "other.csv",
        "mine": "mine.csv",
    }


def test_a_list_that_is_nowhere_is_one_sentence(data: Path) -> None:
    with pytest.raises(Wrong, match=r"There is no list c in .*; it has a, b\."):
        Options(data, lists=("c",)).files("openb", "pods_*.csv")
    with pytest.raises(Wrong, match=r"There is no folder .*itp; .*--data"):
        Options(data).files("itp", "*.csv")


# ── the command line ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["opnb"], "There is no benchmark opnb"),
        (["openb", "--data", "/nowhere"], "There is no folder /nowhere"),
        (["openb", "--seeds", "0"], "--seeds must be"),
    ],
)
def test_what_can_not_be_run_is_one_sentence_and_exit_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = [] if "--data" in words else ["--data", str(tmp_path)]
    assert __main__.main([*words, *data]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(said)
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_all_runs_each_into_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Module:
        @staticmethod
        def run(options: Options) -> Report:
            assert options.json is not None
            assert options.seeds == 3
            return report(options.json.stem)

    for name in NAMES:
        monkeypatch.setitem(sys.modules, f"evals.benchmarks.{name}", Module)
    words = ["all", "--data", str(tmp_path), "--json", str(tmp_path / "kept"), "--seeds", "3"]
    assert __main__.main(words) == 0
    assert sorted(p.stem for p in (tmp_path / "kept").glob("*.json")) == sorted(NAMES)


# ── the README's table ───────────────────────────────────────────────────────────────────────────


def test_the_table_shows_what_was_missed_too(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    for name, value in (("itp", 99.0), ("openb", 93.1)):
        report(name, value).keep(tmp_path / f"{name}.json")
    assert table.write(check=True, readme=readme, results=tmp_path) == 1
    table.write(check=False, readme=readme, results=tmp_path)
    text = readme.read_text()
    assert "| openb | GPU allocation | 93.1 % | ≥ 95.4 % | **missed** | FGD 95.39 |" in text
    assert text.index("| openb |") < text.index("| itp | GPU allocation | 99 % | ≥ 95.4 % | met |")
    assert Environment.here().cpu in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert table.write(check=True, readme=readme, results=tmp_path) == 0


def test_the_readmes_have_the_table_of_the_kept_results() -> None:
    assert table.write_all(check=True) == 0
