"""Tuning by surrogate gradients: nearer to the dense network, without labels, and nothing else."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from pruned_networks import PICTURES, batches
from repairing import BrokenError, breaking, changed, cut, dense, masks_of, pruned, surroundings
from torch import Tensor, nn

from snnprune.data.batches import Batches
from snnprune.errors import InputError, NonFiniteError
from snnprune.graph.forward import Batch
from snnprune.pruning.repair.pruned import Pruned
from snnprune.pruning.repair.tuning import (
    AT_ONCE,
    TEMPERATURE,
    _compute_divergence,
    _iter_pieces,
    tune,
)

TUNED = ("convolved", "SpikingJelly at once", "snnTorch", "linears", "tied")


def apart(of: Pruned) -> float:
    """T^2 KL of the summed logits from the dense network's, by its definition."""
    with torch.no_grad():
        with dense(of) as module:
            wanted = (module(PICTURES).sum(0) / TEMPERATURE).softmax(1)
        with dense(replace(of, dense=of.network.module.state_dict())) as module:
            made = (module(PICTURES).sum(0) / TEMPERATURE).softmax(1)
    return float(TEMPERATURE**2 * (wanted * (wanted / made).log()).sum(1).mean())


@pytest.mark.parametrize("name", TUNED)
def test_outputs_come_nearer_to_the_dense_networks(name: str) -> None:
    of = pruned(name)
    before = apart(of)
    masks = tune(of)
    assert 0 <= apart(of) < 0.9 * before
    weights = {key: of.network.weight(key) for key in masks}
    assert all(not weights[key][~mask].any() for key, mask in masks.items())
    assert any(bool(weights[key][mask].any()) for key, mask in masks.items())
    assert masks is of.masks


@pytest.mark.parametrize("name", TUNED)
def test_nothing_else_is_left_behind(name: str) -> None:
    of = pruned(name)
    module = of.network.module
    module.train()
    first = next(module.parameters())
    first.requires_grad_(False)
    last = list(module.parameters())[-1]
    last.grad = torch.ones_like(last)
    before, kept = surroundings(module), {key: t.clone() for key, t in of.dense.items()}
    tune(of)
    assert surroundings(module) == before
    assert all(torch.equal(of.dense[key], tensor) for key, tensor in kept.items())
    assert torch.equal(last.grad, torch.ones_like(last))


@pytest.mark.parametrize("after", [0, 1, 5])
def test_an_exception_of_the_users_own_leaves_everything_as_it_was(after: int) -> None:
    of = pruned("convolved")
    before, kept = surroundings(of.network.module), {k: t.clone() for k, t in of.dense.items()}
    with pytest.raises(BrokenError):
        tune(breaking(of, after))
    assert surroundings(of.network.module) == before
    assert all(torch.equal(of.dense[key], tensor) for key, tensor in kept.items())


def poisoned() -> Iterator[Batch]:
    """Labels that are no classes."""
    for x, _ in batches():
        yield x, torch.full((len(x),), -(10**6))


def test_labels_are_not_read() -> None:
    found = []
    for given in (batches, poisoned):
        of = replace(pruned("convolved"), batches=Batches(begin=given))
        tune(of)
        found.append({key: t.clone() for key, t in of.network.module.state_dict().items()})
    assert all(torch.equal(found[1][key], tensor) for key, tensor in found[0].items())


def test_a_seed_gives_the_same_network_again_and_another_one_another() -> None:
    found = []
    for seed in (0, 0, 1):
        of = pruned("linears", seed=seed)
        tune(of)
        found.append(of.network.weight("fc1.weight").clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_layer_without_a_mask_is_neither_tuned_nor_asked_for_a_gradient() -> None:
    network = pruned("convolved").network
    masks = {key: mask for key, mask in masks_of(network).items() if key != "conv3.weight"}
    of = cut(network, masks)
    tune(of)
    assert not {"conv3.weight", "conv3.bias"} & changed(of)
    assert all(parameter.grad is None for parameter in network.module.parameters())


def test_the_global_generator_is_where_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    of = pruned("linears")
    torch.set_rng_state(state)
    tune(of)
    assert torch.equal(torch.rand(1), expected)


def test_a_network_that_detaches_is_told_in_one_line() -> None:
    of = pruned("linears")

    def detached(module: nn.Module, x: Tensor) -> Tensor:
        output = module(x)
        assert isinstance(output, Tensor)
        return output.detach()

    with pytest.raises(InputError, match="no gradient reaches the weights"):
        tune(replace(of, network=of.network.with_forward(detached)))


def test_logits_that_are_not_finite_are_told_in_one_line() -> None:
    of = pruned("linears")
    spoilt = of.network.with_forward(lambda module, x: module(x) * torch.nan)
    with pytest.raises(NonFiniteError, match="finite"):
        tune(replace(of, network=spoilt))
    assert all(parameter.grad is None for parameter in of.network.module.parameters())


def test_the_loss_is_the_scaled_divergence_of_the_softmax() -> None:
    made, wanted = torch.tensor([[0.0, 8.0]]), torch.tensor([[8.0, 0.0]])
    p = 1 / (1 + torch.tensor(-1.0).exp())
    expected = 64 * (p * (p / (1 - p)).log() + (1 - p) * ((1 - p) / p).log())
    torch.testing.assert_close(_compute_divergence(made, wanted), expected)
    assert float(_compute_divergence(made, made)) == pytest.approx(0, abs=1e-5)


def pieces(x: Tensor, y: Tensor | None, name: str = "convolved") -> list[tuple[Tensor, int]]:
    return list(
        _iter_pieces(replace(pruned(name), batches=Batches(begin=lambda: [(x, y)])), epoch=0)
    )


def test_batches_are_mixed_and_cut_along_their_samples() -> None:
    count = AT_ONCE + 6
    x = torch.arange(count).float().view(-1, 1).repeat(1, 3)
    found = pieces(x, None)
    assert [samples for _, samples in found] == [AT_ONCE, 6]
    mixed = torch.cat([part for part, _ in found])
    assert not torch.equal(mixed, x)
    assert torch.equal(mixed[:, 0].sort().values, x[:, 0])
    events = x.T.contiguous()  # (T, N)
    found = pieces(events, torch.zeros(count))
    assert [part.shape for part, _ in found] == [(3, AT_ONCE), (3, 6)]
    assert all(torch.equal(part[0], part[2]) for part, _ in found)


def test_as_many_steps_as_samples_are_not_mixed_up() -> None:
    """(T, N) and (N, T) look alike, so that nothing may be moved."""
    events = torch.rand(4, 4, 2)
    ((found, samples),) = pieces(events, torch.zeros(4))
    assert torch.equal(found, events)
    assert samples == 4


def test_samples_one_by_one_will_do_where_no_norm_needs_a_variance() -> None:
    def alone() -> Iterator[Batch]:
        yield from batches(1)

    bare = replace(pruned("linears"), batches=Batches(begin=alone))
    before = apart(bare)
    tune(bare)
    assert apart(bare) < 0.9 * before
    with pytest.raises(InputError, match="two samples"):
        tune(replace(pruned("convolved"), batches=Batches(begin=alone)))


@pytest.mark.parametrize("size", [3, 6])
def test_one_batch_or_two_are_enough(size: int) -> None:
    of = replace(pruned("snnTorch"), batches=Batches(begin=lambda: batches(size)))
    before = apart(of)
    tune(of)
    assert apart(of) < 0.9 * before
