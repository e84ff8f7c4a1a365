"""What `-m` left out, said at the end of a run."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

MARKS = ("gpu", "slow", "docs", "faults")


class LeftOut:
    """A plugin of pytest: under xdist a run that passes does not say what it did not run."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Count them by mark; a worker sends the counts along when it ends."""
        for item in items:
            self.counts.update(mark for mark in MARKS if item.get_closest_marker(mark))
            if hasattr(item.config, "workeroutput"):
                item.config.workeroutput["left_out"] = dict(self.counts)

    def pytest_testnodedown(self, node: Any) -> None:
        """Each worker has collected all tests, so that the counts of one are those of all."""
        self.counts |= Counter(getattr(node, "workeroutput", {}).get("left_out", {}))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for mark, count in self.counts.items():
            terminalreporter.write_line(f"LEFT OUT {count} marked {mark}: pytest -m {mark}")
