"""Repairs that go layer by layer, against normal equations and means written out by hand."""

import pytest
import torch
from pruned_networks import BETA, NETWORKS, PICTURES, STEPS, entering
from repairing import (
    BrokenError,
    breaking,
    changed,
    cut,
    dense,
    masks_of,
    pruned,
    surroundings,
    whole,
)
from torch import Tensor, nn
from torch.nn import functional

from snnprune.masks import Masks
from snnprune.measure.second_moments import compute_losses
from snnprune.pruning.criteria.obs import RIDGE
from snnprune.pruning.repair import Pruned, Repair, load_repairs
from snnprune.pruning.repair.layerwise import choose_and_refit, compensate, give_back_means, refit

LAYERWISE: dict[str, Repair] = {
    "mean": give_back_means,
    "sbc": compensate,
    "lsq": refit,
    "obs": choose_and_refit,
}


def solved(
    x: Tensor, y: Tensor, mask: Tensor, start: Tensor, *, free: bool, ridge: float = RIDGE
) -> Tensor:
    """Rows of W that minimise E|y - W x|^2 + ridge s |W - start|^2 where kept, (out, d)."""
    x, y, start = x.double(), y.double(), start.double()
    if free:
        x, y = x - x.mean(0), y - y.mean(0)
    pull = ridge * x.square().mean()
    found = torch.zeros_like(start)
    for row, keep in enumerate(mask):
        if keep.any():
            a = x[:, keep]
            left = a.T @ a / len(a) + pull * torch.eye(int(keep.sum()), dtype=torch.float64)
            right = a.T @ y[:, row] / len(a) + pull * start[row, keep]
            found[row, keep] = torch.linalg.solve(left, right)
    return found


def close(found: Tensor, expected: Tensor) -> None:
    """Within 1e-4 of the largest; CG stops at a residual of 1e-6."""
    largest = float(expected.abs().max())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-4 * largest)


def added_up(x: Tensor, decay: float) -> Tensor:
    """What a membrane has of (T, ...) at each step."""
    found = [x[0]]
    for now in x[1:]:
        found.append(decay * found[-1] + now)
    return torch.stack(found)


