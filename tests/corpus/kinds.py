"""The kinds of files in the corpus, and the commands that read each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Command = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """`{file}` in a command is the file at fault, `{here}` its folder, `{out}` an empty one."""

    file: str
    """Its name: a refusal names it."""
    command: Command
    """Refuses what is bad of the kind, and reads what is good."""
    others: tuple[Command, ...] = ()
    """Read it too, perhaps less of it: each ends as `command`, or with one of LOOSE."""
    named: tuple[str, ...] = ()
    """What a refusal may name in place of the file: the flag that it was given by."""
    several: bool = False
    """Whether a refusal has a line for each fault that was found."""
    touches: tuple[str, ...] = ()
    """Beginnings of names in the folder of a case that the command may change."""

    def lines(self, here: Path, out: Path, bench: Path) -> list[list[str]]:
        """The commands, the strict one first."""
        names = {"here": here, "file": here / self.file, "out": out, "bench": bench}
        return [[word.format(**names) for word in line] for line in (self.command, *self.others)]


LOOSE = (0, 3, 4)

SCORE = ("score", "{file}", "--criterion", "magnitude", "-o", "{out}/s.safetensors", "-q")
INSPECT = ("inspect", "{file}")
PRUNE = (
    *("prune", "{file}", "--criterion", "magnitude", "--repair", "none", "--no-eval"),
    *("--sparsity", "0.5", "-o", "{out}/p.safetensors", "-q"),
)
EXPORT = ("export", "{file}", "--to", "packed", "-o", "{out}/e.safetensors")
DIFF = ("diff", "{bench}/model.safetensors", "{file}")
CHECK = ("check", "{file}", "--min-sparsity", "0", "--json")
WHOLE = (INSPECT, PRUNE, EXPORT, DIFF, CHECK)
DATA = ("--data", "tensors:{bench}/images.safetensors")
RESUMED = ("--resume", "--out", "{here}/run")
OF_RUN = ("run/",)


def checkpoint(file: str, *named: str) -> Kind:
    return Kind(file=file, command=SCORE, others=WHOLE, named=named)


def run(loop: str, file: str, *named: str, several: bool = False) -> Kind:
    """A run folder that is taken up, at fault by that file of it."""
    given = ("{bench}/pruned.safetensors",) if loop == "finetune" else ()
    command = (loop, *given, *RESUMED)
    return Kind(file=file, command=command, named=named, several=several, touches=OF_RUN)


STATE = "run"
"""What is refused for a state that does not fit may name another file of the run."""
KINDS = {
    "safetensors": checkpoint("model.safetensors"),
    "shards": checkpoint("model.safetensors.index.json", "b.safetensors"),
    "torch": checkpoint("model.pth"),
    "torch of attackers": Kind(file="model.pth", command=SCORE, others=(INSPECT,)),
    "packed": checkpoint("packed.safetensors"),
    "nir": Kind(
        file="graph.nir",
        command=SCORE,
        others=(INSPECT, DIFF, CHECK, (*PRUNE[:-2], "{out}/p.nir", "-q")),
    ),
    "calibration": Kind(
        file="calibration.safetensors",
        command=(
            *("score", "{bench}/model.safetensors", *DATA, "--criterion", "sf"),
            *("--calibration", "{file}", "-o", "{out}/s.safetensors"),
        ),
        others=(
            (
                *("prune", "{bench}/model.safetensors", *DATA, "--calibration", "{file}"),
                *("--sparsity", "0.5", "-o", "{out}/p.safetensors"),
            ),
            (
                *("sensitivity", "{bench}/model.safetensors", *DATA, "--calibration", "{file}"),
                *("--sparsities", "0.5", "--sparsity", "0.5", "-o", "{out}/sensitivity"),
            ),
        ),
    ),
    "scores": Kind(file="scores.safetensors", command=INSPECT, others=(DIFF, CHECK)),
    "mask": Kind(
        file="mask.safetensors",
        command=(
            *("finetune", "{bench}/pruned.safetensors", "--masks", "{file}", "--dry-run"),
            *("--recipe", "{bench}/recipe.yaml", "--out", "{out}/run"),
        ),
        others=(INSPECT,),
    ),
    "tensors": Kind(
        file="images.safetensors",
        named=("--data", "--model", "data.name"),
        command=(
            *("calibrate", "{bench}/model.safetensors", "--data", "tensors:{file}"),
            *("-o", "{out}/c.safetensors"),
        ),
        others=(
            ("eval", "{bench}/model.safetensors", "--data", "tensors:{file}"),
            (
                *("train", "--recipe", "{bench}/recipe.yaml", "--dry-run", "--out", "{out}/run"),
                *("--set", "data.name=tensors:{file}"),
            ),
        ),
    ),
    "idx": Kind(
        file="mnist",
        named=("--model",),
        command=(
            *("calibrate", "{bench}/model.safetensors", "--data", "mnist", "--data-root", "{here}"),
            *("-o", "{out}/c.safetensors"),
        ),
    ),
    "cifar": Kind(
        file="cifar-10-batches-py",
        command=(
            *("train", "--recipe", "{bench}/recipe.yaml", "--dry-run", "--out", "{out}/run"),
            *("--set", "data.name=cifar10", "--data-root", "{here}"),
        ),
    ),
    "pictures": Kind(
        file="pictures",
        named=("--model",),
        command=(
            *("calibrate", "{bench}/model.safetensors", "--data", "imagefolder:{file}"),
            *("-o", "{out}/c.safetensors"),
        ),
    ),
    "spikes": Kind(
        file="spikes.safetensors",
        command=(
            *("theory", "construct", "--spikes", "{file}", "--layers", "1", "--samples", "4"),
            *("--trials", "2"),
        ),
    ),
    "recipe": Kind(
        file="recipe.yaml",
        several=True,
        command=("recipes", "validate", "{file}"),
        others=(
            ("train", "--recipe", "{file}", "--dry-run", "--out", "{out}/run"),
            ("recipes", "show", "{file}"),
        ),
    ),
    "state of train": run("train", STATE),
    "state of imp": run("imp", STATE),
    "state of search": run("search", STATE),
    "state of finetune": run("finetune", STATE),
    "metrics": run("train", "run"),
    "metrics of imp": run("imp", "run"),
    "recipe of a run": run("train", "run", "model.name", "images.safetensors", several=True),
    "lock": run("train", "run/run.lock"),
    "report of a run": run("train", "run/report.json"),
}
