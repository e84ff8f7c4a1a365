"""What the lines of the one-shot benchmark come to: tables in Markdown and a heat map."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path

from snnprune.report.plots.layers import HeatPanel, plot_heat

Plan = tuple[str, str, str]
"""Criterion, allocation, repair."""
Losses = dict[Plan, dict[float, dict[tuple[str, int], float]]]
"""Points of accuracy below the dense network, by plan, sparsity, network and seed."""


DEFAULT: Plan = ("magnitude", "lamp", "tune")
"""What `prune` takes without flags."""


def show(results: Path) -> None:
    """Print the tables and draw `one-shot.png` beside `results`."""
    losses, dense, seconds = read(results)
    print(f"dense: {', '.join(f'{k} {v}' for k, v in dense_line(dense).items())}\n")
    for title, chosen in parts(losses).items():
        print(f"{title}\n\n{table(losses, chosen, seconds)}\n")
    print(f"More lost than by {' '.join(DEFAULT)}, network by network\n\n{paired(losses)}\n")
    every = {plan: losses[plan] for chosen in parts(losses).values() for plan in chosen}
    draw(results.with_name("one-shot.png"), every)


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
        title: sorted(plans, key=lambda p: statistics.mean(losses[p][0.9].values()))
        for title, plans in found.items()
        if plans
    }


def table(losses: Losses, plans: list[Plan], seconds: dict[Plan, list[float]]) -> str:
    """Rows of mean and standard deviation over networks and seeds."""
    sparsities = sorted({sparsity for plan in plans for sparsity in losses[plan]})
    head = [*(f"{s:.0%}" for s in sparsities), "s"]
    lines = [
        f"| criterion | allocation | repair | {' | '.join(head)} |",
        "|---" * (len(head) + 3) + "|",
    ]
    for plan in plans:
        cells = [spread([*losses[plan][s].values()]) for s in sparsities]
        took = f"{statistics.median(seconds[plan]):.0f}"
        lines.append(f"| {' | '.join([*plan, *cells, took])} |")
    count = {len(losses[plan][0.9]) for plan in plans}
    return "\n".join([*lines, "", f"n = {', '.join(map(str, sorted(count)))} networks and seeds"])


def paired(losses: Losses, than: Plan = DEFAULT) -> str:
    """Rows of what a plan loses more than another on the same networks and images.

    Mean and its standard error over networks and seeds, which holds what the choice of test images
    does too; in brackets how many networks have both.
    """
    sparsities = sorted(losses[than])
    head = [f"{s:.0%}" for s in sparsities]
    lines = [f"| plan | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for plan in losses:
        if plan == than:
            continue
        apart = [
            [
                losses[plan][s][net] - lost
                for net, lost in losses[than][s].items()
                if net in losses[plan].get(s, {})
            ]
            for s in sparsities
        ]
        lines.append(f"| {' | '.join([' '.join(plan), *map(_with_error, apart)])} |")
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
            statistics.mean(found[s].values()) if found[s] else None for s in sparsities
        ]
        for plan, found in sorted(
            losses.items(), key=lambda item: statistics.mean(item[1][0.9].values())
        )
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
