"""What the page of results says to run again."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("results.md", "criteria.md")


def commands() -> list[str]:
    """The indented lines of the pages that begin a command, with what goes on on the next line."""
    found = []
    for page in PAGES:
        text = (ROOT / "docs" / page).read_text("utf-8").replace("\\\n", " ")
        lines = (line.strip() for line in text.splitlines() if line.startswith("    "))
        found += [" ".join(line.partition("#")[0].split()) for line in lines]
    return [line for line in dict.fromkeys(found) if "python tests/" in line or "snnprune " in line]


def scripts() -> list[list[str]]:
    """The words of each command of a script, after `python`."""
    words = map(shlex.split, commands())
    return [line[line.index("python") + 1 :] for line in words if "python" in line]


def test_the_pages_name_commands() -> None:
    assert len(scripts()) > 5
    assert len(commands()) > len(scripts()) + 5


@pytest.mark.parametrize("line", scripts(), ids=" ".join)
def test_a_script_of_the_page_is_there_and_has_the_flags_of_the_page(line: list[str]) -> None:
    source = (ROOT / line[0]).read_text("utf-8")
    compile(source, line[0], "exec")
    assert [word for word in line if word.startswith("--") and f'"{word}"' not in source] == []


LOOPS = [line for line in commands() if line.startswith(("snnprune imp", "snnprune search"))]


@pytest.mark.docs
@pytest.mark.parametrize("line", [line for line in LOOPS if "fashion-mnist-mini" in line])
def test_a_loop_of_the_page_can_be_run(line: str, tmp_path: Path) -> None:
    words = [*shlex.split(line)[1:], "--dry-run", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "snnprune", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
