"""What the tests need, held against what is installed: nothing is skipped for want of a package."""

import re
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ALONE = ROOT / "tests" / "requirements-alone.txt"


def dependencies() -> list[str]:
    """The requirements of the package itself, from pyproject.toml."""
    return list(_project()["dependencies"])


def extra(name: str) -> list[str]:
    """The requirements of one of its extras."""
    return list(_project()["optional-dependencies"][name])


def alone() -> list[str]:
    """The requirements that are installed without their dependencies."""
    lines = ALONE.read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def package(requirement: str) -> str:
    """The name in a requirement, `h5py` of `h5py>=3.10`."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def missing(requirements: Iterable[str]) -> list[str]:
    """The packages of the requirements that are not installed, whatever their versions."""
    return [name for name in map(package, requirements) if not _installed(name)]


def require_all() -> None:
    """Raises ImportError: a package that tests need is not installed."""
    if names := missing([*extra("test"), *alone()]):
        raise ImportError(
            f"the tests need {', '.join(names)}: install as the second command of README.md does"
        )


def _project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return found


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
