"""What is typed to run every command once, but for the device."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from snnprune.pruning.allocation import ALLOCATIONS
from snnprune.pruning.criteria import CRITERIA
from snnprune.pruning.repair import REPAIRS

NETWORKS = ("SpikingJelly at once", "SpikingJelly stepwise", "snnTorch", "sinabs", "tied")
"""Of pruned_networks.py."""
PLANTED = ("two_devices", "other_generator", "in_numpy", "for_cpus_alone")
"""Functions of faults.py."""
IMAGES = ("--data", "tensors:images.safetensors")
FEW = (*IMAGES, "--samples", "12")
CUT = ("--sparsity", "0.5", "-o", "p.safetensors", "--force")
LOOP = ("--recipe", "recipe.yaml", "--out", "run", "--force")


def commands() -> Iterator[tuple[str, ...]]:
    """What is typed, in this order."""
    yield "inspect", "a.safetensors"
    yield "calibrate", "a.safetensors", "-o", "calibration.safetensors", *FEW
    for name in CRITERIA.rows:
        yield "score", "a.safetensors", "--criterion", name, "-o", f"{name}.safetensors", *FEW
    yield from prunings()
    yield "prune", "a.safetensors", *FEW, *CUT
    yield "eval", "a.safetensors", *IMAGES
    yield "diff", "a.safetensors", "p.safetensors", *IMAGES, "-v"
    limits = ("--min-spike-agreement", "0.1", "--max-dead", "100%", "--max-accuracy-drop", "99")
    yield "check", "p.safetensors", "--baseline", "a.safetensors", *IMAGES, *limits
    shares = ("--sparsities", "0.5", "--sparsity", "0.4")
    yield "sensitivity", "a.safetensors", *FEW, *shares, "-o", "sensitivity"
    yield from trainings()
    yield "theory", "crisis", "a.safetensors", *FEW
    yield "theory", "crisis", "a.safetensors", *FEW, "--noise", "0.1"
    yield "analyze", "quantize", "a.safetensors", *FEW, "--bits", "4"
    yield "analyze", "lowrank", "a.safetensors", *FEW, "--keep", "0.5"
    yield "analyze", "prune", "a.safetensors", *FEW, "--sparsity", "0.5"
    for kind in ("gaussian", "delete", "insert", "jitter"):
        noise = ("--kind", kind, "--level", "0.1", "--time-axis", "2")
        yield "analyze", "noise", "a.safetensors", *FEW, *noise
    yield "demo", "--out", "demo"


def prunings() -> Iterator[tuple[str, ...]]:
    """The ways to prune, but for the criteria."""
    quick = ("prune", "a.safetensors", *FEW, *CUT, "--no-eval")
    for name in (*REPAIRS.rows, "obs+tune"):
        tuning = ("--tune-steps", "6") if "tune" in name else ()
        yield *quick, "--criterion", "sf", "--repair", name, *tuning
    for name in ALLOCATIONS.rows:
        criterion = "magnitude" if name == "global" else "sf"
        yield *quick, "--allocation", name, "--criterion", criterion, "--sparsity", "0.2"
    simple = ("--criterion", "sf", "--repair", "bn")
    yield *quick, "--structure", "2:4", *simple
    yield *quick, "--structure", "channels", *simple
    yield *quick, "--steps", "2", *simple
    within = ("--max-fan-in", "6", "--min-per-channel", "2", "--max-synops", "900")
    cut = ("prune", "a.safetensors", *FEW, "-o", "p.safetensors", "--force", *within)
    yield *cut, "--criterion", "magnitude", "--repair", "obs"
    yield *cut, "--repair", "tune", "--criterion", "magnitude", "--tune-steps", "6"
    yield *quick, "--bits", "4", *simple
    yield *quick, "--chip", "chip.yaml", *simple
    yield "check", "p.safetensors", *IMAGES, "--chip", "chip.yaml"
    yield *quick, "--calibration", "calibration.safetensors", *simple


def trainings() -> Iterator[tuple[str, ...]]:
    """Loops, with much that a recipe may ask for."""
    yield "train", *LOOP
    yield "train", *LOOP, "--dry-run"
    yield (
        "train",
        *LOOP,
        *settings(
            "training.optimizer=adamw",
            "training.channels_last=true",
            "training.clip_norm=1.0",
            "training.ema=0.9",
            "training.accumulate=2",
            "training.label_smoothing=0.1",
            "gradual.sparsity=0.5",
            "gradual.steps=2",
            "gradual.criterion=sf",
        ),
    )
    yield "finetune", "p.safetensors", "--teacher", "a.safetensors", *LOOP
    yield "imp", *LOOP
    surgery = ("imp.methods=[sf-imp-2]", "imp.surgery=dns", "imp.early_time_steps=1")
    yield "imp", *LOOP, *settings(*surgery, "imp.early_bird=0.5")
    yield "search", *LOOP


def for_gpus() -> Iterator[tuple[str, ...]]:
    """What is refused without one."""
    yield "train", *LOOP, "--dry-run", *settings("training.precision=fp16")


def of_libraries() -> Iterator[tuple[str, ...]]:
    """What runs a network in other ways than the others do."""
    for number in range(len(NETWORKS)):
        file = f"{number}.pth"
        mine = ("--data", "tensors:images.safetensors", "--model", f"networks.py:made_{number}")
        for criterion in ("sf", "fisher", "grasp", "synflow", "obs-membrane"):
            yield "score", file, "--criterion", criterion, *mine
        yield "prune", file, "--repair", "obs+tune", "--tune-steps", "6", *CUT, *mine
        yield "theory", "crisis", file, *mine


def planted() -> Iterator[tuple[str, ...]]:
    """Faults in a user's own function, of which only a GPU complains."""
    for name in PLANTED:
        yield "eval", "a.safetensors", *IMAGES, "--readout", f"faults.py:{name}"


def settings(*texts: str) -> tuple[str, ...]:
    """A flag for each."""
    return tuple(itertools.chain.from_iterable(("--set", text) for text in texts))
