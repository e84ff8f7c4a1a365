"""What a repair leaves in the network, as the file gets it: masked, in the file's own types."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from snnprune.errors import NonFiniteError
from snnprune.jobs.prune.pruned_model import build_and_load_tensors
from snnprune.jobs.targets.opening import open_target
from snnprune.jobs.targets.options import TargetOptions
from snnprune.jobs.targets.target import Target

KEY = "blocks.0.conv.weight"


@pytest.fixture
def target(model_file: Path) -> Target:
    return open_target(TargetOptions(checkpoint=model_file))


@pytest.fixture
def masks(target: Target) -> dict[str, Tensor]:
    """Every second weight of one layer is kept, and all others."""
    shape = target.checkpoint.tensors[KEY].shape
    return {KEY: (torch.arange(shape.numel()) % 2 == 0).view(shape)}


def module_of(target: Target) -> nn.Module:
    assert target.network is not None
    return target.network.module


def test_what_a_repair_puts_where_a_weight_is_pruned_is_zero_in_the_file_and_the_network(
    target: Target, masks: dict[str, Tensor]
) -> None:
    repaired = torch.full_like(target.checkpoint.tensors[KEY], 0.25)  # also where it is pruned
    tensors = build_and_load_tensors(target, masks, {KEY: repaired})
    assert torch.equal(tensors[KEY], masks[KEY] * 0.25)
    assert torch.equal(module_of(target).get_parameter(KEY), masks[KEY] * 0.25)
    others = target.checkpoint.tensors.keys() - {KEY}
    assert all(tensors[key] is target.checkpoint.tensors[key] for key in others)


def test_what_no_repair_touched_is_masked_in_its_own_type(
    model_file: Path, masks: dict[str, Tensor], target: Target, tmp_path: Path
) -> None:
    half = {key: value.half() for key, value in target.checkpoint.tensors.items()}
    path = tmp_path / "half.safetensors"
    save_file(half, path, metadata=dict(target.checkpoint.metadata))
    other = open_target(TargetOptions(checkpoint=path))
    tensors = build_and_load_tensors(other, masks, {})
    assert torch.equal(tensors[KEY], half[KEY] * masks[KEY])
    huge = torch.full(half[KEY].shape, 1e6)
    with pytest.raises(NonFiniteError, match="does not fit into float16"):
        build_and_load_tensors(other, masks, {KEY: huge})
