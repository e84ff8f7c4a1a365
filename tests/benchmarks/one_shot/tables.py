"""What the lines of the one-shot benchmark come to: tables in Markdown and a heat map."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from snnprune.jobs.prune.methods import SAME
from snnprune.pruning.oneshot import BEGIN
from snnprune.report.plots.layers import HeatPanel, plot_heat

Plan = tuple[str, str, str]
"""Criterion, allocation, repair."""
Losses = dict[Plan, dict[float, dict[tuple[str, int], float]]]
"""Points of accuracy below the dense network, by plan, sparsity, network and seed."""


CLOSED: Plan = ("magnitude", "lamp", "obs")
"""What `prune` takes with `--no-tune`."""
TUNED: Plan = ("magnitude", "lamp", "tune")
PLAIN: Plan = ("magnitude", "lamp", "bn")
"""What it takes where no more than half of the weights go."""
DEFAULT = "prune"
UNTUNED: dict[str, Plan] = {
    "prune --no-tune": CLOSED,
    "sbc, sbc+bn": ("sbc", "lamp", "sbc+bn"),
    "magnitude (lamp), bn": PLAIN,
    "magnitude (global), bn": ("magnitude", "global", "bn"),
    "magnitude (global)": ("magnitude", "global", "none"),
}
"""What takes no gradient step, by the title of its panel."""
Changed = set[tuple[float, tuple[str, int]]]
"""Sparsities, and networks of which `PLAIN` changes too many decisions."""


def collect_default(
    losses: Losses, sparsity: float, changed: Changed
) -> dict[tuple[str, int], float]:
    """What is lost by what `prune` takes without flags: tuned where it tunes."""
    tuned = losses[TUNED].get(sparsity, {})
    if sparsity > BEGIN:
        return losses[CLOSED].get(sparsity, {}) | tuned
    again = {net: lost for net, lost in tuned.items() if (sparsity, net) in changed}
    return losses[PLAIN].get(sparsity, {}) | again


def show(results: Path) -> None:
    """Print the tables and draw `one-shot.png` and `one-shot-networks.png` beside `results`."""
    losses, dense, seconds = read(results)
    print(f"dense: {', '.join(f'{k} {v}' for k, v in dense_line(dense).items())}\n")
    for title, chosen in parts(losses).items():
        print(f"{title}\n\n{table(losses, chosen, seconds)}\n")
    changed = find_changed(results)
    print(f"More lost than by default, network by network\n\n{paired(losses, changed)}\n")
    print(f"By network: closed form, tuned\n\n{by_network(losses, dense)}\n")
    every = {plan: losses[plan] for chosen in parts(losses).values() for plan in chosen}
    draw(results.with_name("one-shot.png"), every)
    draw_networks(results.with_name("one-shot-networks.png"), losses, changed)


def read(results: Path) -> tuple[Losses, dict[tuple[str, int], float], dict[Plan, list[float]]]:
    """Losses, the accuracy of the dense networks, and seconds of each plan."""
    lines = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
    dense = {(r["key"][0], r["key"][1]): r["accuracy"] for r in lines if r["key"][2] == "dense"}
    losses: Losses = defaultdict(lambda: defaultdict(dict))
    seconds: dict[Plan, list[float]] = defaultdict(list)
    for line in lines:
        name, seed, criterion, allocation, repair, sparsity = line["key"]
        if criterion == "dense" or line["accuracy"] is None:
            continue
        plan = (criterion, allocation, repair)
        losses[plan][sparsity][name, seed] = dense[name, seed] - line["accuracy"]
        seconds[plan].append(line["seconds"])
    return losses, dense, seconds


def find_changed(results: Path) -> Changed:
    """Where `PLAIN` changes so many decisions that `prune` tunes after all."""
    lines = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
    return {
        (line["key"][5], (line["key"][0], line["key"][1]))
        for line in lines
        if line.get("same", 1.0) < SAME
    }


def dense_line(dense: dict[tuple[str, int], float]) -> dict[str, str]:
    """Accuracy of each network, mean and range over seeds."""
    by_name: dict[str, list[float]] = defaultdict(list)
    for (name, _), accuracy in dense.items():
        by_name[name].append(accuracy)
    return {name: spread(found) for name, found in by_name.items()}


def parts(losses: Losses) -> dict[str, list[Plan]]:
    """Which plans stand in which table, the best at 90 % first."""
    found = {
        "Criteria under LAMP, BatchNorm repaired": [p for p in losses if p[1:] == ("lamp", "bn")],
        "Criteria under LAMP, least squares": [p for p in losses if p[1:] == ("lamp", "lsq")],
        "Allocations, least squares": [p for p in losses if p[2] == "lsq" and p[1] != "lamp"],
        "Other repairs": [p for p in losses if p[2] in ("mean", "bn+tune", "obs+tune", "tune")],
        "Whole combinations": [p for p in losses if {0.5, 0.98} & losses[p].keys()],
    }
    return {
        title: sorted(plans, key=lambda plan: rank(losses[plan]))
        for title, plans in found.items()
        if plans
    }


def rank(found: dict[float, dict[tuple[str, int], float]]) -> float:
    """Mean loss at 90 %, or at the highest sparsity that was measured."""
    return statistics.mean((found.get(0.9) or found[max(found)]).values())


def table(losses: Losses, plans: list[Plan], seconds: dict[Plan, list[float]]) -> str:
    """Rows of mean and standard deviation over networks and seeds."""
    sparsities = sorted({sparsity for plan in plans for sparsity in losses[plan]})
    head = [*(f"{s:.0%}" for s in sparsities), "s"]
    lines = [
        f"| criterion | allocation | repair | {' | '.join(head)} |",
        "|---" * (len(head) + 3) + "|",
    ]
    for plan in plans:
        cells = [spread([*losses[plan].get(s, {}).values()]) for s in sparsities]
        took = f"{statistics.median(seconds[plan]):.0f}"
        lines.append(f"| {' | '.join([*plan, *cells, took])} |")
    count = {len(nets) for plan in plans for nets in losses[plan].values()}
    return "\n".join([*lines, "", f"n = {', '.join(map(str, sorted(count)))} networks and seeds"])


def paired(losses: Losses, changed: Changed) -> str:
    """Rows of what a plan loses more than the default on the same networks and images.

    Mean and its standard error over networks and seeds, which holds what the choice of test images
    does too; in brackets how many networks have both.
    """
    sparsities = sorted({s for plan in (CLOSED, TUNED) for s in losses[plan]})
    head = [f"{s:.0%}" for s in sparsities]
    lines = [f"| plan | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for plan in losses:
        apart = [
            [
                losses[plan][s][net] - lost
                for net, lost in collect_default(losses, s, changed).items()
                if net in losses[plan].get(s, {})
            ]
            for s in sparsities
        ]
        lines.append(f"| {' | '.join([' '.join(plan), *map(_with_error, apart)])} |")
    return "\n".join(lines)


def by_network(losses: Losses, dense: dict[tuple[str, int], float]) -> str:
    """Rows of what the closed form and the tuned one lose, mean over the seeds of each network."""
    sparsities = sorted({s for plan in (CLOSED, TUNED) for s in losses[plan]})
    head = [f"{s:.0%}" for s in sparsities]
    lines = [f"| network (dense) | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for name in sorted({name for name, _ in dense}):
        mean = statistics.mean(v for (own, _), v in dense.items() if own == name)
        cells = [
            ", ".join(
                f"{statistics.mean(found):.1f}"
                for plan in (CLOSED, TUNED)
                if (found := [v for (own, _), v in losses[plan].get(s, {}).items() if own == name])
            )
            for s in sparsities
        ]
        lines.append(f"| {' | '.join([f'{name} ({mean:.1f})', *cells])} |")
    return "\n".join(lines)


def _with_error(apart: list[float]) -> str:
    if len(apart) < 2:
        return "-"
    error = statistics.stdev(apart) / len(apart) ** 0.5
    return f"{statistics.mean(apart):+.1f} ± {error:.1f} ({len(apart)})"


def spread(found: list[float]) -> str:
    """Mean ± standard deviation."""
    if not found:
        return ""
    apart = statistics.stdev(found) if len(found) > 1 else 0.0
    return f"{statistics.mean(found):.1f} ± {apart:.1f}"


def draw(path: Path, losses: Losses) -> None:
    """Plans by sparsity, coloured by the mean loss of accuracy."""
    sparsities = sorted({sparsity for found in losses.values() for sparsity in found})
    rows = {
        " ".join(plan): [
            statistics.mean(found[s].values()) if found.get(s) else None for s in sparsities
        ]
        for plan, found in sorted(losses.items(), key=lambda item: rank(item[1]))
    }
    panel = HeatPanel(title="", columns=[f"{s:.0%}" for s in sparsities], rows=rows)
    plot_heat(
        [path],
        [panel],
        measure="points of accuracy below dense",
        conditions="One-shot pruning, mean over networks and seeds",
        text=lambda value: f"{value:.1f}",
        highest=40,
    )


def draw_networks(path: Path, losses: Losses, changed: Changed) -> None:
    """Networks by sparsity, a panel for the default and for each plan without gradient steps.

    Mean over the seeds that were measured; the last row is the mean over the networks, where all
    of them were.
    """
    sparsities = sorted(losses[CLOSED])
    default = {s: collect_default(losses, s, changed) for s in sparsities}
    shown = {DEFAULT: default, **{name: losses[plan] for name, plan in UNTUNED.items()}}
    names = sorted({name for lost in shown.values() for s in sparsities for name, _ in lost[s]})
    plot_heat(
        [path],
        [
            HeatPanel(
                title=title,
                columns=[f"{100 * s:g}" for s in sparsities],
                rows=_average_networks([lost[s] for s in sparsities], names),
            )
            for title, lost in shown.items()
        ],
        measure="points of accuracy below dense",
        conditions=f"One-shot pruning of {len(names)} trained networks",
        text=lambda value: f"{value:.1f}",
        highest=40,
    )


def _average_networks(
    columns: list[dict[tuple[str, int], float]], names: list[str]
) -> dict[str, list[float | None]]:
    """A row for each network and one for their mean, a number for each column; None: unknown."""
    rows: dict[str, list[float | None]] = {
        name: [_mean([v for (own, _), v in lost.items() if own == name]) for lost in columns]
        for name in names
    }
    by_column = zip(*rows.values(), strict=True)
    return {**rows, "mean": [None if None in found else _mean(found) for found in by_column]}


def _mean(found: Iterable[float | None]) -> float | None:
    known = [value for value in found if value is not None]
    return statistics.mean(known) if known else None
