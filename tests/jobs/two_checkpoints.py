"""A small network of three layers and images to run it on, as files."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.jobs.targets.provenance import make_metadata
from snnprune.models import ModelSpec, build_model

SPEC = ModelSpec(
    name="conv-snn",
    args={"width": 4, "depth": 2, "size": 8, "in_channels": 1, "time_steps": 3, "classes": 3},
)
DATA = ("--data", "tensors:images.safetensors")


def module() -> nn.Module:
    torch.manual_seed(0)
    built = build_model(SPEC)
    for part in built.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.bias, 0.2, 1.0)
    nn.init.normal_(built.get_parameter("classifier.weight"))  # or one class is always first
    return built.eval()


def write(path: Path, tensors: dict[str, Tensor]) -> None:
    write_safetensors(path, tensors, make_metadata("train", model=SPEC))


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every second weight of each layer 0."""
    return {
        key: value * (torch.arange(value.numel()) % 2).view(value.shape)
        if value.dim() > 1
        else value
        for key, value in tensors.items()
    }


def lay_out() -> dict[str, Tensor]:
    """Put a.safetensors, b.safetensors and images here; the tensors of the first."""
    held = dict(module().state_dict())
    write(Path("a.safetensors"), held)
    write(Path("b.safetensors"), halved(held))
    drawn = torch.Generator().manual_seed(1)
    x, y = torch.rand(60, 1, 8, 8, generator=drawn), torch.randint(3, (60,), generator=drawn)
    save_file({"x": x, "y": y}, "images.safetensors")
    return held