def unfolded(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Rows (n, d) of (S, C, H, W), without groups."""
    assert isinstance(conv.padding, tuple)
    seen = functional.unfold(x, conv.kernel_size, padding=conv.padding, stride=conv.stride)
    return seen.transpose(1, 2).flatten(0, 1)


def conv_of(of: Pruned, name: str) -> nn.Conv2d:
    conv = of.network.module.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    return conv


@pytest.mark.parametrize("name", ["convolved", "SpikingJelly at once", "SpikingJelly stepwise"])
def test_the_first_layer_is_the_ridge_solution_on_pictures(name: str) -> None:
    of = pruned(name)
    masks = refit(of)
    steps = 1 if name == "convolved" else STEPS  # the others see each picture at every step
    pictures = added_up(PICTURES.repeat(steps, 1, 1, 1, 1), BETA).flatten(0, 1)
    rows = unfolded(pictures, conv_of(of, "conv1"))
    weight = of.dense["conv1.weight"].flatten(1)
    expected = solved(rows, rows @ weight.T, masks["conv1.weight"].flatten(1), weight, free=True)
    close(of.network.weight("conv1.weight").flatten(1), expected)


def test_a_layer_without_norm_or_bias_has_its_means_fitted_too() -> None:
    of = pruned("linears")
    refit(of)
    caught, wanted = entering(of.network.module, "fc2")[0], dense_entering(of, "fc2")[0]
    # (T, N, C) behind a linear layer could be tokens: T is not known, nothing is added up
    rows, weight = caught.flatten(0, 1), of.dense["fc2.weight"]
    target = wanted.flatten(0, 1) @ weight.T
    expected = solved(rows, target, of.masks["fc2.weight"], weight, free=False)
    close(of.network.weight("fc2.weight"), expected)


def dense_entering(of: Pruned, layer: str) -> list[Tensor]:
    """What enters a layer of the dense network at each call."""
    with dense(of) as module:
        return entering(module, layer)


def test_the_second_layer_is_fitted_on_the_pruned_networks_own_inputs() -> None:
    """snnTorch, no normalisation: fc1 gets spikes that come of a mended conv, step by step."""
    of = pruned("snnTorch")
    refit(of)
    rows, dense_rows = (
        added_up(torch.stack(caught), BETA).flatten(0, 1)
        for caught in (entering(of.network.module, "fc1"), dense_entering(of, "fc1"))
    )
    assert not torch.equal(rows, dense_rows)
    weight = of.dense["fc1.weight"]
    mask = of.masks["fc1.weight"]
    expected = solved(rows, dense_rows @ weight.T, mask, weight, free=True)
    close(of.network.weight("fc1.weight"), expected)


def test_each_layer_alone_makes_up_for_its_weights_on_the_dense_networks_inputs() -> None:
    of = pruned("snnTorch")
    compensate(of)
    for layer, rows in (
        ("fc1", added_up(torch.stack(dense_entering(of, "fc1")), BETA).flatten(0, 1)),
        ("fc2", torch.stack(dense_entering(of, "fc2")).mean(0)),
    ):
        weight, mask = of.dense[f"{layer}.weight"], of.masks[f"{layer}.weight"]
        expected = solved(rows, rows @ weight.T, mask, weight, free=False)
        close(of.network.weight(f"{layer}.weight"), expected)
    assert changed(of) == set(of.masks)


def test_a_bias_takes_the_mean_of_what_the_membrane_misses() -> None:
    """The membrane adds a bias up over time as it does the inputs."""
    of = pruned("snnTorch", kept=0.3)
    refit(of)
    rows, dense_rows = (
        torch.stack(caught)
        for caught in (entering(of.network.module, "fc1"), dense_entering(of, "fc1"))
    )
    layer = of.network.module.get_submodule("fc1")
    assert isinstance(layer, nn.Linear)
    wanted = functional.linear(dense_rows, of.dense["fc1.weight"], of.dense["fc1.bias"])
    given = functional.linear(rows, layer.weight, layer.bias)
    mean, other = (added_up(current, BETA).mean((0, 1)) for current in (given, wanted))
    torch.testing.assert_close(mean, other, rtol=1e-4, atol=1e-5)


def test_a_readout_is_fitted_to_the_mean_over_time() -> None:
    of = pruned("snnTorch", kept=0.4)
    refit(of)
    rows, dense_rows = (
        torch.stack(caught).mean(0)
        for caught in (entering(of.network.module, "fc2"), dense_entering(of, "fc2"))
    )
    weight, mask = of.dense["fc2.weight"], of.masks["fc2.weight"]
    expected = solved(rows, dense_rows @ weight.T, mask, weight, free=True)
    close(of.network.weight("fc2.weight"), expected)
    wanted = functional.linear(dense_rows, weight, of.dense["fc2.bias"])
    given = functional.linear(rows, *of.network.module.get_submodule("fc2").parameters())
    torch.testing.assert_close(given.mean(0), wanted.mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.many(2)
@pytest.mark.parametrize("name", NETWORKS)
def test_under_masks_that_keep_all_weights_stay(name: str) -> None:
    of = whole(name)
    if any(isinstance(child, nn.BatchNorm2d) for child in of.network.module.modules()):
        load_repairs("bn")[0](of)  # with the statistics of these very batches
        of = cut(of.network, of.masks)
    refit(of)
    first = next(iter(of.network.layers))
    close(of.network.weight(first), of.dense[first].double())
    if not any(isinstance(child, nn.BatchNorm2d) for child in of.network.module.modules()):
        for key in of.masks:
            close(of.network.weight(key), of.dense[key].double())


@pytest.mark.many(2)
@pytest.mark.parametrize("repair", LAYERWISE)
@pytest.mark.parametrize("name", NETWORKS)
def test_pruned_weights_stay_0_and_nothing_else_is_left_behind(name: str, repair: str) -> None:
    of = pruned(name)
    module = of.network.module
    module.train()
    next(iter(module.children())).eval()
    before, kept = surroundings(module), {key: t.clone() for key, t in of.dense.items()}
    masks = LAYERWISE[repair](of)
    assert surroundings(module) == before
    assert all(torch.equal(of.dense[key], tensor) for key, tensor in kept.items())
    weights = {key: of.network.weight(key) for key in of.network.layers}
    assert all(not weights[key][~mask].any() for key, mask in masks.items())
    assert {key: int(mask.sum()) for key, mask in masks.items()} == {
        key: int(mask.sum()) for key, mask in of.masks.items()
    }
    allowed = ("weight", "bias", "running_mean", "running_var")
    assert all(key.endswith(allowed) for key in changed(of))
    norms = [key for key in of.dense if "norm" in key]
    assert not {key for key in norms if "running" not in key} & changed(of)


@pytest.mark.parametrize("repair", ["lsq", "obs", "mean"])
def test_a_layer_without_a_mask_is_not_touched(repair: str) -> None:
    network = pruned("convolved").network
    masks = {key: mask for key, mask in masks_of(network).items() if key != "conv3.weight"}
    of = cut(network, masks)
    assert set(LAYERWISE[repair](of)) == set(masks)
    assert not {"conv3.weight", "conv3.bias"} & changed(of)


@pytest.mark.parametrize("repair", LAYERWISE)
@pytest.mark.parametrize("after", [0, 1, 4])
def test_an_exception_of_the_users_own_leaves_modes_and_hooks_as_they_were(
    repair: str, after: int
) -> None:
    of = pruned("convolved")
    kept = {key: tensor.clone() for key, tensor in of.dense.items()}
    before = surroundings(of.network.module)
    with pytest.raises(BrokenError):
        LAYERWISE[repair](breaking_first(of, after))
    assert surroundings(of.network.module) == before
    assert all(torch.equal(of.dense[key], tensor) for key, tensor in kept.items())


def breaking_first(of: Pruned, after: int) -> Pruned:
    """BrokenError before the network is asked: a pass that ends early never comes back."""
    calls = 0

    def run(module: nn.Module, x: Tensor) -> object:
        nonlocal calls
        calls += 1
        if calls > after:
            raise BrokenError
        return module(x)

    network = of.network.with_forward(run)
    return Pruned(network=network, dense=of.dense, masks=of.masks, batches=of.batches)


def test_a_whole_pass_that_breaks_is_told() -> None:
    with pytest.raises(BrokenError):
        refit(breaking(pruned("convolved"), 0))


def error(of: Pruned) -> float:
    """Mean square of the logits' difference from the dense network's."""
    with torch.no_grad(), dense(of) as module:
        wanted = module(PICTURES).mean(0)
    with torch.no_grad():
        return float((of.network.module(PICTURES).mean(0) - wanted).square().mean())


@pytest.mark.parametrize("name", ["convolved", "snnTorch", "sinabs", "linears", "tied"])
def test_a_mended_network_is_nearer_to_the_dense_one(name: str) -> None:
    cut_only, mended = pruned(name), pruned(name)
    refit(mended)
    assert error(mended) < error(cut_only)


def test_obs_keeps_its_masks_where_they_have_a_structure() -> None:
    fixed, free = pruned("convolved", fixed=True), pruned("convolved")
    kept, chosen = choose_and_refit(fixed), choose_and_refit(free)
    assert all(torch.equal(kept[key], fixed.masks[key]) for key in kept)
    assert any(not torch.equal(chosen[key], free.masks[key]) for key in chosen)


def test_obs_chooses_among_what_may_be_chosen_alone() -> None:
    choosable = masks_of(pruned("convolved").network, kept=0.8)
    network = pruned("convolved").network
    drawn = torch.Generator().manual_seed(3)
    masks = {
        key: mask & (torch.rand(mask.shape, generator=drawn) < 0.5)
        for key, mask in choosable.items()
    }
    chosen = choose_and_refit(cut(network, masks, choosable=choosable))
    assert all(not (mask & ~choosable[key]).any() for key, mask in chosen.items())


def test_obs_keeps_what_is_worth_most_of_the_weights_that_would_be_best() -> None:
    """snnTorch: fc1 sees spikes of a mended conv; all of its weights are fitted before a choice."""
    of = pruned("snnTorch")
    chosen = choose_and_refit(of)["fc1.weight"]
    rows, dense_rows = (
        added_up(torch.stack(caught), BETA).flatten(0, 1).double()
        for caught in (entering(of.network.module, "fc1"), dense_entering(of, "fc1"))
    )
    weight = of.dense["fc1.weight"].double()
    wanted = dense_rows @ weight.T
    rows, wanted = rows - rows.mean(0), wanted - wanted.mean(0)
    matrix = rows.T @ rows / len(rows)
    pull = RIDGE * matrix.diagonal().mean()
    raised = matrix + pull * torch.eye(len(matrix), dtype=torch.float64)
    best = torch.linalg.solve(raised, rows.T @ wanted / len(rows) + pull * weight.T).T
    losses = compute_losses(torch.linalg.inv(raised).unsqueeze(0), best.unsqueeze(0))[0]
    # without statistics the density of a Gaussian as wide as the current, at its mean
    worth = losses / ((weight @ matrix) * weight).sum(1, keepdim=True)
    expected = torch.zeros_like(chosen).flatten()
    expected[worth.flatten().argsort(descending=True)[: int(of.masks["fc1.weight"].sum())]] = True
    assert torch.equal(chosen.flatten(), expected)


def test_obs_fits_better_than_the_masks_that_it_was_given() -> None:
    given, chosen = pruned("linears", kept=0.3), pruned("linears", kept=0.3)
    refit(given)
    choose_and_refit(chosen)
    assert error(chosen) < error(given)


def mean_currents(of: Pruned, layer: str) -> tuple[Tensor, Tensor]:
    """Of the network as it is and of the dense one, per channel, as the neuron has them."""
    found = []
    for caught, tensors in (
        (entering(of.network.module, layer), of.network.module.state_dict()),
        (dense_entering(of, layer), of.dense),
    ):
        weight, bias = tensors[f"{layer}.weight"], tensors.get(f"{layer}.bias")
        module = of.network.module.get_submodule(layer)
        with torch.no_grad():
            currents = torch.cat([current(module, x, weight, bias) for x in caught])
        found.append(currents.mean([axis for axis in range(currents.dim()) if axis != 1]))
    return found[0], found[1]


def current(module: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What a layer makes of `x`, (S, C, ...)."""
    if isinstance(module, nn.Conv1d):
        return functional.conv1d(x, weight, bias, module.stride, module.padding)
    if isinstance(module, nn.Conv2d):
        flat = x.flatten(0, -4) if x.dim() > 4 else x
        return functional.conv2d(
            flat, weight, bias, module.stride, module.padding, groups=module.groups
        )
    return functional.linear(x, weight, bias).flatten(0, -2)


MEANS = {
    "convolved": ["conv1", "conv3", "fc"],  # conv2 has neither bias nor BatchNorm
    "snnTorch": ["conv", "fc1", "fc2"],
    "sinabs": ["fc1", "fc2", "fc3"],
    "SpikingJelly stepwise": ["conv1", "fc"],
}


@pytest.mark.many(2)
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("name", MEANS)
def test_every_channel_gets_the_mean_of_its_current_back(name: str, times: int) -> None:
    """Also a second time, as behind another repair or at the next of several steps."""
    of = pruned(name)
    for _ in range(times):
        give_back_means(of)
    for layer in MEANS[name]:
        given, wanted = mean_currents(of, layer)
        if f"{layer}.bias" not in of.dense:  # the running mean takes off less
            mean = of.network.module.state_dict()[f"{layer.replace('conv', 'norm')}.running_mean"]
            given = given - mean
            wanted = wanted - of.dense[f"{layer.replace('conv', 'norm')}.running_mean"]
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-5)


