"""What every benchmark takes and gives: `Options` in, a `Report` out; how a report is printed, plotted and kept.

A benchmark is a module of this package with `run(options: Options) -> Report`. Its targets travel with the report, met
or not; nothing is left out because it looks bad.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
"""Where the workloads lie when `--data` says nothing else."""

Cell = str | int | float | None


class Wrong(Exception):
    """What was asked for can't be run; the one sentence that says so."""


class Broken(Exception):
    """A benchmark found that the core did what it must not (lost a session, ran one twice)."""


@dataclass(frozen=True)
class Options:
    """What the command line says. `lists` and `seeds` None: the benchmark's own choice."""

    data: Path = DATA
    lists: tuple[str, ...] | None = None
    seeds: int | None = None
    json: Path | None = None
    size: float = 1.0
    """Share of the work, for a quick look; figures count at 1."""

    def folder(self, name: str) -> Path:
        """`data/name`; raises `Wrong` when it is missing."""
        path = self.data / name
        if not path.is_dir():
            raise Wrong(f"There is no folder {path}; say where the workloads are with --data.")
        return path

    def files(self, folder: str, pattern: str, default: Sequence[str] = ()) -> dict[str, Path]:
        """Name -> file of the lists asked for, else of `default`, else of all there are.

        `pattern` has one `*` for the name ("openb_pod_list_*.csv"). A list that is not of that form may be named by
        its file, in the folder or anywhere. Raises `Wrong` for one that is not there.
        """
        where = self.folder(folder)
        head, tail = pattern.split("*")
        known = {p.name[len(head) : len(p.name) - len(tail)]: p for p in sorted(where.glob(pattern))}
        wanted = self.lists or tuple(default) or tuple(known)
        found: dict[str, Path] = {}
        for name in wanted:
            path = known.get(name) or _file(where, name)
            if path is None:
                raise Wrong(f"There is no list {name} in {where}; it has {', '.join(known) or 'none'}.")
            found[name if name in known else path.stem] = path
        if not found:
            raise Wrong(f"There is no {pattern} in {where}.")
        return found


def _file(where: Path, name: str) -> Path | None:
    candidates = (where / name, where / f"{name}.csv", where / f"{name}.yaml", Path(name))
    return next((p for p in candidates if p.is_file()), None)


class Target(BaseModel):
    """A figure to reach. `value` and `target` in `unit`."""

    what: str
    value: float
    target: float
    better: Literal["more", "less"] = "more"
    unit: str = ""
    known: str = ""
    """What others reach on the same work."""

    @property
    def met(self) -> bool:
        return self.value >= self.target if self.better == "more" else self.value <= self.target

    def line(self) -> str:
        """ "93.2 %, target ≥ 95.4 %: missed"."""
        sign = "≥" if self.better == "more" else "≤"
        unit = f" {self.unit}" if self.unit else ""
        return f"{shown(self.value)}{unit}, target {sign} {shown(self.target)}{unit}: {'met' if self.met else 'missed'}"


class Series(BaseModel):
    """Points of one line or group of bars; `x` are numbers (line) or names (bars)."""

    name: str
    x: Sequence[str] | Sequence[float]
    y: list[float]


class Figure(BaseModel):
    """One part of the plot."""

    title: str
    y: str
    """Name and unit of the vertical axis."""
    x: str = ""
    kind: Literal["bars", "lines"] = "bars"
    series: list[Series]
    line: float | None = None
    """Where the target is."""
    log: bool = False


class Environment(BaseModel):
    """On what it ran."""

    cpu: str
    cores: int
    python: str
    date: str
    commit: str

    @classmethod
    def here(cls) -> "Environment":
        return cls(
            cpu=_cpu(),
            cores=len(os.sched_getaffinity(0)),
            python=platform.python_version(),
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            commit=_commit(),
        )


class Report(BaseModel):
    """What one benchmark found."""

    name: str
    title: str
    """What was done, in one line."""
    command: str = ""
    """How to do it again; the command line fills it in."""
    columns: list[str]
    rows: list[list[Cell]]
    targets: list[Target] = []
    ratios: dict[str, float] = {}
    """"ours / theirs", measured in the same run."""
    notes: list[str] = []
    """What a reader must know to read the figures rightly."""
    figures: list[Figure] = []
    seconds: float = 0
    """Wall time of the whole benchmark."""
    size: float = 1.0
    """Share of the work that was done; the figures to keep are those of the whole."""
    environment: Environment = Field(default_factory=Environment.here)

    @property
    def passed(self) -> dict[str, bool]:
        """Target -> met."""
        return {t.what: t.met for t in self.targets}

    def print(self, console: Console | None = None) -> None:
        """The table and the targets, for people."""
        out = console or Console(width=None if sys.stdout.isatty() else 140)
        table = Table(title=f"{self.name}: {self.title}", title_justify="left", title_style="bold")
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i == 0)
        for row in self.rows:
            table.add_row(*(shown(cell) for cell in row))
        out.print(table)
        for target in self.targets:
            out.print(f"[{'green' if target.met else 'red'}]{target.what}: {target.line()}[/]", highlight=False)
        for what, ratio in self.ratios.items():
            out.print(f"{what}: {shown(ratio)}", highlight=False)
        for note in self.notes:
            out.print(f"· {note}", highlight=False, style="dim")

    def keep(self, path: Path) -> list[Path]:
        """Write the JSON to `path` and the plot beside it (`.png`); the plot only where matplotlib is installed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return [path, path.with_suffix(".png")] if self.plot(path.with_suffix(".png")) else [path]

    def plot(self, path: Path) -> bool:
        """Draw the figures into one PNG; False where there is nothing to draw or nothing to draw it with."""
        if not self.figures:
            return False
        try:
            import matplotlib
        except ModuleNotFoundError:
            return False
        matplotlib.use("Agg")
        from matplotlib import pyplot

        drawing, axes = pyplot.subplots(
            1, len(self.figures), figsize=(1 + 5.5 * len(self.figures), 4.2), squeeze=False, layout="constrained"
        )
        for figure, axis in zip(self.figures, axes[0], strict=True):
            _draw(figure, axis)
        drawing.savefig(path, dpi=110)
        pyplot.close(drawing)
        return True


def _draw(figure: Figure, axis: "Axes") -> None:
    if figure.kind == "bars":
        _bars(figure, axis)
    else:
        for series in figure.series:
            axis.plot([float(x) for x in series.x], series.y, marker=".", label=series.name)
    if figure.line is not None:
        axis.axhline(figure.line, color="black", linestyle="--", linewidth=1, label="target")
    if figure.log:
        axis.set_yscale("log")
    axis.set(title=figure.title, xlabel=figure.x, ylabel=figure.y)
    axis.grid(axis="y", alpha=0.3)
    if len(figure.series) > 1 or figure.line is not None:
        axis.legend(fontsize="small")


def _bars(figure: Figure, axis: "Axes") -> None:
    """Groups of bars side by side, one group for each name."""
    names = list(dict.fromkeys(str(x) for s in figure.series for x in s.x))
    width = 0.8 / len(figure.series)
    for i, series in enumerate(figure.series):
        places = [names.index(str(x)) + (i - (len(figure.series) - 1) / 2) * width for x in series.x]
        axis.bar(places, series.y, width, label=series.name)
    many = len(names) > 4
    axis.set_xticks(range(len(names)), names, rotation=30 if many else 0, ha="right" if many else "center")


def shown(value: Cell) -> str:
    """A cell as people read it: four figures, thousands separated, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    """The tree's commit, with a `+` where something tracked is not committed; "" outside of a checkout."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return told.stdout.strip()
