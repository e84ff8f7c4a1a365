"""`snnprune.shrink`: a module as small as a description says, and what no description may say."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.model import sew_resnet, spiking_resnet
from torch import Tensor, nn

import snnprune
from snnprune.checkpoint.safetensors import write_safetensors
from snnprune.errors import InputError
from snnprune.graph.trace import trace
from snnprune.pruning.criteria import load_criterion
from snnprune.pruning.repair import silence
from snnprune.pruning.score import score
from snnprune.pruning.structure import format_metadata
from snnprune.pruning.structure.channels import ChannelCutting
from snnprune.pruning.structure.compact import find_axis, find_smaller_shapes, slim

SMALL = {
    "0.weight": (5, 4, 3, 3),
    "0.bias": (5,),
    **{f"1.{kind}": (5,) for kind in ("weight", "bias", "running_mean", "running_var")},
    "3.weight": (3, 20),
}


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(24, 3))


def spiking18() -> nn.Module:
    made = spiking_resnet.spiking_resnet18(spiking_neuron=neuron.LIFNode, num_classes=10)
    functional.set_step_mode(made, "m")
    return made


def added18() -> nn.Module:
    made = sew_resnet.sew_resnet18(cnf="ADD", spiking_neuron=neuron.IFNode, num_classes=10)
    functional.set_step_mode(made, "m")
    return made


def signals() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), neuron.LIFNode(), nn.AvgPool1d(2)),
        *(nn.Conv1d(6, 5, 3), neuron.LIFNode(), nn.Flatten(), nn.Linear(5 * 5, 3)),
    )


def volumes() -> nn.Module:
    return nn.Sequential(
        *(layer.Conv3d(2, 6, 3), layer.BatchNorm3d(6), neuron.LIFNode()),
        *(layer.Conv3d(6, 5, 3), neuron.LIFNode(), nn.AdaptiveAvgPool3d(1), nn.Flatten()),
        nn.Linear(5, 3),
    )


def firing(module: nn.Module) -> nn.Module:
    """`module` with shifts that make its neurons fire, in eval mode."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, 0.3, 1.2)
        elif isinstance(part, nn.Conv1d | nn.Conv3d) and part.bias is not None:
            nn.init.uniform_(part.bias, 0.5, 2.0)
    return module.eval()


@pytest.mark.many(1)
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (spiking18, (2, 2, 3, 32, 32)),
        (added18, (2, 2, 3, 32, 32)),
        (signals, (2, 2, 16)),
        (volumes, (2, 2, 6, 6, 6)),
    ],
)
def test_the_shrunk_network_puts_out_what_the_masked_one_does(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    module, x = firing(make()), torch.rand(shape)
    network = trace(module, x)
    cutting = ChannelCutting(network)
    weights = {key: network.weight(key).clone() for key in network.layers}
    cut = cutting(weights, score(weights, load_criterion("magnitude")), 0.4, None)
    with torch.no_grad():
        for key, mask in cut.masks.items():
            module.get_parameter(key).mul_(mask)
    silence(module, cut.silenced)
    small = slim(network, module.state_dict(), cutting.removed)
    part = snnprune.shrink(make(), find_smaller_shapes(module, small)).eval()
    part.load_state_dict(small)
    functional.reset_net(module)
    with torch.no_grad():
        whole, found = module.double()(x.double()), part.double()(x.double())
    assert float(whole.std()) > 0
    torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-9)
    assert sum(p.numel() for p in part.parameters()) < 0.7 * sum(
        w.numel() for w in weights.values()
    )


def test_a_description_is_a_table_its_text_or_a_file_that_has_it(tmp_path: Path) -> None:
    lists = {key: list(shape) for key, shape in SMALL.items()}
    state = snnprune.shrink(layers(), SMALL).state_dict()
    write_safetensors(tmp_path / "small.safetensors", state, format_metadata(SMALL))
    for description in (lists, json.dumps(lists), tmp_path / "small.safetensors"):
        found = snnprune.shrink(layers(), description)
        found.load_state_dict(state)
        assert found(torch.rand(2, 4, 4, 4)).shape == (2, 3)
    assert str(found[0]).startswith("Conv2d(4, 5,")
    assert str(found[1]).startswith("BatchNorm2d(5,")
    assert "in_features=20" in str(found[3])


def test_a_file_from_before_descriptions_says_its_shapes_by_its_tensors(tmp_path: Path) -> None:
    state = snnprune.shrink(layers(), SMALL).state_dict()
    path = tmp_path / "old.safetensors"
    write_safetensors(path, state, {"snnprune.structure": "channels"})
    snnprune.shrink(layers(), str(path)).load_state_dict(state)


def test_values_are_those_of_the_first_channels_and_stay_parameters() -> None:
    module = layers()
    weight = module.get_parameter("0.weight")
    values = weight.detach().clone()
    snnprune.shrink(module, SMALL)
    assert module.get_parameter("0.weight") is weight
    assert weight.requires_grad
    assert torch.equal(weight, values[:5])


def test_a_network_in_data_parallel_is_shrunk_inside_it() -> None:
    wrapped = nn.DataParallel(layers())
    assert snnprune.shrink(wrapped, SMALL) is wrapped
    assert wrapped.module.get_parameter("3.weight").shape == (3, 20)


