"""The networks that can be built by name."""

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from snnprune.checkpoint.checkpoint import find_prunable_weights
from snnprune.errors import InputError, UsageError
from snnprune.models import MODELS, ModelSpec, build_model, has_argument, read_argument
from snnprune.models.lif import Dynamics
from snnprune.models.networks import Residual

ONE_OF_EACH_CLASS = ["conv-snn", "res-snn-19-light", "snn-vgg-16", "6conv2fc"]
SMALL = 6  # pixels; conv-snn halves them by default three times
SMALL_ARGS: dict[str, dict[str, int]] = {"conv-snn": {"depth": 3}}
# the others take spikes of a time step and a channel: tests/models/test_recurrent.py
OF_IMAGES = [name for name in MODELS.rows if name != "recurrent-snn"]


def build(name: str, **args: Any) -> nn.Module:
    return build_model(ModelSpec(name=name, args=args)).eval()


def prunable_count(module: nn.Module) -> int:
    state = module.state_dict()
    return sum(state[key].numel() for key in find_prunable_weights(state))


def residual_stage(inputs: int, outputs: int, blocks: int, *, reshaped: bool) -> int:
    """Weights of a stage: two 3x3 convolutions a block, and 1x1 where the shape changes."""
    shortcut = inputs * outputs if reshaped else 0
    return 9 * inputs * outputs + 9 * outputs**2 * (2 * blocks - 1) + shortcut


def file_with(folder: Path, body: str) -> str:
    (folder / "nets.py").write_text("import torch\nfrom torch import nn\n" + body)
    return f"{folder / 'nets.py'}:build"


def test_res_snn_19_light_has_the_weights_of_kim_et_al() -> None:
    expected = (
        9 * 3 * 64
        + residual_stage(64, 128, 3, reshaped=True)
        + residual_stage(128, 256, 3, reshaped=True)
        + residual_stage(256, 512, 2, reshaped=True)
        + 512 * 256
        + 256 * 10
    )
    with torch.device("meta"):
        counted = prunable_count(build("res-snn-19-light"))
    assert counted == expected == 12_619_968


def test_res_snn_19_has_the_weights_of_zheng_et_al() -> None:
    expected = (
        9 * 3 * 128
        + residual_stage(128, 128, 3, reshaped=False)
        + residual_stage(128, 256, 3, reshaped=True)
        + residual_stage(256, 512, 2, reshaped=True)
        + 512 * 256
        + 256 * 10
    )
    with torch.device("meta"):
        counted = prunable_count(build("res-snn-19"))
    assert counted == expected == 12_687_232


