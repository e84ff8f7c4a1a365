"""One-shot pruning of trained networks: criteria, allocations and repairs side by side.

    python tests/benchmarks/one_shot/bench_one_shot.py train RUNS [--data-root DIR]
    python tests/benchmarks/one_shot/bench_one_shot.py measure RUNS [--data-root DIR] [--tested N]
    python tests/benchmarks/one_shot/bench_one_shot.py table RUNS

`train` trains the networks below with three seeds each, those of a library with one, on the
bundled images but for two that take all of Fashion-MNIST and are left out where that is not there.
`measure` prunes each by every plan to every sparsity, with 1,024 unlabelled training images to
calibrate on, and adds a line to RUNS/results.jsonl for each; what is there is not done again, so it
may be stopped at any time, and `--part`, `--seed`, `--network` and `--sparsity` may share the work.
With `--data-root` the test images are those of all of Fashion-MNIST, of which the bundled ones are
a part, 3,000 or as many as `--tested` says.
`table` prints means and spreads and draws the heat maps.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from snnprune.jobs.prune.methods import LEAST, MINUTE, STEPS
from snnprune.jobs.targets.opening import open_target
from snnprune.jobs.targets.options import TargetOptions
from snnprune.measure.evaluation import evaluate
from snnprune.pruning.criteria import CRITERIA
from snnprune.pruning.oneshot import BEGIN, OneShot, Plan
from snnprune.pruning.repair import TuneSettings
from snnprune.pruning.repair.tuning import measure_step

OWN = Path(__file__).with_name("networks.py")
LIBRARY = Path(__file__).with_name("library_networks.py")
SEEDS = (0, 1, 2)
BUNDLED, WHOLE = "fashion-mnist-mini", "fashion-mnist"
TESTED, BUNDLED_TESTED = 3000, 1000  # test images of all of Fashion-MNIST, or the bundled ones


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network of the benchmark, and how it is trained."""

    model: str = "conv-snn"
    args: dict[str, Any] = field(default_factory=dict)
    data: str = BUNDLED
    epochs: int = 8
    learning_rate: float = 0.1
    optimizer: str = "sgd"
    seeds: tuple[int, ...] = SEEDS


NETWORKS = {
    "plain-4": Trained(args={"width": 16, "depth": 4, "time_steps": 4}),
    "res-4": Trained(model=f"{OWN}:small_resnet", args={"width": 12, "time_steps": 4}),
    "soft-2": Trained(
        args={"width": 16, "depth": 3, "time_steps": 2, "neuron": {"reset": "soft", "beta": 0.75}}
    ),
    "narrow-8": Trained(args={"width": 8, "depth": 4, "time_steps": 8}),
    "bare-4": Trained(model=f"{OWN}:bare", args={"width": 16, "time_steps": 4}, learning_rate=0.05),
    "fmnist-4": Trained(args={"width": 16, "depth": 4, "time_steps": 4}, data=WHOLE, epochs=3),
}
UNTUNED = {
    "sew-resnet": Trained(model=f"{LIBRARY}:sew_resnet", seeds=(0,)),
    "spiking-vgg": Trained(model=f"{LIBRARY}:spiking_vgg", seeds=(0,)),
    "spikformer": Trained(
        model=f"{LIBRARY}:spikformer", optimizer="adamw", learning_rate=0.002, seeds=(0,)
    ),
    "row-by-row": Trained(
        model=f"{LIBRARY}:row_by_row",
        data=WHOLE,
        epochs=4,
        optimizer="adamw",
        learning_rate=0.01,
        seeds=(0,),
    ),
}
"""Networks of a library, on which nothing was chosen: what holds on the others should here."""
EVERY = {**NETWORKS, **UNTUNED}

PLAIN = Plan(criterion="magnitude", allocation="lamp", repair="bn")
"""What `prune` takes where no more than half of the weights go."""
Cell = tuple[Plan, float]


def criteria() -> Iterator[Cell]:
    """Every criterion under LAMP, then with least squares."""
    for sparsity in (0.9, 0.7, 0.95):
        for name in CRITERIA.rows:
            yield Plan(criterion=name, allocation="lamp", repair="bn"), sparsity
    for name in ("magnitude", "wanda", "sf", "sf-std", "fisher", "obs", "obs-membrane", "sf-obs"):
        yield Plan(criterion=name, allocation="lamp", repair="lsq"), 0.9


def allocations() -> Iterator[Cell]:
    """Every allocation, repaired by least squares."""
    for name in ("global", "local", "flips", "erk", "uniform-plus"):
        yield Plan(criterion="magnitude", allocation=name, repair="lsq"), 0.9
    yield Plan(criterion="sf-obs", allocation="global", repair="lsq"), 0.9


