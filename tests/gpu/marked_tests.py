"""`pytest -m gpu`, a line for each test: `marked_tests.py --out FILE`.

Without a GPU the tests are only collected. Where packages that the tests need are missing, those
that need no fixture run all the same.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from measuring import Lines, make_parser, read_flags

sys.path.append(str(Path(__file__).parents[1]))

from needed import alone, extra, missing

HERE = Path(__file__).parent  # its tests need no GPU
TESTS = HERE.parent
FIXTURES = {"run", "model_file"}
"""Of tests/conftest.py, which needs every package."""


class Recorder:
    """A plugin of pytest that writes a row for each test, and for each file that cannot be read."""

    def __init__(self, lines: Lines, *, run: bool, with_fixtures: bool) -> None:
        self.lines, self.run, self.with_fixtures = lines, run, with_fixtures

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what cannot run, with a word."""
        for item in [item for item in items if item.get_closest_marker("gpu")]:
            fixtures = FIXTURES.intersection(getattr(item, "fixturenames", ()))
            if not self.run:
                self.lines.add(test=item.nodeid, outcome="not run")
            elif fixtures and not self.with_fixtures:
                self.lines.add(test=item.nodeid, outcome="not run")
                items.remove(item)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A row where it is known how it ended."""
        if report.when == "call" or report.outcome != "passed":
            self._add(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A row for what could not be collected."""
        if report.failed:
            self._add(report)

    def _add(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = str(crash.message if crash else report.longreprtext).strip() or "no word"
        why = {"failed": text.partition("\n")[0]} if report.failed else {}
        seconds = getattr(report, "duration", None)
        self.lines.add(test=report.nodeid, outcome=report.outcome, seconds=seconds, **why)


def find_files() -> list[Path]:
    """The files with tests that are marked so: to collect all others takes longer than these."""
    files = [file for file in sorted(TESTS.rglob("test_*.py")) if file.parent != HERE]
    return [file for file in files if "mark.gpu" in file.read_text("utf-8")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them; pytest's exit code."""
    flags = read_flags(make_parser("pytest -m gpu, a line for each test."), arguments)
    run = flags.device.type == "cuda"
    lacking = missing([*extra("test"), *alone()])
    lines = Lines(flags.out)
    if lacking:
        lines.add(absent=f"tests with fixtures: {', '.join(lacking)} not installed")
    # without the options of pyproject.toml, whose plugins may be what is missing
    words = ["-m", "gpu", "-o", "addopts=", "-p", "no:cacheprovider", "-q", "-rf"]
    words += [] if run else ["--collect-only"]
    words += ["--noconftest"] if lacking else []
    recorder = Recorder(lines, run=run, with_fixtures=not lacking)
    return int(pytest.main([*words, *map(str, find_files())], plugins=[recorder]))


if __name__ == "__main__":
    sys.exit(main())
