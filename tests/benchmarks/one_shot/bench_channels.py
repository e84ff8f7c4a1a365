"""Whole channels out of trained networks: criteria and repairs side by side.

    python tests/benchmarks/one_shot/bench_channels.py RUNS

Trains a plain and a residual network with three seeds each on the bundled images if RUNS has none,
takes channels out with 1,024 unlabelled training images to calibrate on, and prints points of
accuracy below the dense network on 1,000 test images. What RUNS/channels.jsonl has is not measured
again.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any

from bench_one_shot import OWN, SEEDS, Network, Trained, train
from tables import spread

from snnprune.pruning.oneshot import Plan
from snnprune.pruning.structure.channels import ChannelCutting

NETWORKS = {
    "conv-snn": Trained(args={"width": 8, "depth": 4, "time_steps": 2}, epochs=6),
    "resnet": Trained(model=f"{OWN}:small_resnet", args={"width": 8, "time_steps": 2}, epochs=6),
}
SPARSITIES = (0.1, 0.3, 0.5)
PLANS = (
    *(Plan(criterion=c, repair=r) for c, r in product(("magnitude", "sf"), ("none", "bn", "lsq"))),
    Plan(criterion="sf-obs", repair="obs"),  # what `prune` takes without flags
)


def measure(runs: Path, results: Path) -> None:
    """Measure what has no line yet."""
    lines = results.read_text("utf-8").splitlines() if results.exists() else []
    done = {tuple(json.loads(line)["key"]) for line in lines}
    for name, seed in product(NETWORKS, SEEDS):
        cells = [*product(PLANS, SPARSITIES)]
        wanted = [c for c in cells if (name, seed, c[0].criterion, c[0].repair, c[1]) not in done]
        if not wanted:
            continue
        network = Network(runs / f"{name}-{seed}", NETWORKS[name], seed)
        network.one_shot.restore()
        dense = network.accuracy()
        for plan, sparsity in wanted:
            row = measured(network, plan, sparsity) | {"dense": dense}
            row["key"] = [name, seed, plan.criterion, plan.repair, sparsity]
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def measured(network: Network, plan: Plan, sparsity: float) -> dict[str, Any]:
    """Accuracy without channels, and the share of weights and of channels that is gone."""
    cutting = ChannelCutting(network.subject.require_runnable())
    cut = network.one_shot.prune(plan, sparsity, cutting, structured=True)
    kept = cutting.removed.kept.values()
    return {
        "accuracy": network.accuracy(),
        "channels": 1 - sum(int(one.sum()) for one in kept) / sum(map(len, kept)),
        "weights": 1
        - sum(int(mask.sum()) for mask in cut.masks.values())
        / sum(mask.numel() for mask in cut.masks.values()),
    }


def show(results: Path) -> None:
    """Mean and standard deviation over seeds, network by network."""
    rows = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
    for name in NETWORKS:
        mine = [row for row in rows if row["key"][0] == name]
        dense = spread([*{row["key"][1]: row["dense"] for row in mine}.values()])
        losses: dict[tuple[str, str], dict[float, list[float]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for row in mine:
            _, _, criterion, repair, sparsity = row["key"]
            losses[criterion, repair][sparsity].append(row["dense"] - row["accuracy"])
        print(f"\n{name}, dense {dense}\n")
        print(f"| criterion | repair | {' | '.join(f'{s:.0%}' for s in SPARSITIES)} |")
        print("|---" * (2 + len(SPARSITIES)) + "|")
        for plan, found in losses.items():
            print(f"| {' | '.join([*plan, *(spread(found[s]) for s in SPARSITIES)])} |")
        gone = [[r["weights"] for r in mine if r["key"][-1] == s] for s in SPARSITIES]
        print("\nweights gone:", ", ".join(f"{sum(one) / len(one):.0%}" for one in gone))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    train(folder, None, NETWORKS)
    measure(folder, folder / "channels.jsonl")
    show(folder / "channels.jsonl")