def defaults() -> Iterator[Cell]:
    """What `prune` takes without flags, and with `--no-tune`."""
    tuned = Plan(
        criterion="magnitude",
        allocation="lamp",
        repair="tune",
        tuning=TuneSettings(augment=("flip",)),
    )
    for sparsity in (0.95, 0.9, 0.98, 0.8, 0.7, 0.5):
        yield replace(tuned, repair="obs"), sparsity
        yield tuned, sparsity


def peers() -> Iterator[Cell]:
    """Spiking Brain Compression; and by hand: masks by magnitude, then training by labels."""
    by_hand = Plan(
        criterion="magnitude",
        allocation="global",
        repair="tune",
        tuning=TuneSettings(use_labels=True, augment=("flip",)),
    )
    for sparsity in (0.9, 0.95, 0.98, 0.8, 0.7, 0.5):
        yield Plan(criterion="sbc", allocation="lamp", repair="sbc+bn"), sparsity
        yield by_hand, sparsity


def untuned() -> Iterator[Cell]:
    """What takes no gradient step: the closed form, Spiking Brain Compression, magnitude."""
    for sparsity in (0.9, 0.95, 0.98):
        for repair in ("none", "bn"):
            yield Plan(criterion="magnitude", allocation="global", repair=repair), sparsity
        yield replace(PLAIN, repair="obs"), sparsity
        yield PLAIN, sparsity
        yield Plan(criterion="sbc", allocation="lamp", repair="sbc+bn"), sparsity


def repairs() -> Iterator[Cell]:
    """Every repair, the main ones from 50 to 98 %."""
    own = Plan(criterion="sf-obs", allocation="lamp-magnitude", repair="obs")
    lamp = Plan(criterion="magnitude", allocation="lamp")
    plain = Plan(criterion="magnitude", allocation="global")
    for sparsity in (0.9, 0.95, 0.7, 0.8, 0.98, 0.5):
        yield own, sparsity
        yield replace(own, repair="lsq"), sparsity
        yield replace(lamp, repair="lsq"), sparsity
        yield replace(lamp, repair="bn"), sparsity
        yield plain, sparsity
        yield replace(plain, repair="bn"), sparsity
    for sparsity in (0.9, 0.95):
        yield replace(own, repair="obs+tune"), sparsity
    yield replace(lamp, repair="bn+tune"), 0.9
    yield replace(lamp, repair="mean"), 0.9


def plain() -> Iterator[Cell]:
    """By magnitude with nothing mended, or BatchNorms alone."""
    for sparsity in (0.5, 0.7, 0.8):
        for allocation, repair in (("global", "none"), ("global", "bn"), ("lamp", "bn")):
            yield Plan(criterion="magnitude", allocation=allocation, repair=repair), sparsity


PARTS = {
    "defaults": defaults,
    "plain": plain,
    "peers": peers,
    "untuned": untuned,
    "repairs": repairs,
    "criteria": criteria,
    "allocations": allocations,
}


def train(runs: Path, data_root: Path | None, networks: Mapping[str, Trained]) -> None:
    """Train what is not there."""
    for seed in SEEDS:
        for name, net in networks.items():
            folder = runs / f"{name}-{seed}"
            if (folder / "model.safetensors").exists() or seed not in net.seeds:
                continue
            if net.data == WHOLE and not data_root:
                continue
            settings = {
                "model.name": net.model,
                "model.args": json.dumps(net.args),
                "data.name": net.data,
                "training.epochs": net.epochs,
                "training.learning_rate": net.learning_rate,
                "training.optimizer": net.optimizer,
                "seed": seed,
            }
            flags = [flag for k, v in settings.items() for flag in ("--set", f"{k}={v}")]
            where = ["--data-root", str(data_root)] if data_root else []
            command = ["train", "--recipe", BUNDLED, "--out", str(folder), *where, *flags]
            subprocess.run([sys.executable, "-m", "snnprune", *command], check=True)


