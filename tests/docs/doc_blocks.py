"""The fenced blocks and tables of a page of docs/, for tests that hold the page to the tool."""

import contextlib
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block; ```` ```bash runnable ```` has the language bash and the mark runnable."""

    page: str
    line: int
    """Where it begins, from 1."""
    language: str
    marks: tuple[str, ...]
    text: str

    @property
    def file(self) -> str | None:
        """The file that the block is to be saved as, from its mark `file=NAME`."""
        return self._marked("file")

    @property
    def quoted(self) -> str | None:
        """The file of the repository that the block is quoted from, from its mark `from=PATH`."""
        return self._marked("from")

    def _marked(self, name: str) -> str | None:
        values = [mark.partition("=")[2] for mark in self.marks if mark.startswith(f"{name}=")]
        return values[0] if values else None

    def run_as_python(self) -> dict[str, Any]:
        """Run the block in this process, errors pointing into the page; its variables."""
        place = "\n" * self.line  # so that line numbers of a traceback are those of the page
        variables = {"__name__": "__main__"}
        exec(compile(place + self.text, str(DOCS / self.page), "exec"), variables)
        return variables


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of `docs/<page>` in order."""
    text = read(page)
    return [
        Block(
            page=page,
            line=text.count("\n", 0, found.start()) + 1,
            language=found[1],
            marks=tuple(found[2].split()),
            text=textwrap.dedent(found[3]),
        )
        for found in FENCE.finditer(text)
    ]


@contextlib.contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """Work in a folder and import from it; another page may have files of the same names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        try:
            yield
        finally:
            for name, module in list(sys.modules.items()):
                if Path(getattr(module, "__file__", None) or "").is_relative_to(folder):
                    del sys.modules[name]


def assert_shown(page: str, outputs: Mapping[int, str]) -> None:
    """Hold each block marked `output` to what was printed before it, by line of the page."""
    last = ""
    for block in blocks_of(page):
        last = outputs.get(block.line) or last
        if "output" not in block.marks:
            continue
        printed = {line.strip() for line in last.splitlines()}
        for line in block.text.splitlines():
            assert line.strip() in printed, f"{page}:{block.line}: not printed: {line}"


def read(page: str) -> str:
    """The text of `docs/<page>`."""
    return (DOCS / page).read_text(encoding="utf-8")


def table_under(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, code marks taken off, without its head."""
    section = re.split(rf"^#+ {re.escape(heading)}$", read(page), maxsplit=1, flags=re.MULTILINE)[1]
    lines = iter(section.splitlines())
    rows = [_cells(line) for line in _table(lines)]
    return rows[2:]


def first_column(page: str, heading: str) -> set[str]:
    """The names in the first column of the table under a heading."""
    return {row[0] for row in table_under(page, heading)}


def _table(lines: Iterator[str]) -> Iterator[str]:
    """The lines of the first table."""
    met = False
    for line in lines:
        if line.startswith("|"):
            met = True
            yield line
        elif met or line.startswith("#"):
            return


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("`", "") for cell in line.strip().strip("|").split("|")]
