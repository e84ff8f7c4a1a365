"""What backward passes find, against each sample run alone and against other formulas."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from gradient_networks import (
    CLASSES,
    LABELS,
    NETWORKS,
    PICTURES,
    STEPS,
    Own,
    Smooth,
    batches,
    gradients_by_sample,
    lif,
    made,
)
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from snnprune.data.batches import Batches
from snnprune.errors import InputError, NonFiniteError
from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.measure.gradients import FINDERS, Found, compute_weight_gradients

EVERY = sorted(FINDERS)


def traced(name: str) -> Network:
    return trace(made(name), PICTURES[:1])


def close(found: dict[str, Tensor], expected: dict[str, Tensor], rel: float = 1e-4) -> None:
    """Each tensor within `rel` of its largest value, none of them all zero."""
    for key, value in expected.items():
        assert found[key].dtype == torch.float64
        assert float(value.abs().max()) > 0, key
        torch.testing.assert_close(
            found[key], value.double(), rtol=0, atol=rel * float(value.abs().max())
        )


def mean_and_square_alone(network: Network) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """E[dL/dw] and E[(dL/dw)^2] of samples run one by one."""
    alone = list(gradients_by_sample(network.module))
    by_key = {key: torch.stack([one[key] for one in alone]) for key in network.layers}
    return (
        {key: found.mean(0) for key, found in by_key.items()},
        {key: found.square().mean(0) for key, found in by_key.items()},
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_and_their_squares_are_those_of_samples_run_alone(name: str) -> None:
    network = traced(name)
    means, squares = mean_and_square_alone(network)
    close(compute_weight_gradients(network, Batches(begin=batches), "gradient"), means)
    close(compute_weight_gradients(network, Batches(begin=batches), "squared-gradient"), squares)


@pytest.mark.parametrize("need", EVERY)
def test_the_size_of_batches_does_not_matter(need: Found) -> None:
    network = traced("own")
    whole, parts = (
        compute_weight_gradients(network, Batches(begin=partial(batches, size)), need)
        for size in (5, 1)
    )
    close(parts, whole, rel=1e-3 if need == "hessian-gradient" else 1e-5)


def test_absolute_values_are_taken_before_the_sum_over_time_and_places() -> None:
    module = made("own")
    assert isinstance(module, Own)
    kept: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, inputs: Any, output: Tensor) -> None:
            output.retain_grad()
            kept[name] = (inputs[0], output)

        return hook

    handles = [getattr(module, n).register_forward_hook(keep(n)) for n in ("conv2", "fc")]
    logits = module(PICTURES).flatten(0, 1)
    functional.cross_entropy(logits, LABELS.repeat(STEPS), reduction="sum").div(STEPS).backward()
    for handle in handles:
        handle.remove()
    module.zero_grad()

    x, current = kept["fc"]
    x = x.detach()
    assert current.grad is not None
    by_hand = torch.einsum("tni,tno->oi", x.abs(), current.grad.abs()) / len(PICTURES)
    found = compute_weight_gradients(
        trace(module, PICTURES[:1]), Batches(begin=batches), "absolute-gradient"
    )
    close(found, {"fc.weight": by_hand})

    x, current = kept["conv2"]
    x = x.detach()
    assert current.grad is not None
    windows = functional.unfold(x.abs(), 3, stride=2).unflatten(1, (2, 2 * 9))  # two groups
    slopes = current.grad.abs().flatten(2).unflatten(1, (2, 3))
    by_hand = torch.einsum("ngip,ngop->goi", windows, slopes) / len(PICTURES)
    close(found, {"conv2.weight": by_hand.reshape(6, 2, 3, 3)})


def test_the_hessian_times_the_gradient_is_that_of_a_second_backward_pass() -> None:
    torch.manual_seed(0)
    network = trace(Smooth(), PICTURES[:1])
    exact = copy.deepcopy(network.module)
    weights = [exact.get_parameter(key) for key in network.layers]
    losses = [functional.cross_entropy(step, LABELS) for step in exact(PICTURES)]
    mean = sum(losses) / torch.tensor(STEPS)
    slopes = torch.autograd.grad(mean, weights, create_graph=True)
    half = sum((slope.square().sum() for slope in slopes), torch.zeros(())) / 2
    expected = dict(zip(network.layers, torch.autograd.grad(half, weights), strict=True))
    close(
        compute_weight_gradients(network, Batches(begin=batches), "hessian-gradient"),
        expected,
        rel=1e-2,
    )


def test_weights_that_are_0_do_not_move_along_the_gradient() -> None:
    torch.manual_seed(0)
    network = trace(Smooth(), PICTURES[:1])
    with torch.no_grad():
        network.module.get_parameter("fc1.weight")[1:] = 0
    exact = copy.deepcopy(network.module)
    weights = [exact.get_parameter(key) for key in network.layers]
    losses = [functional.cross_entropy(step, LABELS) for step in exact(PICTURES)]
    slopes = torch.autograd.grad(sum(losses) / torch.tensor(STEPS), weights, create_graph=True)
    alive = [(weight != 0) * slope.detach() for weight, slope in zip(weights, slopes, strict=True)]
    along = sum((s * d).sum() for s, d in zip(slopes, alive, strict=True))
    assert isinstance(along, Tensor)
    expected = dict(zip(network.layers, torch.autograd.grad(along, weights), strict=True))
    close(
        compute_weight_gradients(network, Batches(begin=batches), "hessian-gradient"),
        expected,
        rel=1e-2,
    )


class Chain(nn.Module):
    """Two layers with a BatchNorm, a bias and a neuron between."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.norm, self.lif = nn.Linear(128, 5), nn.BatchNorm1d(5), lif()
        self.fc2 = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(self.fc1(x.flatten(1)))
        return self.fc2(self.lif(z.expand(STEPS, -1, -1)))


