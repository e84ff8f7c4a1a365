"""Run every command on the CPU and on a pretended GPU: `every_command.py DIR [libraries]`.

With `libraries`, commands that run networks of other libraries instead. Leaves a folder for each
device in DIR, and in said.json what each command said on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import typer
from pretended_gpu import pretend
from safetensors.torch import save_file
from torch import nn
from typed_commands import NETWORKS, commands, for_gpus, of_libraries, planted

from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.chips import builtin_chips
from snnprune.cli import run_app
from snnprune.cli.commands import make_app
from snnprune.data import public
from snnprune.data.images import ImageSplit
from snnprune.files.writing import replace_file
from snnprune.jobs import demo
from snnprune.jobs.targets.provenance import make_metadata
from snnprune.models import ModelSpec, build_model
from snnprune.report.plots import canvas

NETWORK = ModelSpec(
    name="conv-snn",
    args={"width": 4, "depth": 2, "size": 4, "in_channels": 1, "time_steps": 2, "classes": 3},
)
RECIPE = """
model: {name: conv-snn, args: {width: 4, depth: 2, time_steps: 2}}
data: {name: "tensors:images.safetensors", validation: 0.25, crop: 1, flip: true}
training: {epochs: 1, batch_size: 12, learning_rate: 0.1}
imp: {methods: [sf-imp-1, random], sparsities: [0.5], samples: 12}
search: {sparsities: [0.5], dense: true}
finetune: {epochs: 1}
"""
DEMO = """
model: {name: conv-snn, args: {width: 2, depth: 2, time_steps: 1}}
data: {name: fashion-mnist-mini}
training: {epochs: 1, batch_size: 20, learning_rate: 0.1}
"""
FAULTS = """
import torch

def two_devices(output):
    return output.sum(0) + torch.zeros(output.shape[-1])

def other_generator(output):
    noise = torch.rand(output.shape[-1], device=output.device, generator=torch.Generator())
    return output.sum(0) + noise

def in_numpy(output):
    return torch.from_numpy(output.sum(0).numpy()).to(output.device)

def for_cpus_alone(output):
    return output.sum(0) + torch.histogram(output, 2).hist.sum()
"""
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="1pt" height="1pt" viewBox="0 0 1 1"/>'


def lay_out() -> None:
    """A network, images and recipes, here and the same in every folder."""
    torch.manual_seed(0)
    network = build_model(NETWORK).eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.bias, 0.2, 1.0)
    nn.init.normal_(network.get_parameter("classifier.weight"))  # or one class is always first
    metadata = make_metadata("train", model=NETWORK)
    write_safetensors(Path("a.safetensors"), dict(network.state_dict()), metadata)
    x = (torch.rand(32, 1, 4, 4) < 0.5).float()  # spikes, so that noise can delete some
    save_file({"x": x, "y": torch.randint(3, (32,))}, "images.safetensors")
    chip = builtin_chips()["template"].read_text("utf-8")
    chip = chip.replace("pooling: [average]", "pooling: [average, max]")
    chip = chip.replace("spiking_output: true", "spiking_output: false")
    texts = {"recipe.yaml": RECIPE, "demo.yaml": DEMO, "faults.py": FAULTS, "chip.yaml": chip}
    for name, text in texts.items():
        Path(name).write_text(text, "utf-8")


def lay_out_libraries() -> None:
    """Networks of other libraries, and images for them."""
    import pruned_networks

    functions = ["import pruned_networks"]
    for number, name in enumerate(NETWORKS):
        torch.save(pruned_networks.made(name).module.state_dict(), f"{number}.pth")
        made = f"return pruned_networks.made({name!r}).module"
        functions.append(f"def made_{number}(): {made}")
    Path("networks.py").write_text("\n".join(functions), "utf-8")
    x = pruned_networks.PICTURES
    save_file({"x": x, "y": torch.arange(len(x)) % pruned_networks.CLASSES}, "images.safetensors")


def all_said(folder: Path, device: str, *, libraries: bool) -> dict[str, Any]:
    """What each command said, by what was typed but for the device."""
    folder.mkdir()
    os.chdir(folder)
    (lay_out_libraries if libraries else lay_out)()
    every = of_libraries() if libraries else (*commands(), *for_gpus(), *planted())
    typed = typer.main.get_command(make_app())  # once: it takes longer than a small command
    return {" ".join(words): said(typed, *words, "--device", device) for words in every}


def said(typed: Any, *words: str) -> dict[str, Any]:
    """Its exit code, the report and what else it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_app(typed, [*words, "--json"])
    lines = out.getvalue().strip().splitlines()
    return {
        "code": code,
        "report": json.loads(lines[-1]) if lines else None,
        "errors": err.getvalue(),
    }


def make_small() -> None:
    """The demo with little of everything; no picture is drawn, and nothing waits for a disk."""
    part = public._read_split

    def beginning(*args: Any, **kwargs: Any) -> ImageSplit:
        found = part(*args, **kwargs)
        assert found.labels is not None
        return dataclasses.replace(found, images=found.images[:40], labels=found.labels[:40])

    def blank(figure: object, path: Path) -> None:
        with replace_file(path) as temporary:
            temporary.write_text(SVG, "utf-8")

    for module, name, value in (
        (demo, "RECIPE", "demo.yaml"),
        (demo, "SPARSITIES", (0.5,)),
        (demo, "ROWS", demo.ROWS[3:4]),
        (public, "_read_split", beginning),
        (canvas, "save_figure", blank),
        (os, "fsync", lambda handle: None),
    ):
        assert hasattr(module, name), name
        setattr(module, name, value)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pretend()
    make_small()
    top = Path(sys.argv[1]).resolve()
    others = sys.argv[2:] == ["libraries"]
    found = {device: all_said(top / device, device, libraries=others) for device in ("cpu", "cuda")}
    (top / "said.json").write_text(json.dumps(found), "utf-8")
