"""The drawing of who may import whom, kept true; and what holds for every file."""

import ast
import importlib.util
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("cluster", "evals", "finetune", "helmsman", "tools")
LONGEST_FUNCTION = 60
LONGEST_FILE = 500
BIGGEST = 16 << 20
GENERATED = "migrations/versions"
"""Written by Alembic: one long list of tables."""
DOORS = ("cluster.client", "cluster.models", "cluster.errors", "cluster.sentence", "cluster.units", "cluster.clock",
         "cluster.monitor")  # fmt: skip
"""What of the cluster the packages above it may know."""

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "cluster": (),
    "tools": DOORS,
    "helmsman": ("tools", *DOORS, "cluster.simulator.world"),
    "finetune": ("helmsman.prompts", "tools", *DOORS, "cluster.simulator"),
    "evals": ("helmsman", "tools", "finetune", "cluster"),
}
"""Package -> modules (with all below them) of the other packages that it may import."""


@dataclass(frozen=True)
class Import:
    file: str
    line: int
    module: str

    @property
    def package(self) -> str:
        return self.file.split("/")[0]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def sources(*packages: str) -> Iterator[Path]:
    for package in packages:
        yield from sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[Import]:
    """Every import in a file, also those inside functions and under TYPE_CHECKING."""
    file = str(path.relative_to(ROOT))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (Import(file, node.lineno, name) for name in _imported(node.module, node))


def _imported(module: str, node: ast.ImportFrom) -> list[str]:
    """`from cluster import errors` is an import of `cluster.errors`."""
    return [f"{module}.{alias.name}" for alias in node.names] if module in PACKAGES else [module]


def allowed(found: Import) -> bool:
    target = found.module.split(".")[0]
    if target not in PACKAGES or target == found.package:
        return True
    return any(found.module == door or found.module.startswith(f"{door}.") for door in MAY_IMPORT[found.package])


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_the_drawing_lets_it(package: str) -> None:
    found = [i for path in sources(package) for i in imports(path)]
    assert [str(i) for i in found if not allowed(i)] == []


@pytest.mark.parametrize(
    ("file", "module", "fine"),
    [
        ("cluster/core.py", "tools.base", False),
        ("tools/base.py", "cluster.models", True),
        ("tools/base.py", "cluster.core", False),
        ("tools/base.py", "helmsman.events", False),
        ("helmsman/graph.py", "finetune.train", False),
        ("helmsman/graph.py", "cluster.db.tables", False),
        ("finetune/train.py", "helmsman.prompts.codec", True),
        ("finetune/train.py", "helmsman.graph", False),
    ],
)
def test_the_rule_itself_tells_right_from_wrong(file: str, module: str, fine: bool) -> None:
    assert allowed(Import(file, 1, module)) is fine


def test_only_the_embedded_cluster_is_started_as_a_process() -> None:
    """`python -m cluster.…` is helmsman's one way past the doors, and it is in one file."""
    naming = [p for p in sources("helmsman", "tools") if {"cluster.server", "cluster.agents"} & strings(p)]
    assert [str(p.relative_to(ROOT)) for p in naming] == ["helmsman/embedded.py"]


def strings(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}


@pytest.mark.parametrize("package", PACKAGES)
def test_our_package_names_resolve_into_this_tree(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec
    assert spec.origin
    assert Path(spec.origin).is_relative_to(ROOT / package)


def test_datasets_is_data_and_does_not_shadow_the_library() -> None:
    assert list((ROOT / "datasets").rglob("*.py")) == []


def test_tests_have_no_init_files() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Every function with its length in lines, docstring not counted."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            said = node.body[0] if ast.get_docstring(node) else None
            docstring = (said.end_lineno or 0) - said.lineno + 1 if said else 0
            yield f"{path.relative_to(ROOT)}: {node.name}", (node.end_lineno or 0) - node.lineno + 1 - docstring


def test_functions_are_short() -> None:
    lengths = [f for path in sources(*PACKAGES) if GENERATED not in str(path) for f in functions(path)]
    assert [f"{name} has {length} lines" for name, length in lengths if length > LONGEST_FUNCTION] == []
    in_order = sorted(length for _, length in lengths)
    assert in_order[len(in_order) * 9 // 10] < 40


def test_files_are_of_a_size_to_read() -> None:
    long = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in sources(*PACKAGES)}
    assert {file: lines for file, lines in long.items() if lines > LONGEST_FILE} == {}


def test_git_bears_every_file() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this is not a git checkout")
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert [str(f) for f in files if f.is_file() and f.stat().st_size > BIGGEST] == []
