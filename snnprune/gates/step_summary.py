"""Gates on the summary page of a GitHub Actions job."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from snnprune.escaping import printable
from snnprune.gates.gate import Verdict
from snnprune.markdown import row, table

VARIABLE = "GITHUB_STEP_SUMMARY"
SIGNS = {True: "✅ met", False: "❌ not met", None: "⚠️ not judged"}


def append_step_summary(command: str, verdicts: Mapping[str, Sequence[Verdict]]) -> str | None:
    """Append a table per checkpoint where the variable names a file; why that failed, else None."""
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    text = "\n".join(_section(command, name, found) for name, found in verdicts.items())
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        return f"{VARIABLE} ({path}) cannot be written: {error.strerror}"
    return None


def _section(command: str, name: str, verdicts: Sequence[Verdict]) -> str:
    body = [(one.gate, one.limit, one.found, SIGNS[one.met]) for one in verdicts]
    lines = table(("gate", "limit", "found", ""), body)
    return f"### snnprune {command}: {row([printable(name)])}\n\n{lines}\n"
