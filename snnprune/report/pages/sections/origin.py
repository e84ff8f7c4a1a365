"""Where numbers come from: what it takes to get them again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from snnprune.report.pages.page import (
    Block,
    Facts,
    PageSection,
    TextLines,
    TextTable,
    drop_unknown_columns,
)

Report = Mapping[str, Any]
CHOICES = ("allocation", "repair", "steps", "structure", "split")


def make_warnings_section(report: Report) -> PageSection | None:
    """What the command warned of."""
    lines = report.get("warnings")
    return PageSection(title="Warnings", blocks=[TextLines(lines=lines)]) if lines else None


def make_origin_section(report: Report) -> PageSection:
    """Command, choices, seed, device, versions, files and their hashes."""
    several = report.get("files", [])
    known = {**several[0], **report} if several else report  # all were pruned in the same way
    chosen = {name: known.get(name) for name in CHOICES}
    pairs = [(name, str(value)) for name, value in chosen.items() if isinstance(value, str | int)]
    command = report.get("command_line")
    why = known.get("criterion_because")
    facts = [
        *([("command", command)] if command else []),
        *([("criterion", f"{known['criterion']} ({why})")] if why else []),
        *pairs,
        *((what, _format_named(one)) for what in ("model", "data") if (one := report.get(what))),
        ("seed", str(report["seed"])),
        ("device", report["device"]),
        ("versions", ", ".join(f"{name} {text}" for name, text in report["versions"].items())),
    ]
    files = [("read", one) for one in report["inputs"]]
    files += [("written", one) for part in (report, *several) for one in part.get("outputs", [])]
    rows = [[what, one["path"], one.get("sha256")] for what, one in files]
    table = drop_unknown_columns(TextTable(titles=("", "file", "SHA-256"), rows=rows, names=2), "")
    blocks: list[Block] = [Facts(pairs=facts), *([replace(table, names=3)] if files else [])]
    return PageSection(title="How to get this again", blocks=blocks)


def _format_named(found: Report) -> str:
    """A model or data set with its arguments, in a line."""
    rest = {key: value for key, value in found.items() if key != "name" and value}
    args = rest.pop("args", {})
    return " ".join([found["name"], *([json.dumps({**args, **rest})] if args or rest else [])])
