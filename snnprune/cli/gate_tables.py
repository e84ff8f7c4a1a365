"""What came of gates."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from snnprune.cli.tables import broken, plain_table
from snnprune.escaping import printable
from snnprune.gates import Verdict

SIGNS = {True: "met", False: "NOT MET", None: "NOT JUDGED"}
STYLES = {True: "green", False: "bold red", None: "bold yellow"}


def gate_table(verdicts: Sequence[Verdict], width: int, name: str = "") -> Table:
    """A row for each gate, within `width` columns; `name` is that of the file, of several."""
    table = plain_table()
    if name:
        table.title, table.title_justify = Text(printable(name)), "left"
    for title in ("gate", "limit", "", "found"):
        table.add_column(title)
    taken = [max(map(len, map(str, each))) for each in zip(*map(_short, verdicts), strict=True)]
    left = width - sum(taken) - 2 * (len(taken) + 1)
    for one in verdicts:
        gate, limit, sign = _short(one)
        found = broken(printable(one.found), max(left, 20))
        table.add_row(gate, Text(limit), Text(sign, style=STYLES[one.met]), Text(found))
    return table


def gate_lines(verdicts: Sequence[Verdict], name: str = "") -> list[str]:
    """How many are met; nothing where there are none."""
    met = sum(one.met is True for one in verdicts)
    before = f"{printable(name)}: " if name else ""
    return [f"{before}{met} of {len(verdicts)} gates met"] if verdicts else []


def _short(one: Verdict) -> tuple[str, str, str]:
    return one.gate, printable(one.limit), SIGNS[one.met]
