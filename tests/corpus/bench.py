"""The good files that all cases begin with, made by the tool itself from 16 images of 6 x 6."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from snnprune.cli import run_app, run_command

MODEL, CALIBRATION, MASK = "model.safetensors", "calibration.safetensors", "mask.safetensors"
PRUNED, SCORES, IMAGES = "pruned.safetensors", "scores.safetensors", "images.safetensors"
RECIPE = """
model: {{name: conv-snn, args: {{width: 2, depth: 2, time_steps: 2}}}}
data: {{name: "tensors:{images}", validation: 0.25, crop: 1, flip: true}}
training: {{epochs: 2, batch_size: 4, learning_rate: 0.1, ema: 0.5}}
imp: {{rounds: 2, rewind_epoch: 1, methods: [imp, sf-imp-2]}}
search: {{sparsities: [0.5]}}
finetune: {{epochs: 2}}
"""
LOOPS = ("train", "imp", "search", "finetune")
ENDS = ("DONE", "SHA256SUMS", "report.json", "report.html", "report.md")


class Bench:
    """A folder of good files, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.images = folder / IMAGES
        self._write_images()
        self.recipe = folder / "recipe.yaml"
        self.recipe.write_text(RECIPE.format(images=self.images))
        self._run("train", "--recipe", self.recipe, "--out", folder / "train")
        (folder / MODEL).write_bytes((folder / "train" / MODEL).read_bytes())
        self._side_files()

    def bytes_of(self, name: str) -> bytes:
        """A file of the bench."""
        return (self.folder / name).read_bytes()

    def finished(self, loop: str) -> Mapping[str, bytes]:
        """The folder of a whole run, as files below `run`."""
        folder = self._loop(loop)
        files = (path for path in folder.rglob("*") if path.is_file())
        return {f"run/{path.relative_to(folder)}": path.read_bytes() for path in files}

    def stopped(self, loop: str) -> Mapping[str, bytes]:
        """The same as a kill after the older of its two states would have left it."""
        files = {
            name: data
            for name, data in self.finished(loop).items()
            if name.removeprefix("run/") not in ENDS and "tensorboard" not in name
        }
        del files[max(state_files(files))]
        return files

    def _loop(self, loop: str) -> Path:
        folder = self.folder / loop
        if not folder.exists():
            given = (self.folder / PRUNED,) if loop == "finetune" else ()
            self._run(loop, *given, "--recipe", self.recipe, "--out", folder)
        return folder

    def _write_images(self) -> None:
        draws, labels = torch.Generator().manual_seed(0), torch.arange(16) % 2
        x = torch.rand(16, 1, 6, 6, generator=draws) + labels.view(-1, 1, 1, 1)
        test = {"x_test": x.roll(1, -1), "y_test": labels.clone()}
        save_file({"x": x, "y": labels, **test}, self.images)

    def _side_files(self) -> None:
        model, data = self.folder / MODEL, ("--data", f"tensors:{self.images}")
        plain = ("--criterion", "magnitude", "--repair", "none", "--no-eval", "--sparsity", "0.5")
        self._run("calibrate", model, *data, "-o", self.folder / CALIBRATION)
        self._run("score", model, "--criterion", "magnitude", "-o", self.folder / SCORES)
        self._run("prune", model, *plain, "-o", self.folder / PRUNED)
        (self.folder / "pruned.mask.safetensors").rename(self.folder / MASK)

    def _run(self, *arguments: object) -> None:
        err = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            code = run_app(run_command, [*map(str, arguments), "-q"])
        assert code == 0, err.getvalue()


def state_files(files: Mapping[str, bytes]) -> list[str]:
    """The names of the states in the folder of a run, in order."""
    return sorted(name for name in files if name.startswith("run/state/"))