def test_snn_vgg_16_has_the_weights_of_kim_et_al() -> None:
    widths = [3, 64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    convolutions = sum(9 * a * b for a, b in pairwise(widths))
    with torch.device("meta"):
        counted = prunable_count(build("snn-vgg-16"))
    assert counted == convolutions + 512 * 10 == 14_715_584


def test_snn_vgg_16_begins_with_the_weights_of_kim_et_al() -> None:
    torch.manual_seed(0)
    named = build("snn-vgg-16").named_parameters()
    weights = {key: weight.detach() for key, weight in named}
    drawn = {key: weight for key, weight in weights.items() if weight.dim() > 1}
    assert len(drawn) == 14
    for key, weight in drawn.items():
        fan_out = weight.shape[0] * 9  # 3 x 3 to that many channels
        expected = 0.01 if key == "classifier.weight" else math.sqrt(2 / fan_out)
        several = 5 / math.sqrt(2 * weight.numel())  # standard errors of a deviation, of 1
        assert float(weight.std()) == pytest.approx(expected, rel=several), key
        assert abs(float(weight.mean())) < 5 * expected / math.sqrt(weight.numel()), key
    assert float(drawn["stages.4.2.conv.weight"].std()) == pytest.approx(0.0208, abs=1e-4)
    assert not any(bias.any() for key, bias in weights.items() if key.endswith("conv.bias"))
    assert not weights["classifier.bias"].any()


def sides(network: nn.Module, names: list[str], *image: int) -> list[tuple[int, int]]:
    """Height and width of what comes out of parts of a network."""
    seen: list[tuple[int, int]] = []
    for name in names:
        network.get_submodule(name).register_forward_hook(
            lambda _, __, out: seen.append((out.shape[-2], out.shape[-1]))
        )
    with torch.no_grad():
        network(torch.rand(1, 3, *image))
    return seen


def test_snn_vgg_16_halves_an_image_after_each_stage_as_long_as_it_can_be_halved() -> None:
    stages = [f"stages.{number}" for number in range(5)]
    network, found = build("snn-vgg-16", time_steps=1), [(8, 16), (4, 8), (2, 4), (1, 2), (1, 2)]
    assert sides(network, stages, 8, 16) == found
    upright = build("snn-vgg-16", time_steps=1)
    assert sides(upright, stages, 16, 8) == [(height, width) for width, height in found]


def test_6conv2fc_halves_an_image_after_the_third_and_the_sixth_convolution() -> None:
    parts = ["encoder", *(f"blocks.{number}" for number in range(5))]
    network = build("6conv2fc", time_steps=1, size=4)
    assert sides(network, parts, 4, 4) == [(4, 4)] * 3 + [(2, 2)] * 3


@pytest.mark.parametrize(
    ("name", "last", "reader", "image"),
    [
        ("snn-vgg-16", "stages.4", "classifier", (8, 16)),
        ("res-snn-19-light", "blocks", "hidden", (16, 16)),
    ],
)
def test_what_is_left_of_an_image_is_averaged_for_the_linear_layer(
    name: str, last: str, reader: str, image: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    network = build(name, time_steps=1).train()  # its norms make the neurons fire
    seen: list[torch.Tensor] = []
    network.get_submodule(last).register_forward_hook(lambda _, __, out: seen.append(out))
    network.get_submodule(reader).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        network(torch.rand(2, 3, *image))
    spikes, read = seen
    assert spikes.any()
    assert spikes.shape[-1] > 1
    assert torch.equal(read, spikes.mean((-2, -1)))


@pytest.mark.parametrize(
    ("name", "halved"), [("res-snn-19", (False, True, True)), ("res-snn-19-light", (True,) * 3)]
)
def test_res_snn_19_halves_an_image_in_the_first_block_of_its_stages(
    name: str, halved: tuple[bool, bool, bool]
) -> None:
    side, expected = 8, [(8, 8)]
    for blocks, halves in zip((3, 3, 2), halved, strict=True):
        side = side // 2 if halves else side
        expected += [(side, side)] * blocks
    parts = ["encoder", *(f"blocks.{number}" for number in range(8))]
    assert sides(build(name, time_steps=1), parts, 8, 8) == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_6conv2fc_has_the_layers_of_spikingjellys_cifar10net() -> None:
    from spikingjelly.activation_based.model import parametric_lif_net as nets

    with torch.device("meta"):
        theirs = nets.CIFAR10Net(256, nn.Identity).state_dict()
        ours = build("6conv2fc").state_dict()
    assert shapes_of_weights(ours) == shapes_of_weights(theirs)


def shapes_of_weights(state: dict[str, torch.Tensor]) -> Counter[tuple[int, ...]]:
    return Counter(tuple(state[key].shape) for key in find_prunable_weights(state))


@pytest.mark.parametrize(
    ("width", "depth", "size", "channels"),
    [
        (8, 1, 28, [8]),
        (8, 2, 28, [8, 16]),
        (16, 4, 28, [16, 32, 64, 64]),
        (3, 5, 17, [3, 6, 12, 12, 12]),
    ],
)
def test_conv_snn_doubles_its_channels_up_to_four_times(
    width: int, depth: int, size: int, channels: list[int]
) -> None:
    network = build("conv-snn", width=width, depth=depth, size=size, classes=7)
    side = size // 2 ** (depth - 1)
    convolutions = sum(9 * a * b for a, b in zip([1, *channels[:-1]], channels, strict=True))
    assert prunable_count(network) == convolutions + channels[-1] * side**2 * 7
    with torch.no_grad():
        assert network(torch.rand(2, 1, size, size)).shape == (4, 2, 7)


@pytest.mark.many(2)
@pytest.mark.parametrize("name", OF_IMAGES)
@pytest.mark.parametrize(
    ("in_channels", "size", "classes", "time_steps"), [(1, 9, 3, 1), (2, 12, 11, 2)]
)
def test_any_input_gives_logits_per_step_sample_and_class(
    name: str, in_channels: int, size: int, classes: int, time_steps: int
) -> None:
    network = build(
        name, in_channels=in_channels, size=size, classes=classes, time_steps=time_steps
    )
    with torch.no_grad():
        logits = network(torch.rand(3, in_channels, size, size))
    assert logits.shape == (time_steps, 3, classes)
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize("name", ONE_OF_EACH_CLASS)
def test_an_image_repeated_as_events_gives_the_logits_of_the_still_image(name: str) -> None:
    torch.manual_seed(0)
    network = build(
        name, in_channels=2, size=SMALL, classes=5, time_steps=3, **SMALL_ARGS.get(name, {})
    )
    # In sixteenths every sum is exact, so that no order of additions turns a spike over.
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_((weight * 3 * 16).round() / 16)
        image = torch.randint(0, 32, (1, 2, SMALL, SMALL)) / 16
        still, events = network(image), network(image.expand(3, -1, -1, -1, -1))
    assert torch.equal(still, events)
    if name == "conv-snn":
        assert still.std(dim=0).max() > 0  # the steps differ: it was not one step three times


@pytest.mark.parametrize("name", ONE_OF_EACH_CLASS)
def test_events_have_as_many_steps_as_they_come_with(name: str) -> None:
    small = SMALL_ARGS.get(name, {})
    network = build(name, in_channels=2, size=SMALL, classes=5, time_steps=4, **small)
    with torch.no_grad():
        for steps, expected in ((1, 4), (2, 2), (5, 5)):  # a single step is a still image
            assert len(network(torch.rand(steps, 1, 2, SMALL, SMALL))) == expected


@pytest.mark.parametrize(("inputs", "stride"), [(4, 1), (3, 2)])
def test_a_residual_block_fires_by_the_sum_of_its_convolutions_and_its_shortcut(
    inputs: int, stride: int
) -> None:
    torch.manual_seed(0)
    block = Residual(inputs, 4, stride, Dynamics()).train()
    spikes = (torch.rand(2, 3, inputs, 6, 6) < 0.5).float()
    with torch.no_grad():
        first = block.first(spikes)
        main = block.norm(block.conv(first.flatten(0, 1)))
        past = block.shortcut(spikes.flatten(0, 1))
        expected = block.neuron((main + past).unflatten(0, (2, 3)))
        assert torch.equal(block(spikes), expected)
    assert expected.any()
    assert isinstance(block.shortcut, nn.Identity) is (stride == 1)


@pytest.mark.parametrize("name", ONE_OF_EACH_CLASS)
def test_every_weight_and_norm_learns(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, in_channels=1, size=SMALL, time_steps=1, **SMALL_ARGS.get(name, {}))
    network.train()
    network(torch.rand(2, 1, SMALL, SMALL)).square().sum().backward()
    idle = [key for key, weight in network.named_parameters() if weight.grad is None]
    assert idle == []


def test_a_spike_is_zero_or_one_between_the_layers() -> None:
    network = build("conv-snn", depth=2, size=8, width=4)
    seen: list[torch.Tensor] = []
    network.get_submodule("encoder").register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        network(torch.rand(2, 1, 8, 8) * 4)
    assert set(seen[0].unique().tolist()) == {0.0, 1.0}


def test_the_neurons_are_as_the_arguments_say() -> None:
    network = build("conv-snn", size=8, neuron={"beta": 0.25, "reset": "soft"})
    shown = {repr(m) for m in network.modules() if type(m).__name__ == "LIF"}
    assert shown == {"LIF(beta=0.25, reset=soft)"}


@pytest.mark.parametrize(
    ("name", "in_channels", "size", "time_steps"),
    [
        ("conv-snn", 1, 28, 4),
        ("res-snn-19", 3, 32, 5),
        ("res-snn-19-light", 3, 32, 5),
        ("snn-vgg-16", 3, 32, 5),
        ("6conv2fc", 3, 32, 8),
    ],
)
def test_without_arguments_a_network_takes_the_images_and_steps_of_its_paper(
    name: str, in_channels: int, size: int, time_steps: int
) -> None:
    spec = ModelSpec(name=name)
    names = ("in_channels", "size", "classes", "time_steps")
    assert [read_argument(spec, each) for each in names] == [in_channels, size, 10, time_steps]
    assert read_argument(spec, "neuron") is None


def test_conv_snn_has_by_default_the_weights_of_the_results_page() -> None:
    assert prunable_count(build("conv-snn")) == 65_808


def test_an_argument_is_read_as_given_or_else_by_default() -> None:
    spec = ModelSpec(name="conv-snn", args={"width": 3})
    assert read_argument(spec, "width") == 3
    assert read_argument(spec, "depth") == 4
    assert read_argument(spec, "breadth") is None


def test_accepts_knows_the_parameters_of_a_builder() -> None:
    spec = ModelSpec(name="conv-snn")
    assert has_argument(spec, "width")
    assert not has_argument(ModelSpec(name="snn-vgg-16"), "width")


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("conv-snn", {"width": 0}, "width: must be at least 1"),
        ("conv-snn", {"depth": 0}, "depth: must be at least 1"),
        (
            "conv-snn",
            {"depth": 4, "size": 7},
            "depth: 4 layers halve an image of 7 pixels to nothing",
        ),
        ("conv-snn", {"time_steps": 0}, "time_steps: 0 is not a number of steps"),
        ("6conv2fc", {"size": 3}, "size: 3 pixels are too few, at least 4"),
        ("conv-snn", {"neuron": {"beta": 2}}, "neuron.beta: 2 is outside [0, 1]"),
    ],
)
def test_arguments_that_cannot_be_are_refused(
    name: str, args: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        build(name, **args)
    assert str(caught.value) == message


def test_an_unknown_argument_is_a_wrong_flag_or_a_wrong_setting() -> None:
    message = r"conv-snn has no argument 'widht'\. did you mean width\?$"
    with pytest.raises(UsageError, match=f"^--model: {message}"):
        build("conv-snn", widht=3)
    with pytest.raises(InputError, match=f"^model: {message}"):
        build_model(ModelSpec(name="conv-snn", args={"widht": 3}), field="model")


def test_an_argument_of_the_wrong_type_is_told_as_the_builders_failure() -> None:
    with pytest.raises(InputError, match=r"^--model: conv-snn raised TypeError: "):
        build("conv-snn", width="wide")


def test_an_unknown_model_is_a_wrong_flag_or_a_wrong_setting() -> None:
    with pytest.raises(
        UsageError, match=r"--model: unknown model 'conv-sn'. did you mean conv-snn"
    ):
        build("conv-sn")
    with pytest.raises(InputError, match=r"^model.name: unknown model 'conv-sn'"):
        build_model(ModelSpec(name="conv-sn"), field="model.name")


def test_a_file_of_the_users_own_builds_its_network(tmp_path: Path) -> None:
    name = file_with(tmp_path, "def build(width=3):\n    return nn.Linear(width, 2)\n")
    network = build(name, width=5)
    assert isinstance(network, nn.Linear)
    assert network.in_features == 5


def test_a_builder_with_keyword_arguments_takes_any(tmp_path: Path) -> None:
    name = file_with(tmp_path, "def build(**args):\n    return nn.Linear(args['n'], 2)\n")
    assert build(name, n=4).get_parameter("weight").shape == (2, 4)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def build():\n    return 3\n", "returned int, not a torch.nn.Module"),
        ("def build():\n    raise KeyError('weights')\n", "raised KeyError: 'weights'"),
        ("def build():\n    raise SystemExit(2)\n", "raised SystemExit: 2"),
        ("def biuld():\n    return 3\n", "has no 'build'. did you mean biuld?"),
        ("import nowhere_at_all\n", "raised ModuleNotFoundError"),
        ("def build(:\n", "raised SyntaxError"),
        ("build = 3\n", "is not a function"),
    ],
)
def test_a_file_that_builds_no_network_is_told_as_the_users(
    tmp_path: Path, body: str, message: str
) -> None:
    name = file_with(tmp_path, body)
    with pytest.raises(InputError) as caught:
        build(name)
    assert message in str(caught.value)
    assert "--model" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.py: --model: no such file"):
        build(f"{tmp_path / 'absent.py'}:build")
