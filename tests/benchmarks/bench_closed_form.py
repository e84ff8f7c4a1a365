"""What the default closed form takes: seconds and memory, and what it said before it began.

    OMP_NUM_THREADS=2 python tests/benchmarks/bench_closed_form.py          # 12.6 million weights
    OMP_NUM_THREADS=2 python tests/benchmarks/bench_closed_form.py wide     # 60.5 million

`res-snn-19-light`, or eight convolutions of 128 to 1536 channels, T = 4, untrained, its BatchNorms
set by some random images of 32 x 32, so that a fifth of the neurons fires; `prune --sparsity 0.9
--no-tune --no-eval` on 256 such images, as a process of its own. What is printed is of its report.
"""

import json
import re
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.jobs.targets.provenance import make_metadata
from snnprune.models import ModelSpec, build_model
from snnprune.models.lif import Dynamics
from snnprune.models.networks import Encoder, SpikingConv, apply_per_step

IMAGES, SETTING = 256, 32
SPEC = ModelSpec(
    name="res-snn-19-light", args={"time_steps": 4, "in_channels": 3, "size": 32, "classes": 10}
)
CHANNELS = (128, 256, 512, 1024, 1024, 1024, 1536, 1536)
POOLED = (0, 1, 5)
"""The convolutions behind the encoder that see half as wide a map as the one before."""


class Wide(nn.Module):
    """Spiking convolutions, the mean over each map, a linear layer. Logits (T, N, classes)."""

    def __init__(self) -> None:
        super().__init__()
        dynamics = Dynamics()
        self.encoder = Encoder(3, CHANNELS[0], dynamics, time_steps=4)
        self.blocks = nn.ModuleList(SpikingConv(a, b, dynamics) for a, b in pairwise(CHANNELS))
        self.pool, self.classifier = nn.MaxPool2d(2), nn.Linear(CHANNELS[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.encoder(x)
        for number, block in enumerate(self.blocks):
            spikes = block(apply_per_step(self.pool, spikes) if number in POOLED else spikes)
        return self.classifier(spikes.mean((-2, -1)))


def make_wide() -> Wide:
    """What `--model` names."""
    return Wide()


@torch.no_grad()
def set_batchnorms(network: nn.Module, images: Tensor) -> nn.Module:
    """The network with the statistics of what enters its BatchNorms."""
    network.train()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # the mean over all batches
    for batch in images[:SETTING].split(16):
        network(batch)
    return network


def main() -> None:
    """Make the network, prune it, print what it took."""
    wide = sys.argv[1:] == ["wide"]
    torch.manual_seed(0)
    images = torch.rand(IMAGES, 3, 32, 32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = folder / "net.safetensors"
        network = set_batchnorms(make_wide() if wide else build_model(SPEC), images)
        metadata = {} if wide else make_metadata("train", model=SPEC)
        write_safetensors(checkpoint, network.state_dict(), metadata)
        labels = torch.randint(10, (IMAGES,))
        save_file({"x": images, "y": labels}, folder / "images.safetensors")
        model = ("--model", f"{Path(__file__).resolve()}:make_wide") if wide else ()
        data = ("--data", f"tensors:{folder / 'images.safetensors'}", "--samples", str(IMAGES))
        flags = ("--sparsity", "0.9", "--no-tune", "--no-eval", "-o", str(folder / "p.safetensors"))
        command = [
            sys.executable,
            "-m",
            "snnprune",
            "prune",
            str(checkpoint),
            *model,
            *data,
            *flags,
        ]
        done = subprocess.run([*command, "--json"], check=True, capture_output=True, text=True)
        cost = json.loads(done.stdout)["cost"]
        print(*re.findall("closed form: about.*", done.stderr))
        print(f"{cost['seconds']} s, {cost['peak_memory'] / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