def test_flow_is_the_product_of_absolute_matrices() -> None:
    torch.manual_seed(0)
    module = Chain().eval()
    nn.init.uniform_(module.norm.weight, -1.0, 1.0)
    module.norm.get_buffer("running_var").uniform_(0.1, 2.0)
    module.norm.get_buffer("running_mean").uniform_(-2.0, 2.0)
    found = compute_weight_gradients(trace(module, PICTURES[:1]), Batches(begin=batches), "flow")

    first = module.fc1.weight.detach().double().abs()
    second = module.fc2.weight.detach().double().abs()
    variance = module.norm.get_buffer("running_var").double() + module.norm.eps
    factor = module.norm.weight.detach().double().abs() / variance.sqrt()
    onward = second.sum(0) * factor * STEPS
    arriving = first.sum(1) * factor * STEPS
    close(
        found,
        {"fc1.weight": onward.unsqueeze(1).expand(5, 128), "fc2.weight": arriving.expand(4, 5)},
        rel=1e-6,
    )


@pytest.mark.parametrize("name", ["SpikingJelly", "snnTorch", "sinabs", "norse", "samples first"])
def test_as_much_flows_through_each_layer(name: str) -> None:
    network = traced(name)
    found = compute_weight_gradients(network, Batches(begin=batches), "flow")
    sums = [float((network.weight(key).abs() * found[key]).sum()) for key in network.layers]
    assert sums[0] > 0
    assert sums == pytest.approx([sums[0]] * len(sums), rel=1e-5)


