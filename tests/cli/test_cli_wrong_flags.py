"""A wrong value is refused before torch is imported, whichever flag of whichever command has it."""

import contextlib
import importlib.abc
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.main import get_command

from snnprune.cli import run_app
from snnprune.cli.commands import COMMANDS, make_app

FREE = {"--out", "--report", "--junit", "--data-root", "--state-dict", "--exclude"}
"""Any text may be right; what it names is looked for in a file, or made."""
PLACES = {("recipes", "cp", "target"), ("chips", "cp", "target")}
"""Arguments of which the same is true."""
WRONG = "wrong!"
NEEDED = {"out": "out.pth", "to": "pth", "recipe": "smoke", "sparsities": "0.5"}
ASKED = {"prune": ("--sparsity", "0.5"), **dict.fromkeys(("train", "imp", "search", "finetune"),
                                                         ("--recipe", "smoke"))}  # fmt: skip


class TorchAskedError(BaseException):
    """Somebody would have imported torch."""


class Guard(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "torch":
            raise TorchAskedError


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, and its name in words."""
    if not hasattr(command, "commands"):
        yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*path, name))


def words_with_one_wrong(path: tuple[str, ...], command: Any, wrong: Any) -> list[str]:
    """A command line in which this parameter alone is wrong."""
    words = list(path)
    for one in command.params:
        if one is wrong or one.required:
            value = NEEDED.get(
                one.name, {"recipes": "smoke", "chips": "loihi-2"}.get(path[0], "net.pth")
            )
            value = WRONG if one is wrong else value
            words += [value] if one.param_type_name == "argument" else [one.opts[0], value]
    more = ASKED.get(path[0], ())
    return words if more[:1] == tuple(wrong.opts[:1]) else [*words, *more]


def told_of_each() -> Iterator[dict[str, Any]]:
    """What each wrong value is answered with."""
    for first in COMMANDS:
        app = get_command(make_app([first]))
        for path, command in leaves(app):
            for wrong in command.params:
                if getattr(wrong, "is_flag", False) or (*path, wrong.name) in PLACES:
                    continue
                words = words_with_one_wrong(path, command, wrong)
                out, err = io.StringIO(), io.StringIO()
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    code = run_app(app, words)
                asked = "TorchAskedError" in err.getvalue()
                flag = "" if wrong.param_type_name == "argument" else wrong.opts[0]
                yield {"words": words, "flag": flag, "code": code, "torch": asked}


def main() -> None:
    """Print it, in a process in which nobody has torch."""
    sys.meta_path.insert(0, Guard())
    print(json.dumps(list(told_of_each())))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("wrong")
    torch.save({"fc.weight": torch.ones(4, 4)}, folder / "net.pth")
    script = folder / "without_torch.py"
    # this file, without what itself imports torch
    text = Path(__file__).read_text("utf-8").replace("import pytest\nimport torch\n", "")
    head, _, _ = text.partition("@pytest.fixture")
    script.write_text(f"{head}\nmain()\n", "utf-8")
    done = subprocess.run(
        [sys.executable, script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_every_wrong_value_is_refused_and_torch_never_imported_for_it(
    told: list[dict[str, Any]],
) -> None:
    late = [one["words"] for one in told if one["flag"] not in FREE and one["torch"]]
    assert late == []
    taken = [one for one in told if one["flag"] not in FREE and one["code"] not in (2, 3)]
    assert [one["words"] for one in taken] == []


def test_every_flag_that_takes_a_value_was_tried(told: list[dict[str, Any]]) -> None:
    known = {
        flag
        for _, command in leaves(get_command(make_app()))
        for one in command.params
        if one.param_type_name == "option" and not one.is_flag
        for flag in one.opts[:1]
    }
    assert known == {one["flag"] for one in told} - {""}
    assert known > FREE


def test_the_names_that_are_known_without_torch_are_those_there_are() -> None:
    from snnprune.graph import forward
    from snnprune.jobs.theory.options import NOISES
    from snnprune.plugins.names import READOUTS
    from snnprune.theory import changes

    assert tuple(forward.READOUTS) == READOUTS
    assert {f"{name}_spikes" for name in NOISES[1:]} < set(dir(changes))
