"""Write docs/cli.md: every command with its arguments and flags, read off the typer app.

`python docs/make_cli.py` writes the page, `python docs/make_cli.py --check` fails where it is
stale. The tables are made here and not by typer, so that neither the terminal nor typer's colours
and boxes change the page.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pages import written
from typer.main import get_command

from snnprune.cli.commands import make_app
from snnprune.cli.examples import EXAMPLES

PAGE = Path(__file__).with_name("cli.md")
INTRODUCTION = """\
# The commands

`snnprune COMMAND --help` (or `-h`) shows the same in a terminal. [usage.md](usage.md) has the jobs
that the commands are for, [files.md](files.md) the files that they read and write.

This page is written by `python docs/make_cli.py`; a test fails where it is stale.
"""


def page() -> str:
    """The whole page."""
    root = get_command(make_app())
    sections = [INTRODUCTION, _section("snnprune", root)]
    sections += [_section(name, command) for name, command in _commands("snnprune", root)]
    return "\n".join(sections)


def _commands(prefix: str, group: Any) -> Iterator[tuple[str, Any]]:
    """Every command below `group` with its full name, a group before what is in it."""
    for name, command in group.commands.items():
        full = f"{prefix} {name}"
        yield full, command
        if hasattr(command, "commands"):
            yield from _commands(full, command)


def _section(name: str, command: Any) -> str:
    parameters = [p for p in command.params if not _is_of_typer(p)]
    arguments = [p for p in parameters if p.param_type_name == "argument"]
    options = [p for p in parameters if p.param_type_name == "option"]
    usage = [name, *(f"[{_name(p)}]" if not p.required else _name(p) for p in arguments)]
    usage += [f"{_longest(p)} {p.metavar}" for p in options if p.required]
    usage += ["COMMAND" if hasattr(command, "commands") else "[FLAGS]"]
    lines = [f"## {name}", "", command.help.strip(), "", "```", " ".join(usage), "```", ""]
    if parameters:
        lines += ["| name | value | default | what it is |", "|---|---|---|---|"]
        lines += [_row(p) for p in (*arguments, *options)] + [""]
    if shown := EXAMPLES.get(name.removeprefix("snnprune ")):
        lines += ["```bash", *shown, "```", ""]
    return "\n".join(lines)


def _is_of_typer(parameter: Any) -> bool:
    """Whether typer adds the flag itself, in words that change with its version."""
    return parameter.name in ("install_completion", "show_completion")


def _row(parameter: Any) -> str:
    is_argument = parameter.param_type_name == "argument"
    name = _name(parameter) if is_argument else ", ".join(parameter.opts)
    value = "" if is_argument or parameter.is_flag else parameter.metavar
    cells = [f"`{name}`", f"`{value}`" if value else "", _default(parameter)]
    return f"| {' | '.join([*cells, (parameter.help or '').replace('|', '/')])} |"


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _longest(option: Any) -> str:
    return str(max(option.opts, key=len))


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if parameter.default is None or isinstance(parameter.default, bool):
        return ""
    return f"`{parameter.default}`"


if __name__ == "__main__":
    sys.exit(written(PAGE, page(), "make_cli.py", sys.argv[1:]))