def test_means_that_least_squares_moved_are_given_back_once() -> None:
    of = pruned("snnTorch")
    for repair in load_repairs("lsq+mean"):
        repair(of)
    given, wanted = mean_currents(of, "fc1")
    torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-5)


def test_giving_back_means_changes_biases_and_running_means_alone() -> None:
    of = pruned("convolved")
    give_back_means(of)
    masks: Masks = of.masks
    now = of.network.module.state_dict()
    assert all(torch.equal(now[key], of.dense[key] * mask) for key, mask in masks.items())
    assert changed(of) - set(masks) == {"conv3.bias", "fc.bias", "norm1.running_mean"}


def test_a_batch_norm_on_the_way_has_its_statistics_moved_by_what_changed() -> None:
    of = pruned("convolved")
    refit(of)
    conv, held = conv_of(of, "conv1"), of.dense["norm1.running_mean"].double()
    with torch.no_grad():
        now = conv(PICTURES).double()
        was = functional.conv2d(PICTURES, of.dense["conv1.weight"], padding=1).double()
    spread = [one.std((0, 2, 3), correction=0) for one in (now, was)]
    expected = now.mean((0, 2, 3)) - (was.mean((0, 2, 3)) - held) * spread[0] / spread[1]
    found = of.network.module.get_submodule("norm1").get_buffer("running_mean")
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
