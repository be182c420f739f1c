"""`python -m evals.benchmarks NAME`: run one benchmark, or `all`; `table` makes the README's table from the results."""

import argparse
import importlib
import shlex
import sys
import time
from pathlib import Path

from evals.benchmarks import NAMES, table
from evals.benchmarks.report import DATA, ROOT, Broken, Options, Report, Wrong

KEPT = ROOT / ".build" / "benchmarks"
"""Where the JSON goes when `--json` says nothing else."""


def main(arguments: list[str] | None = None) -> int:
    """Exit 0 when it ran, whether or not the targets are met; 2 with one sentence when it can't be run, 1 with one
    when the core did what it must not."""
    given = _parser().parse_args(arguments)
    try:
        if given.name == "table":
            return table.write_all(check=given.check)
        for name in _names(given.name):
            _run(name, _options(given, name))
    except Wrong as e:
        print(e, file=sys.stderr)
        return 2
    except Broken as e:
        print(e, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evals.benchmarks", description=__doc__)
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(NAMES)}, all; or table")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder with openb/, itp/ and kueue/")
    parser.add_argument("--lists", help="names of lists, clusters or generators, separated by commas")
    parser.add_argument("--seeds", type=int, help="how many seeds, from 0 on")
    parser.add_argument("--json", type=Path, help="where the result goes (with all: the folder for all of them)")
    parser.add_argument("--size", type=float, default=1.0, help="share of the work, for a quick look (0.01)")
    parser.add_argument("--check", action="store_true", help="of table: only say whether it is up to date")
    return parser


def _names(name: str) -> tuple[str, ...]:
    if name == "all":
        return NAMES
    if name not in NAMES:
        raise Wrong(f"There is no benchmark {name}; there are {', '.join(NAMES)}, and all.")
    return (name,)


def _options(given: argparse.Namespace, name: str) -> Options:
    if given.seeds is not None and given.seeds < 1:
        raise Wrong("--seeds must be 1 or more.")
    if not given.data.is_dir():
        raise Wrong(f"There is no folder {given.data}; say where the workloads are with --data.")
    if not 0 < given.size <= 1:
        raise Wrong("--size must be over 0 and at most 1.")
    lists = tuple(x.strip() for x in given.lists.split(",") if x.strip()) if given.lists else None
    return Options(given.data, lists, given.seeds, _kept_as(given, name), given.size)


def _kept_as(given: argparse.Namespace, name: str) -> Path:
    if given.json is None or given.name == "all":
        return Path(given.json or KEPT) / f"{name}.json"
    return Path(given.json)


def _run(name: str, options: Options) -> None:
    began = time.monotonic()
    report: Report = importlib.import_module(f"evals.benchmarks.{name}").run(options)
    report.seconds = round(time.monotonic() - began, 1)
    report.size = options.size
    report.command = report.command or _command(name, options)
    report.print()
    if options.json is not None:
        kept = report.keep(options.json)
        print("kept as", *kept)
        if report.figures and len(kept) == 1:
            print("no plot: matplotlib is not installed (it comes with the `dev` extra)", file=sys.stderr)


def _command(name: str, options: Options) -> str:
    """How to do it again, without what is the default."""
    words = ["python", "-m", "evals.benchmarks", name]
    words += ["--lists", ",".join(options.lists)] if options.lists else []
    words += ["--seeds", str(options.seeds)] if options.seeds else []
    words += ["--size", f"{options.size:g}"] if options.size != 1 else []
    return shlex.join(words)


if __name__ == "__main__":
    sys.exit(main())
