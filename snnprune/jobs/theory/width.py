"""`snnprune theory width`: how wide a random network must be to hold a given one."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from snnprune.errors import UsageError
from snnprune.files.writing import require_free
from snnprune.jobs.theory.options import WidthOptions
from snnprune.measure import Natural
from snnprune.report import make_report
from snnprune.report.plots.theory import plot_growth
from snnprune.theory import widths
from snnprune.theory.widths import Setting

PICTURES = ("widths.svg", "widths.png")
SIZES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""N of the picture."""


@dataclass(frozen=True, kw_only=True)
class WidthStatement:
    """A statement: its width at an error."""

    statement: str
    what: str
    error: float
    printed: Natural
    corrected: Natural


@dataclass(frozen=True, kw_only=True)
class WidthResult:
    """All statements for one setting."""

    setting: Setting
    rows: tuple[WidthStatement, ...]
    reach: float
    """Errors must be below it."""
    report: dict[str, Any]


def theory_width(options: WidthOptions) -> WidthResult:
    """The width of each statement, as printed and corrected, and a picture of how it grows.

    `--error` is that of every statement; by default each has the best of its own.

    Raises:
        UsageError: the setting is outside its range, or the theorem is empty for it.
        OutputError: a picture is in the way.
    """
    setting, error, margin = options.setting, options.error, options.margin
    widths.require_sense(setting)
    if error is not None and not 0 < error < setting.reach:
        raise UsageError(
            f"{error:g} is outside (0, {setting.reach:.3g}): with larger errors flips alone are "
            f"likelier than delta",
            field="--error",
            hint="leave it out to take the best",
        )
    if margin is not None and not 0 < margin < math.inf:
        raise UsageError(f"{margin:g} is not above 0", field="--margin")
    paths = [] if options.out is None else [options.out / name for name in PICTURES]
    for path in paths:
        require_free(path, force=options.force)
    rows = tuple(_make_rows(setting, error, margin))
    if paths:
        plot_growth(paths, _compute_growth(setting), _format_conditions(setting))
    return WidthResult(
        setting=setting,
        rows=rows,
        reach=setting.reach,
        report=make_report(
            "theory width",
            device=torch.device("cpu"),
            seed=0,
            model=None,
            data=None,
            setting=asdict(setting),
            firing=setting.firing,
            crisis=setting.crisis,
            reach=setting.reach,
            widths=[asdict(row) for row in rows],
            outputs=[{"path": str(path)} for path in paths],
        ),
    )


def _make_rows(setting: Setting, error: float | None, margin: float | None) -> list[WidthStatement]:
    one, still = replace(setting, layers=1, steps=1), replace(setting, steps=1)
    eps = error or widths.best_error(setting)
    delta = setting.delta
    rows = [
        _make_row("C.1", "one weight", eps, widths.single_weight(setting, eps, delta)),
        _make_row(
            "C.2", "all weights of one neuron", eps, widths.layer_weights(setting, eps, delta)
        ),
        _make_row(
            "C.3, 4.1",
            "all weights of a layer",
            eps,
            widths.layer_to_layer(setting, eps, delta),
            widths.layer_to_layer_as_printed(setting, eps, delta),
        ),
    ]
    for name, what, of in (
        ("C.4, 4.2", "spikes of one layer, T = 1", one),
        ("C.5", "spikes of all layers, T = 1", still),
        ("C.6, 4.3", "spikes of all layers and steps", setting),
    ):
        best = error or widths.best_error(of)
        k, printed = widths.network_width(of, best), widths.network_width_as_printed(of, best)
        rows.append(_make_row(name, what, best, k, printed))
    if margin is not None:
        k, best = widths.width_by_margin(setting, margin)
        rows.append(_make_row("margin", f"no flip on data with |u - u_th| >= {margin:g}", best, k))
    return rows


def _make_row(
    name: str, what: str, error: float, corrected: int, printed: int | None = None
) -> WidthStatement:
    return WidthStatement(
        statement=name,
        what=what,
        error=error,
        corrected=corrected,
        printed=corrected if printed is None else printed,
    )


def _compute_growth(setting: Setting) -> dict[str, list[tuple[int, int]]]:
    """k of Theorem 4.3 over N, as printed and corrected, and what a layer's weights alone take."""
    found: dict[str, list[tuple[int, int]]] = {}
    for n in SIZES:
        at = replace(setting, neurons=n)
        eps = widths.best_error(at)
        for name, k in {
            "4.3 as printed": widths.network_width_as_printed(at, eps),
            "4.3 with one factor N": widths.network_width(at, eps),
            "4.1, weights of a layer": widths.layer_to_layer(at, eps, at.delta),
        }.items():
            found.setdefault(name, []).append((n, k))
    return found


def _format_conditions(setting: Setting) -> str:
    return (
        f"L = {setting.layers}, T = {setting.steps}, u_th = {setting.threshold:g}, "
        f"beta = {setting.beta:g}, p_sup = {setting.p_sup:g}, delta = {setting.delta:g}, "
        f"weights from U[-{setting.span:g}, {setting.span:g}], each at its best error"
    )