def test_tied_weights_stay_tied() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    snnprune.shrink(module, {"0.weight": (3, 4), "1.weight": (3, 4)})
    assert module[1].weight is module[0].weight
    assert module[0].weight.shape == (3, 4)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"9.weight": (5,)}, "9.weight: is not in the model"),
        ({"0.weights": (5, 4, 3, 3)}, "0.weights: is not in the model"),
        ({"0." * 10_000 + "weight": (5,)}, "has no shape for '0.0.0."),
        ({"0.weight": (7, 4, 3, 3)}, "cannot be a part of"),
        ({"0.weight": (0, 4, 3, 3)}, "cannot be a part of"),
        ({"0.weight": (5, 4, 1, 1)}, "cannot be a part of"),
        ({"0.weight": (5, 4, 1, 3)}, "cannot be a part of"),
        ({"0.weight": (5, 4)}, "cannot be a part of"),
        ({"0.weight": (True, 4, 3, 3)}, "has no shape for"),
        ({"0.weight": (5.0, 4, 3, 3)}, "has no shape for"),
        ({"0.weight": "5433"}, "has no shape for"),
        ({0: (5,)}, "has no shape for"),
        ("{", "is not JSON"),
        ('{"0.weight": [1e999]}', "has no shape for"),
        ('{"0.weight": [' + "9" * 5000 + "]}", "too many digits"),
        ('{"0.weight":' * 100_000, "nested too deep"),
        ('{"0.weight": [5, 4, 3, 3], "0.weight": [1, 4, 3, 3]}', "twice"),
        ("nothing.safetensors", "no such file"),
    ],
)
def test_a_wrong_description_is_told_in_one_line_and_changes_nothing(
    wrong: dict[str, tuple[int, ...]] | str, says: str
) -> None:
    module = layers()
    description = {**SMALL, **wrong} if isinstance(wrong, dict) else wrong
    with pytest.raises(InputError) as error:
        snnprune.shrink(module, description)
    assert says in str(error.value)
    assert len(str(error.value)) < 300
    assert "\n" not in str(error.value)
    shapes = [tuple(value.shape) for value in module.state_dict().values()]
    assert shapes == [tuple(value.shape) for value in layers().state_dict().values()]


def test_a_file_as_large_as_its_model_says_so(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "whole.safetensors", layers().state_dict(), {})
    with pytest.raises(InputError, match="says of no layers that they are smaller"):
        snnprune.shrink(layers(), tmp_path / "whole.safetensors")


@pytest.mark.parametrize(
    ("part", "key", "shape"),
    [
        (nn.Conv2d(4, 4, 3, groups=2), "weight", (2, 2, 3, 3)),
        (nn.ConvTranspose2d(4, 4, 3), "weight", (2, 4, 3, 3)),
        (nn.GroupNorm(2, 4), "weight", (2,)),
        (nn.LayerNorm(4), "weight", (2,)),
        (nn.Embedding(4, 4), "weight", (4, 2)),
    ],
)
def test_layers_that_do_not_work_at_any_size_are_refused(
    part: nn.Module, key: str, shape: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match="cannot be a part of"):
        snnprune.shrink(copy.deepcopy(part), {key: shape})


class Leak(nn.Module):
    """Somebody's neuron, with a tensor of values of that shape."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.leak = nn.Parameter(torch.arange(float(torch.Size(shape).numel())).view(shape))


@pytest.mark.parametrize(
    ("shape", "small"),
    [((4,), (3,)), ((1, 4, 1, 1), (1, 2, 1, 1)), ((2, 3, 4), (2, 3, 1)), ((2, 4), (1, 4))],
)
def test_values_of_a_neuron_of_the_users_own_get_shorter_along_one_dimension(
    shape: tuple[int, ...], small: tuple[int, ...]
) -> None:
    module = Leak(*shape)
    whole = module.leak.detach().clone()
    snnprune.shrink(module, {"leak": small})
    assert torch.equal(module.leak, whole[tuple(map(slice, small))])


@pytest.mark.parametrize("small", [(1, 3), (1, 1)])
def test_along_two_dimensions_only_a_layer_of_torchs_gets_shorter(small: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="cannot be a part of \\(2, 4\\) of Leak"):
        snnprune.shrink(Leak(2, 4), {"leak": small})
    linear = nn.Linear(4, 2, bias=False)
    snnprune.shrink(linear, {"weight": small})
    assert linear.weight.shape == small


@pytest.mark.parametrize(
    ("shape", "axis", "found"),
    [
        ((8,), -3, 0),
        ((8, 1, 1), -3, 0),
        ((1, 8, 1, 1), -3, 1),
        ((8, 8, 8), -3, 0),
        ((8, 7, 7), None, None),
        ((7,), -3, None),
        ((), -1, None),
    ],
)
def test_where_the_values_of_a_neuron_have_its_channels(
    shape: tuple[int, ...], axis: int | None, found: int | None
) -> None:
    assert find_axis(Tensor(torch.zeros(shape)), 8, axis) == found


def test_two_channels_are_told_apart_and_one_has_no_dimension_of_its_own() -> None:
    assert find_axis(torch.zeros(1, 2, 1), 2, -2) == 1
    assert find_axis(torch.zeros(2), 2, None) == 0
    assert find_axis(torch.zeros(1, 1), 1, -2) is None
