"""docs/cli.md is what its script makes of the commands as they are now."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest
from doc_blocks import DOCS, blocks_of, read
from typer.main import get_command

from snnprune.cli.commands import make_app

SCRIPT = DOCS / "make_cli.py"
PAGES = ("usage.md", "files.md", "extending.md", "tickets.md", "comparing.md")
OPERATORS = {"|", "||", "&&", ">", ";"}


def made(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a copy of the script that lies, with its page, in `folder`."""
    script = folder / SCRIPT.name
    for source in (SCRIPT, SCRIPT.with_name("pages.py")):
        shutil.copy(source, folder)
    return subprocess.run(
        [sys.executable, script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_the_page_of_commands_is_what_the_script_makes_now() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, check=False)
    assert done.returncode == 0, "run python docs/make_cli.py"


def test_the_page_of_recipes_is_what_its_script_makes_now() -> None:
    script = DOCS / "make_recipes.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, check=False)
    assert done.returncode == 0, "run python docs/make_recipes.py"


def test_the_check_fails_on_a_stale_page_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "cli.md").write_text(read("cli.md").replace("--sparsity", "--density"))
    done = made(tmp_path, "--check")
    assert done.returncode == 1
    assert "run python docs/make_cli.py" in done.stderr


@pytest.mark.slow
def test_the_page_does_not_depend_on_the_terminal(tmp_path: Path) -> None:
    assert made(tmp_path, COLUMNS="30", FORCE_COLOR="1", TERM="xterm-256color").returncode == 0
    assert (tmp_path / "cli.md").read_text(encoding="utf-8") == read("cli.md")


def test_the_page_is_made_without_torch() -> None:
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(DOCS)!r}); "
        f"runpy.run_path({str(SCRIPT)!r})['page'](); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "snnprune.cli" in done.stdout.split()
    assert "torch" not in done.stdout.split()


def test_the_page_has_a_section_for_every_command() -> None:
    known = {f"snnprune {name}" for name in _flags_by_command()}
    assert set(re.findall(r"^## (snnprune \S.*)$", read("cli.md"), re.MULTILINE)) == known


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_that_a_page_shows_exists(page: str) -> None:
    known = _flags_by_command()
    for block in blocks_of(page):
        if block.language != "bash":
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            words = list(takewhile(lambda word: word not in OPERATORS, shlex.split(line)))
            if words[:1] != ["snnprune"]:
                continue
            command = " ".join(words[1 : 3 if words[1] == "recipes" else 2])
            shown = {word.partition("=")[0] for word in words if word.startswith("-")}
            assert shown <= known[command], f"{page}:{block.line}: {line}"


def _flags_by_command() -> dict[str, set[str]]:
    """The flags of every command by its name."""
    found: dict[str, set[str]] = {}
    pending = list(get_command(make_app()).commands.items())  # type: ignore[attr-defined]
    for name, command in pending:
        pending += [(f"{name} {sub}", c) for sub, c in getattr(command, "commands", {}).items()]
        found[name] = {flag for parameter in command.params for flag in parameter.opts}
    return found