class Network:
    """A trained network, its images in memory, ready to be pruned again and again."""

    def __init__(
        self,
        folder: Path,
        net: Trained,
        seed: int,
        data_root: Path | None = None,
        *,
        test_data: str | None = None,
        tested: int = BUNDLED_TESTED,
        change: Callable[[nn.Module], None] | None = None,
    ) -> None:
        """`change` is done to the network after it was loaded; `test_data` as in the command."""
        built_in = ":" not in net.model
        self.subject = open_target(
            TargetOptions(
                checkpoint=folder / "model.safetensors",
                model=None if built_in else net.model,
                model_args={} if built_in else net.args,
                data=net.data,
                test_data=test_data,
                data_root=data_root,
                seed=seed,
            )
        )
        calibration = list(self.subject.calibration_batches())
        self.tests = list(self.subject.batches("test", tested))
        if change is not None:
            change(self.subject.require_runnable().module)
        self.one_shot = OneShot(
            self.subject.require_runnable(),
            self.subject.find_weights(),
            batches=lambda: iter(calibration),
            tuning_batches=self.subject.batches("train", TuneSettings().images),
            seed=seed,
        )

    def count_steps(self) -> int:
        """As many as `prune` takes by itself on a CPU."""
        cost = measure_step(self.subject.require_runnable(), self.subject.calibration_batches())
        return min(STEPS, MINUTE // cost.multiply_adds)

    def accuracy(self) -> float:
        """On the test images, in percent."""
        found = evaluate(
            self.subject.require_runnable(),
            iter(self.tests),
        )
        assert found.accuracy is not None
        return 100 * found.accuracy


def measure(
    runs: Path,
    data_root: Path | None,
    parts: list[str],
    seeds: list[int],
    networks: list[str],
    sparsities: list[float] | None,
    tested: int,
) -> None:
    """Measure what has no line yet, at the sparsities given or at all."""
    results = runs / "results.jsonl"
    lines = results.read_text("utf-8").splitlines() if results.exists() else []
    done = {tuple(json.loads(line)["key"]) for line in lines}
    for part in parts:
        for seed in seeds:
            for name in networks:
                if not (runs / f"{name}-{seed}" / "model.safetensors").exists():
                    continue
                cells: list[tuple[Plan | None, float]] = [(None, 0.0)]
                cells += [c for c in PARTS[part]() if not sparsities or c[1] in sparsities]
                wanted = [cell for cell in cells if key_of(name, seed, *cell) not in done]
                if not wanted:
                    continue
                network = Network(
                    runs / f"{name}-{seed}",
                    EVERY[name],
                    seed,
                    data_root,
                    test_data=WHOLE if data_root else None,
                    tested=tested,
                )
                for plan, sparsity in wanted:
                    row = measured(network, plan, sparsity)
                    row["key"] = key_of(name, seed, plan, sparsity)
                    done.add(tuple(row["key"]))
                    with results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")


def key_of(name: str, seed: int, plan: Plan | None, sparsity: float) -> tuple[Any, ...]:
    """What tells one measurement from all others."""
    if plan is None:
        return (name, seed, "dense", "", "", sparsity)
    return (name, seed, plan.criterion, plan.allocation, plan.repair, sparsity)


def measured(network: Network, plan: Plan | None, sparsity: float) -> dict[str, Any]:
    """One line of the results."""
    if plan is None:
        network.one_shot.restore()
        return {"accuracy": network.accuracy(), "seconds": 0.0}
    begun = time.perf_counter()
    if plan.tunes:
        steps = network.count_steps()
        if steps < LEAST:  # as `prune` has it, which then takes the closed form
            return {"accuracy": None, "error": f"not tuned: {steps} steps", "seconds": 0.0}
        plan = replace(plan, tuning=replace(plan.tuning, steps=steps))
    try:
        # by hand masks are made once, and hold while the network is trained on
        network.one_shot.prune(plan, sparsity, structured=plan.tuning.use_labels)
    except Exception as error:  # a plan that does not fit a network is a result too
        return {"accuracy": None, "error": str(error), "seconds": 0.0}
    seconds = time.perf_counter() - begun
    judged = {}
    if plan == PLAIN and sparsity <= BEGIN:
        judged = {"same": network.one_shot.measure_same_decisions()}
    return {"accuracy": network.accuracy(), "seconds": round(seconds, 2), **judged}


def main() -> None:
    """Run one of the three commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["train", "measure", "table"])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--network", choices=list(EVERY), action="append")
    parser.add_argument("--tested", type=int)
    parser.add_argument("--part", choices=list(PARTS), action="append")
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--sparsity", type=float, action="append")
    chosen = parser.parse_args()
    if chosen.command == "train":
        train(chosen.runs, chosen.data_root, EVERY)
    elif chosen.command == "measure":
        parts, seeds = chosen.part or list(PARTS), chosen.seed or list(SEEDS)
        tested = chosen.tested or (TESTED if chosen.data_root else BUNDLED_TESTED)
        networks = chosen.network or list(EVERY)
        measure(chosen.runs, chosen.data_root, parts, seeds, networks, chosen.sparsity, tested)
    else:
        from tables import show  # beside this file

        show(chosen.runs / "results.jsonl")


if __name__ == "__main__":
    main()