class Products(nn.Module):
    """Weights as parameters that spikes are multiplied by, or looked at from the other side."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.lif1, self.lif2 = nn.Linear(128, 6), lif(), lif()
        self.w, self.turned = nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.randn(CLASSES, 5))

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.lif1(self.first(x.flatten(1)).expand(STEPS, -1, -1))
        return self.lif2(spikes @ self.w) @ self.turned.t()


def test_flow_goes_through_products_by_the_size_of_their_weights() -> None:
    torch.manual_seed(0)
    network = trace(Products().eval(), PICTURES[:1])
    found = compute_weight_gradients(network, Batches(begin=batches), "flow")
    assert set(found) == set(network.layers) == {"first.weight", "w", "turned"}
    first, w, turned = (
        network.module.get_parameter(key).detach().double().abs()
        for key in ("first.weight", "w", "turned")
    )
    arriving = STEPS * first.sum(1)
    onward = turned.sum(0)
    expected = {
        "first.weight": (STEPS * (w @ onward)).unsqueeze(1).expand(6, 128),
        "w": arriving.unsqueeze(1) * onward,
        "turned": (arriving @ w).expand(CLASSES, 5),
    }
    close(found, expected, rel=1e-6)


def test_flow_of_a_deep_network_does_not_overflow() -> None:
    torch.manual_seed(0)
    deep = nn.Sequential(nn.Flatten(), nn.Linear(128, 8), nn.Unflatten(1, (8,)), *blocks(60))
    found = compute_weight_gradients(trace(deep, PICTURES[:1]), Batches(begin=batches), "flow")
    assert all(bool(value.isfinite().all()) for value in found.values())
    assert float(found["1.weight"].max()) > torch.finfo(torch.float32).max


def blocks(count: int) -> list[nn.Module]:
    made: list[nn.Module] = []
    for _ in range(count):
        linear = nn.Linear(8, 8)
        nn.init.uniform_(linear.weight, 0.0, 2.0)
        made += [OneStep(), linear]
    return made


class OneStep(nn.Module):
    """A neuron for a single time step."""

    def __init__(self) -> None:
        super().__init__()
        self.lif = lif()

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.lif(x.unsqueeze(0))[0]
        return spikes


def state_of(module: nn.Module) -> list[object]:
    """All that a pass might leave changed."""
    return [
        *((key, value.clone()) for key, value in module.state_dict().items()),
        *((key, p.data_ptr(), p.requires_grad, p.grad) for key, p in module.named_parameters()),
        *(
            (name, part.training, len(part._forward_hooks), len(part._forward_pre_hooks))
            for name, part in module.named_modules()
        ),
        *((name, getattr(part, "v", None)) for name, part in module.named_modules()),
    ]


def same(before: list[object], after: list[object]) -> bool:
    return all(
        torch.equal(one, other) if isinstance(one, Tensor) else one is other or one == other
        for first, second in zip(before, after, strict=True)
        for one, other in zip(first, second, strict=True)  # type: ignore[call-overload]  # rows of state_of
    )


@pytest.mark.many(2)
@pytest.mark.parametrize("need", EVERY)
@pytest.mark.parametrize("name", ["own", "SpikingJelly", "snnTorch"])
def test_nothing_is_left_changed(name: str, need: Found) -> None:
    network = traced(name)
    module = network.module
    first = next(iter(module.children()))
    first.train()
    for parameter in first.parameters():
        parameter.requires_grad_(False)
    last = list(module.parameters())[-1]
    last.grad = torch.ones_like(last)
    before = state_of(module)
    compute_weight_gradients(network, Batches(begin=batches), need)
    assert same(before, state_of(module))
    assert torch.equal(last.grad, torch.ones_like(last))

    calls = 0

    def breaks(module: nn.Module, x: Tensor) -> Any:
        nonlocal calls
        calls += 1
        output = module(x)
        if calls == (1 if need == "flow" else 3):
            raise KeyboardInterrupt
        return output

    with pytest.raises(KeyboardInterrupt):
        compute_weight_gradients(
            network.with_forward(breaks), Batches(begin=lambda: batches(1)), need
        )
    assert same(before, state_of(module))


def test_an_exception_in_the_middle_of_a_step_puts_weights_back() -> None:
    network = traced("own")
    before = state_of(network.module)
    calls = 0

    def breaks(module: nn.Module, x: Tensor) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:  # three batches for the gradient, then the weights are moved
            assert not same(before, state_of(module))
            raise KeyboardInterrupt
        return module(x)

    with pytest.raises(KeyboardInterrupt):
        compute_weight_gradients(
            network.with_forward(breaks), Batches(begin=batches), "hessian-gradient"
        )
    assert same(before, state_of(network.module))


@pytest.mark.parametrize("need", ["gradient", "squared-gradient", "absolute-gradient"])
def test_a_weight_behind_a_mask_of_torch_is_found_at_its_parameter(need: Found) -> None:
    plain, masked = made("own"), made("own")
    assert isinstance(plain, Own)
    assert isinstance(masked, Own)
    mask = torch.rand(plain.conv2.weight.shape, generator=torch.Generator().manual_seed(0)) > 0.5
    with torch.no_grad():
        plain.conv2.weight.mul_(mask)
    prune.custom_from_mask(masked.conv2, "weight", mask)
    network = trace(masked, PICTURES[:1])
    weight = masked.conv2.weight
    expected = compute_weight_gradients(trace(plain, PICTURES[:1]), Batches(begin=batches), need)
    found = compute_weight_gradients(network, Batches(begin=batches), need)
    close(found, {"conv2.weight_orig": expected["conv2.weight"] * mask})
    assert masked.conv2.weight is weight


def test_without_labels_the_classes_that_the_network_chooses_are_taken() -> None:
    network = traced("own")
    chosen = network.module(PICTURES).sum(0).argmax(1)
    assert not torch.equal(chosen, LABELS)
    found = compute_weight_gradients(
        network, Batches(begin=lambda: batches(labelled=False)), "gradient"
    )
    labelled = compute_weight_gradients(
        network, Batches(begin=lambda: [(PICTURES, chosen)]), "gradient"
    )
    close(found, labelled)


def test_moved_weights_keep_the_labels_of_the_network_as_it_was() -> None:
    network = traced("own")
    chosen = network.module(PICTURES).sum(0).argmax(1)
    found = compute_weight_gradients(
        network, Batches(begin=lambda: [(PICTURES, None)]), "hessian-gradient"
    )
    labelled = compute_weight_gradients(
        network, Batches(begin=lambda: [(PICTURES, chosen)]), "hessian-gradient"
    )
    close(found, labelled, rel=1e-12)


def test_other_readouts_have_other_losses() -> None:
    network = traced("own")
    found = compute_weight_gradients(
        network.with_readout("mean"), Batches(begin=batches), "gradient"
    )
    module = copy.deepcopy(network.module)
    loss = functional.cross_entropy(module(PICTURES).mean(0), LABELS)
    slopes = torch.autograd.grad(loss, [module.get_parameter(key) for key in network.layers])
    close(found, dict(zip(network.layers, slopes, strict=True)))


class Heaviside(torch.autograd.Function):
    """A rectangle as surrogate gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * (x.abs() < 0.5).float()


