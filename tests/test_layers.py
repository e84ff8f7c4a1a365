"""The floors of the packages: each imports only from its own and from those below."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import snnprune

ROOT = Path(snnprune.__file__).parent
FLOORS: tuple[tuple[str, ...], ...] = (  # the highest first, as in docs/architecture.md
    ("api", "cli"),
    ("jobs",),
    ("training",),
    ("report", "theory"),
    ("pruning", "chips"),
    ("models", "measure", "export"),
    ("graph", "distributed"),
    ("data",),
    ("checkpoint", "recipe"),
    ("files", "plugins"),
    ("masks",),
    ("errors", "runtime"),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS[::-1], start=1) for room in rooms}


class Imports(ast.NodeVisitor):
    """The modules that a file imports, in functions too, but not those for type checkers alone."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []  # (line, full name)

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.unparse(node.test):
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [(node.lineno, alias.name) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "relative imports would slip through"
        self.found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]


def sources() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


@cache
def imports_of(path: Path) -> list[tuple[int, str]]:
    imports = Imports()
    imports.visit(ast.parse(path.read_text("utf-8")))
    return imports.found


def package_of(path: Path) -> str:
    """The package or module directly in snnprune that a file is or belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def links() -> Iterator[tuple[str, str, str]]:
    """(where, importing package, imported package) of every import within snnprune."""
    for path in sources():
        for line, name in imports_of(path):
            top, *rest = name.split(".")
            if top == "snnprune" and rest and rest[0] in FLOOR:
                yield f"{path.relative_to(ROOT)}:{line}", package_of(path), rest[0]


def test_every_package_has_its_place_in_the_order() -> None:
    found = {package_of(path) for path in sources()} - {"__init__", "__main__"}
    assert found == set(FLOOR)


def test_the_table_of_the_architecture_has_the_same_floors() -> None:
    text = (ROOT.parent / "docs" / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", text, re.MULTILINE)
    found = [(int(floor), re.findall(r"`(\w+)(?:/|\.py)`", rooms)) for floor, rooms in rows]
    floors = zip(range(len(FLOORS), 0, -1), map(sorted, FLOORS), strict=True)
    assert [(floor, sorted(rooms)) for floor, rooms in found] == [*floors]


def test_nothing_imports_from_a_higher_floor() -> None:
    wrong = [
        f"{where}: {importer} of floor {FLOOR[importer]} imports {imported} of {FLOOR[imported]}"
        for where, importer, imported in links()
        if importer in FLOOR and FLOOR[imported] > FLOOR[importer]
    ]
    assert wrong == []


def test_packages_of_one_floor_do_not_import_each_other_in_a_circle() -> None:
    needs: dict[str, set[str]] = {package: set() for package in FLOOR}
    for _, importer, imported in links():
        if importer in FLOOR and importer != imported:
            needs[importer].add(imported)
    while free := [package for package, others in needs.items() if not others]:
        needs = {
            package: others.difference(free)
            for package, others in needs.items()
            if package not in free
        }
    assert needs == {}


def test_the_package_itself_imports_none_of_its_parts() -> None:
    names = [name for _, name in imports_of(ROOT / "__init__.py")]
    ours = [name for name in names if name.startswith("snnprune")]
    assert ours == ["snnprune.runtime.__version__"]


def test_the_links_between_the_packages_are_seen() -> None:
    seen = {(importer, imported) for _, importer, imported in links()}
    assert {("cli", "jobs"), ("pruning", "masks"), ("models", "errors")} <= seen


def test_only_data_imports_torchvision() -> None:
    users = {
        package_of(path)
        for path in sources()
        for _, name in imports_of(path)
        if name.split(".")[0] == "torchvision"
    }
    assert users == {"data"}


def test_no_neuron_library_is_imported() -> None:
    libraries = {"spikingjelly", "snntorch", "sinabs", "norse", "rockpool", "samna"}
    names = {name.split(".")[0] for path in sources() for _, name in imports_of(path)}
    assert not names & libraries


@pytest.mark.many(2)
@pytest.mark.parametrize(
    "module",
    [
        *("cli", "recipe", "models", "data", "plugins.names", "jobs.targets.provenance"),
        *("pruning.criteria", "pruning.allocation", "jobs.train.recipes", "report.gates"),
        *("jobs.export", "jobs.check", "export", "training", "runtime", "errors"),
        "jobs.environment",
    ],
)
def test_what_is_asked_before_any_work_imports_no_torch(module: str) -> None:
    code = f"import sys, snnprune.{module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
