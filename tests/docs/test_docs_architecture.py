"""The pages for contributors name files, modules and objects that are there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from doc_blocks import DOCS

import snnprune

ROOT = DOCS.parent
PACKAGE = Path(snnprune.__file__).parent
PAGES = [DOCS / "architecture.md", ROOT / "CONTRIBUTING.md"]
ROOMS = {path.stem for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}


@cache
def defined() -> set[str]:
    """The names of all functions, classes, methods, attributes and constants of snnprune."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    found.add(name)
                case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name):
                    found.add(name)
    return found


def is_there(dotted: str) -> bool:
    """Whether `room.module.name` leads to a module, or to a name that a module defines."""
    place, parts = PACKAGE, dotted.split(".")
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    if parts and (place / f"{parts[0]}.py").is_file():
        place /= f"{parts.pop(0)}.py"
    else:
        place /= "__init__.py"
    source = place.read_text("utf-8") if place.is_file() else ""
    return (
        not parts
        or re.search(rf"(?:def|class) {parts[0]}\b|^{parts[0]}\b", source, re.M) is not None
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    named = re.findall(r"`([\w./-]+(?:\.py|\.toml|/))`", page.read_text("utf-8"))
    inside = ("graph", "jobs/prune", "pruning", "recipe", "training")
    places = (ROOT, PACKAGE, *(PACKAGE / folder for folder in inside))
    assert named
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_and_object_that_is_named_is_there(page: Path) -> None:
    named = re.findall(r"`((?:\w+\.)+\w+)(?:\(\))?`", page.read_text("utf-8"))
    ours = [
        name
        for name in named
        if name.split(".")[0] in ROOMS and not name.endswith((".py", ".json"))
    ]
    assert [name for name in ours if not is_there(name)] == []


def test_the_folders_that_a_built_in_goes_into_are_there() -> None:
    named = re.findall(r"`(snnprune/[\w/.]+)`", (DOCS / "extending.md").read_text("utf-8"))
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.slow
def test_every_class_that_the_architecture_names_is_there() -> None:
    text = (DOCS / "architecture.md").read_text("utf-8")
    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]*)*)(?:\.\w+)?`", text))
    foreign = {
        "TorchFunctionMode",
        "SyncBatchNorm",
        "DataParallel",
        "DataLoader",
        "True",
        "None",
        "Exception",
    }
    assert {name for name in named - foreign if name not in defined()} == set()
