"""What `theory` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from snnprune.cli.tables import plain_table

if TYPE_CHECKING:
    from snnprune.jobs.theory.construct import Constructed
    from snnprune.jobs.theory.width import Widths
    from snnprune.theory.trials import Count
    from snnprune.theory.widths import Setting


def width_table(found: Widths) -> Table:
    """A row for each statement."""
    table = plain_table()
    table.add_column("statement", no_wrap=True)
    table.add_column("of what")
    for title in ("error", "k as printed", "k corrected"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in found.rows:
        counts = f"{row.printed:,}", f"{row.corrected:,}"
        table.add_row(row.statement, row.what, f"{row.error:.3g}", *counts)
    return table


def width_lines(found: Widths) -> list[str]:
    """The constants behind the table."""
    setting = found.setting
    return [
        f"C_th = {setting.firing:.4g}: share of weights that alone reach the threshold",
        f"C = {setting.crisis:.4g}: chance of a flip per unit of error (2 p_sup / (1 - beta))",
        f"errors must be below delta / (N C L T) = {found.reach:.3g}",
    ]


def construct_table(found: Constructed) -> Table:
    """A row for each statement that was tried."""
    table = plain_table()
    for title in ("statement", "k", "allowed", "exact", "failed", "95 % interval"):
        table.add_column(title, justify="left" if title == "statement" else "right", no_wrap=True)
    for step in found.steps:
        exact = "-" if step.exact is None else f"{step.exact:.4f}"
        cells = step.name, f"{step.width:,}", f"{step.promised:g}", exact
        table.add_row(*cells, _share(step.count), _interval(step.count))
    return table


def construct_lines(found: Constructed, setting: Setting) -> list[str]:
    """What the whole networks came to."""
    widest = max(network.width for network in found.networks)
    flipped = sum(network.compared.flipped for network in found.networks)
    places = sum(network.compared.places for network in found.networks)
    return [
        f"{found.equal.trials} whole networks, k up to {widest:,}: "
        f"{found.within.failures} without a partner for every weight "
        f"({_interval(found.within)}; allowed {setting.delta:g})",
        f"other spikes in {found.equal.failures} networks ({_interval(found.equal)}), "
        f"{flipped:,} of {places:,} spikes in all",
    ]


def _share(found: Count) -> str:
    return f"{found.failures} of {found.trials}"


def _interval(found: Count) -> str:
    low, high = found.interval
    return f"{low:.4f} to {high:.4f}"
