"""The readers that are fuzzed, each with its valid files and the ways to bend them."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpus.bench import CALIBRATION, IMAGES, MASK, MODEL, PRUNED, Bench
from corpus.case import Files
from corpus.every_case import GOOD
from corpus.kinds import KINDS

from fuzz.mutate import (
    Mutate,
    as_gzip,
    as_json,
    as_lines,
    as_pickle,
    as_png,
    as_safetensors,
    as_state,
    as_yaml,
    as_zip,
    by_bytes,
)

Read = Callable[[Bench, Path], object]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A reader."""

    kinds: tuple[str, ...]
    """Of the corpus, whose good cases are the seeds."""
    read: Read
    """Of the bench, and the folder of a case."""
    ways: Mapping[str, Mutate] = field(default_factory=lambda: {"": by_bytes})
    """By a pattern that the name of the file that is bent has."""
    slow: bool = False
    """Whether an input takes tenths of a second."""

    def seeds(self, bench: Bench) -> list[Files]:
        """Its valid files."""
        return [case.make(bench) for case in GOOD if case.kind in self.kinds]


class UnpromisedError(Exception):
    """A command ended in another way than it may."""


def _checkpoint(file: str) -> Read:
    from snnprune.checkpoint.containers import describe_checkpoint, read_checkpoint
    from snnprune.errors import InputError

    def read(bench: Bench, folder: Path) -> object:
        with contextlib.suppress(InputError):
            describe_checkpoint(folder / file)
        return read_checkpoint(folder / file, allow_nonfinite=True)

    return read


@functools.cache
def _open(bench: Bench, name: str) -> Any:
    """The network of the bench with the weights of one of its files, traced on its images."""
    from snnprune.jobs.targets.opening import open_target
    from snnprune.jobs.targets.options import TargetOptions

    return open_target(
        TargetOptions(checkpoint=bench.folder / name, data=f"tensors:{bench.images}")
    )


def _calibration(bench: Bench, folder: Path) -> object:
    from snnprune.jobs.calibrate import read_calibration_for
    from snnprune.pruning.criteria import load_criterion
    from snnprune.pruning.score import NetworkEvidence, score

    target = _open(bench, MODEL)
    evidence = NetworkEvidence(calibration=read_calibration_for(target, folder / CALIBRATION))
    criteria = [
        load_criterion(name, field="-") for name in ("sf", "sf-steps", "sf-histogram", "wanda")
    ]
    return [
        score(target.find_weights(), each, network=target.network, evidence=evidence)
        for each in criteria
    ]


def _mask(bench: Bench, folder: Path) -> object:
    from snnprune.jobs.train.finetune import read_fixed_masks

    target = _open(bench, PRUNED)
    return read_fixed_masks(target.network, target.checkpoint, folder / MASK, asked=True)


def _state(bench: Bench, folder: Path) -> object:
    from snnprune.training.runs.state import StateStore

    return StateStore(folder / "run/state").read_newest()


def _recipe(bench: Bench, folder: Path) -> object:
    from snnprune.recipe.loading import load_recipe
    from snnprune.recipe.yaml_text import dump_recipe

    return dump_recipe(load_recipe(str(folder / "recipe.yaml")))


def _tensors(bench: Bench, folder: Path) -> object:
    from snnprune.data import DataOptions
    from snnprune.data.user_files import open_tensors

    return open_tensors(folder / IMAGES, DataOptions(validation=0.25))


def _idx(bench: Bench, folder: Path) -> object:
    from snnprune.data.public import read_part

    return [read_part(folder / "mnist", part, hint="x") for part in ("train", "t10k")]


def _pictures(bench: Bench, folder: Path) -> object:
    from snnprune.data import DataOptions
    from snnprune.data.user_files import open_folder

    return open_folder(folder / "pictures", DataOptions())


def _spikes(bench: Bench, folder: Path) -> object:
    from snnprune.jobs.theory.construct import read_given
    from snnprune.theory.widths import Setting

    return read_given(None, folder / "spikes.safetensors", Setting(neurons=3))


def _command(kind: str, number: int = 0) -> Read:
    """A whole command of a kind of the corpus, of which one line may tell of an error."""
    from snnprune.cli import run_app, run_command

    def read(bench: Bench, folder: Path) -> object:
        line = KINDS[kind].lines(folder, folder / "out", bench.folder)[number]
        (folder / "out").mkdir(exist_ok=True)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_app(run_command, line)
        if code not in ALLOWED or "Traceback" in err.getvalue():
            raise UnpromisedError(f"exit code {code}: {err.getvalue()[-2000:]}")
        return refused(code)

    return read


ALLOWED = (0, 3, 5, 6)
"""Read, refused, no such place to write, and NaN met in training."""


class Refused(str):
    """What a command that refused a file gives."""


def refused(code: int) -> object:
    return Refused(code) if code else code


SAFE, ZIP = {r"\.safetensors$": as_safetensors}, {"": as_zip}
OF_RUN = {"run/state/": as_state, r"\.jsonl$": as_lines}
TARGETS = {
    "safetensors": Target(kinds=("safetensors",), read=_checkpoint(MODEL), ways=SAFE),
    "shards": Target(
        kinds=("shards",),
        read=_checkpoint("model.safetensors.index.json"),
        ways={r"\.json$": as_json, **SAFE},
    ),
    "torch": Target(kinds=("torch",), read=_checkpoint("model.pth"), ways=ZIP),
    "old torch": Target(kinds=("torch",), read=_checkpoint("model.pth"), ways={"": as_pickle}),
    "packed": Target(kinds=("packed",), read=_checkpoint("packed.safetensors"), ways=SAFE),
    "nir": Target(kinds=("nir",), read=_checkpoint("graph.nir")),
    "calibration": Target(kinds=("calibration",), read=_calibration, ways=SAFE),
    "mask": Target(kinds=("mask",), read=_mask, ways=SAFE),
    "scores": Target(kinds=("scores",), read=_checkpoint("scores.safetensors"), ways=SAFE),
    "state": Target(
        kinds=("state of train", "state of imp", "state of search", "state of finetune"),
        read=_state,
        ways={"run/state/": as_state},
    ),
    "recipe": Target(kinds=("recipe",), read=_recipe, ways={"": as_yaml}),
    "tensors": Target(kinds=("tensors",), read=_tensors, ways=SAFE),
    "idx": Target(kinds=("idx",), read=_idx, ways={r"\.gz$": as_gzip, "": by_bytes}),
    "pictures": Target(kinds=("pictures",), read=_pictures, ways={"": as_png}),
    "spikes": Target(kinds=("spikes",), read=_spikes, ways=SAFE),
    "metadata, by inspect": Target(
        kinds=("safetensors",), read=_command("safetensors", 1), ways=SAFE, slow=True
    ),
    "train --resume": Target(
        kinds=("state of train",), read=_command("state of train"), ways=OF_RUN, slow=True
    ),
    "imp --resume": Target(
        kinds=("state of imp",), read=_command("state of imp"), ways=OF_RUN, slow=True
    ),
    "search --resume": Target(
        kinds=("state of search",), read=_command("state of search"), ways=OF_RUN, slow=True
    ),
    "recipe of a run": Target(
        kinds=("recipe of a run",),
        read=_command("recipe of a run"),
        ways={r"recipe\.yaml$": as_yaml},
        slow=True,
    ),
    "report of a run": Target(
        kinds=("report of a run",),
        read=_command("report of a run"),
        ways={r"report\.json$": as_json},
        slow=True,
    ),
}
