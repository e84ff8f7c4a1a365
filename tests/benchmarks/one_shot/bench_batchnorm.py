"""Repairs of one function that is written with three kinds of BatchNorm statistics.

    python tests/benchmarks/one_shot/bench_one_shot.py train RUNS
    python tests/benchmarks/one_shot/bench_batchnorm.py RUNS [--data-root DIR] [--tested N]

As trained, *frozen* (mean 0 and variance 1) and *stale* (variance four times too large, mean off by
half a deviation). Prints a table of accuracies in percent; `--data-root` measures on all of
Fashion-MNIST's test images, else on the bundled ones.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from bench_one_shot import NETWORKS, WHOLE, Network, measured
from torch import nn

from snnprune.pruning.oneshot import Plan

sys.path.insert(0, str(Path(__file__).parents[2] / "repair"))

from rewriting import rewrite

FORMS = ("trained", "frozen", "stale")
SPARSITIES = (0.1, 0.5, 0.7, 0.9)
LAMP = Plan(criterion="magnitude", allocation="lamp")
PLANS = {
    **{name: replace(LAMP, repair=name) for name in ("none", "bn", "lsq")},
    "obs": Plan(criterion="sf-obs", allocation="lamp-magnitude", repair="obs"),
    "tune": replace(LAMP, repair="tune"),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--tested", type=int, default=3000)
    parser.add_argument("--networks", nargs="*", default=["plain-4", "res-4", "soft-2"])
    chosen = parser.parse_args()
    print(f"| network | repair | {' | '.join(f'{s:.0%}' for s in SPARSITIES)} |")
    print("|---|---|" + "---|" * len(SPARSITIES))
    for name in chosen.networks:
        written = [opened(name, form, chosen) for form in FORMS]
        dense = written[0].accuracy()
        for repair, plan in PLANS.items():
            cells = [
                ", ".join(f"{measured(one, plan, sparsity)['accuracy']:.1f}" for one in written)
                for sparsity in SPARSITIES
            ]
            print(f"| {name} ({dense:.1f}) | {repair} | {' | '.join(cells)} |", flush=True)


def opened(name: str, form: str, chosen: argparse.Namespace) -> Network:
    """A network with its statistics in that form."""

    def change(module: nn.Module) -> None:
        if form != "trained":
            rewrite(module, form)

    whole = WHOLE if chosen.data_root else None
    return Network(
        chosen.runs / f"{name}-0",
        NETWORKS[name],
        0,
        chosen.data_root,
        test_data=whole,
        tested=chosen.tested,
        change=change,
    )


if __name__ == "__main__":
    main()