class ByHand(nn.Module):
    """A neuron that is a line of code in a time loop."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(128, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        mem, steps = torch.zeros(len(x), 6), []
        for _ in range(STEPS):
            mem = 0.5 * mem + self.fc1(x.flatten(1))
            spikes = Heaviside.apply(mem - 0.3)
            mem = mem * (1 - spikes)
            steps.append(self.fc2(spikes))
        return torch.stack(steps)


def test_neurons_in_somebodys_code_have_gradients_but_no_flow() -> None:
    torch.manual_seed(0)
    network = trace(ByHand(), PICTURES[:1])
    _, squares = mean_and_square_alone(network)
    close(compute_weight_gradients(network, Batches(begin=batches), "squared-gradient"), squares)
    with pytest.raises(InputError, match="comparison in somebody's code"):
        compute_weight_gradients(network, Batches(begin=batches), "flow")


class Mixing(Own):
    """Normalises by the batch in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(4, track_running_stats=False)


def test_samples_that_a_network_mixes_have_no_squares() -> None:
    torch.manual_seed(0)
    network = trace(Mixing().eval(), PICTURES)
    before = state_of(network.module)
    with pytest.raises(InputError, match=r"conv1\.weight: the gradients of the samples"):
        compute_weight_gradients(network, Batches(begin=lambda: batches(5)), "squared-gradient")
    assert same(before, state_of(network.module))
    assert compute_weight_gradients(network, Batches(begin=lambda: batches(5)), "gradient")


def detached(module: nn.Module, x: Tensor) -> Tensor:
    output: Tensor = module(x).detach()
    return output


@pytest.mark.parametrize("need", EVERY)
def test_a_network_that_detaches_is_an_input_error(need: Found) -> None:
    with pytest.raises(InputError, match="no gradient reaches the weights"):
        compute_weight_gradients(traced("own").with_forward(detached), Batches(begin=batches), need)


@pytest.mark.parametrize("need", EVERY)
def test_no_samples_are_an_input_error(need: Found) -> None:
    with pytest.raises(InputError, match="no samples"):
        compute_weight_gradients(traced("own"), Batches(begin=list), need)


def test_a_label_that_is_no_class_and_a_loss_that_is_nan_are_told() -> None:
    network = traced("own")
    with pytest.raises(InputError, match="label 4 for a network of 4 classes"):
        compute_weight_gradients(
            network, Batches(begin=lambda: [(PICTURES, LABELS + 1)]), "gradient"
        )
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        compute_weight_gradients(
            network.with_forward(lambda module, x: module(x) * torch.nan),
            Batches(begin=batches),
            "gradient",
        )


def test_a_weight_that_no_gradient_reaches_is_left_out() -> None:
    def half(module: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(module, Own)
        z = module.lif1(module.norm1(module.conv1(x)).expand(STEPS, -1, -1, -1, -1)).detach()
        z = module.conv2(z.flatten(0, 1)).unflatten(0, (STEPS, -1))
        logits: Tensor = module.fc(module.lif2(z).flatten(2))
        return logits

    for need in ("gradient", "squared-gradient", "absolute-gradient", "hessian-gradient"):
        found = compute_weight_gradients(
            traced("own").with_forward(half), Batches(begin=batches), need
        )
        assert set(found) == {"conv2.weight", "fc.weight"}
