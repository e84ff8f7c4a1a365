"""What the default closed form takes on a network of 12.6 million weights: seconds and memory.

    OMP_NUM_THREADS=2 python tests/benchmarks/bench_closed_form.py

`res-snn-19-light`, T = 4, untrained, its BatchNorms set by 64 random images of 32 x 32, so that a
fifth of the neurons fires; `prune --sparsity 0.9 --no-tune --no-eval` on 256 such images, as a
process of its own. What is printed is of its report.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.jobs.targets.provenance import make_metadata
from snnprune.models import ModelSpec, build_model

IMAGES, SETTING = 256, 64
SPEC = ModelSpec(
    name="res-snn-19-light", args={"time_steps": 4, "in_channels": 3, "size": 32, "classes": 10}
)


@torch.no_grad()
def make_network(images: torch.Tensor) -> nn.Module:
    """Untrained, with the statistics of what enters its BatchNorms."""
    network = build_model(SPEC).train()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # the mean over all batches
    for batch in images[:SETTING].split(16):
        network(batch)
    return network


def main() -> None:
    """Make the network, prune it, print what it took."""
    torch.manual_seed(0)
    images = torch.rand(IMAGES, 3, 32, 32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = folder / "net.safetensors"
        tensors = make_network(images).state_dict()
        write_safetensors(checkpoint, tensors, make_metadata("train", model=SPEC))
        labels = torch.randint(10, (IMAGES,))
        save_file({"x": images, "y": labels}, folder / "images.safetensors")
        data = ("--data", f"tensors:{folder / 'images.safetensors'}", "--samples", str(IMAGES))
        flags = (
            "--sparsity",
            "0.9",
            "--no-tune",
            "--no-eval",
            "--out",
            str(folder / "p.safetensors"),
        )
        command = [sys.executable, "-m", "snnprune", "prune", str(checkpoint), *data, *flags]
        done = subprocess.run([*command, "--json"], check=True, capture_output=True, text=True)
        cost = json.loads(done.stdout)["cost"]
        print(f"{cost['seconds']} s, {cost['peak_memory'] / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
