"""Tuning by surrogate gradients: nearer to the dense network, without labels, and nothing else."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from pruned_networks import CLASSES, PICTURES, STEPS, batches, lif, made
from repairing import BrokenError, breaking, changed, cut, dense, masks_of, surroundings, whole
from repairing import pruned as pruned_at_random
from torch import Tensor, nn

from snnprune.data.batches import Batches
from snnprune.errors import InputError, NonFiniteError
from snnprune.graph.forward import Batch
from snnprune.graph.trace import trace
from snnprune.pruning.repair import Pruned, TuneOutcome, TuneSettings, tuning
from snnprune.pruning.repair.tuning import (
    MaskGrowth,
    StepCost,
    compute_divergence,
    measure_spread,
    measure_step,
    tune,
)

TUNED = ("convolved", "SpikingJelly at once", "snnTorch", "linears", "tied")
SHORT = TuneSettings(steps=40, learning_rate=3e-3)
Change = Callable[[Tensor], Tensor]


def pruned(name: str, kept: float = 0.5, **given: Any) -> Pruned:
    """The network of that name, pruned at random and to be tuned for a short time."""
    return replace(pruned_at_random(name, kept, **given), tuning=SHORT)


def apart(of: Pruned) -> float:
    """t^2 KL of the logits from the dense network's, by its definition; t = half a deviation."""
    with torch.no_grad():
        with dense(of) as module:
            wanted = module(PICTURES).mean(0)
        with dense(replace(of, dense=of.network.module.state_dict())) as module:
            made = module(PICTURES).mean(0)
    t = 0.5 * (wanted - wanted.mean(1, keepdim=True)).square().mean().sqrt()
    p, q = (wanted / t).softmax(1), (made / t).softmax(1)
    return float(t**2 * (p * (p / q).log()).sum(1).mean())


def test_the_settings_are_by_default_those_of_the_docs() -> None:
    assert TuneSettings() == TuneSettings(
        steps=960,
        learning_rate=0.02,
        images=4096,
        use_labels=False,
        surrogate=False,
        augment=(),
    )


@pytest.mark.many(1)
@pytest.mark.parametrize("name", TUNED)
def test_outputs_come_nearer_to_the_dense_networks(name: str) -> None:
    of = pruned(name)
    before = apart(of)
    masks = tune(of)
    assert 0 <= apart(of) < 0.9 * before
    weights = {key: of.network.weight(key) for key in masks}
    assert all(not weights[key][~mask].any() for key, mask in masks.items())
    assert any(bool(weights[key][mask].any()) for key, mask in masks.items())
    assert all(torch.equal(mask, of.masks[key]) for key, mask in masks.items())


@pytest.mark.many(2)
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
    of = cut(network, masks, tuning=SHORT)
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
    torch.testing.assert_close(compute_divergence(made, wanted, 8.0), expected)
    assert float(compute_divergence(made, made, 8.0)) == pytest.approx(0, abs=1e-5)


def test_sums_and_means_over_time_are_the_same_to_the_temperature() -> None:
    logits = torch.randn(32, 10, generator=torch.Generator().manual_seed(0))
    assert measure_spread(4 * logits + 7) == pytest.approx(4 * measure_spread(logits))
    assert measure_spread(torch.ones(3, 2)) == 1


def test_masks_grow_by_the_cubic_schedule_and_then_hold() -> None:
    weight = torch.arange(1.0, 101.0)
    growth = MaskGrowth({"w": torch.ones(100).bool()}, {"w": 10}, steps=100)
    counts = []
    for step in range(1, 101):
        growth.grow(step, lambda _: weight)
        counts.append(int(growth.masks["w"].sum()))
    cuts = {step: 10 + 90 * (1 - step / 60) ** 3 for step in (*range(8, 60, 8), 60)}
    assert {step: counts[step - 1] for step in cuts} == {s: round(n) for s, n in cuts.items()}
    assert {step for step in range(2, 101) if counts[step - 1] != counts[step - 2]} <= cuts.keys()
    assert growth.masks["w"].nonzero().flatten().tolist() == list(range(90, 100))


def test_what_is_gone_does_not_come_back_however_far_the_optimizer_moves_it() -> None:
    weight = torch.arange(10.0, 0.0, -1.0)
    growth = MaskGrowth({"w": weight < 8}, {"w": 2}, steps=20)
    for step in range(1, 21):
        growth.grow(step, lambda _: weight)
    assert weight[growth.masks["w"]].tolist() == [7, 6]


@pytest.mark.many(2)
@pytest.mark.parametrize("name", TUNED)
def test_the_smallest_weights_go_while_it_tunes(name: str) -> None:
    of = pruned(name, kept=0.8)
    counts = {key: max(1, int(mask.sum()) // 3) for key, mask in of.masks.items()}
    masks = tune(replace(of, counts=counts))
    assert {key: int(mask.sum()) for key, mask in masks.items()} == counts
    for key, mask in masks.items():
        assert not bool((mask & ~of.masks[key]).any())
        assert not of.network.weight(key)[~mask].any()


def test_small_weights_are_moved_less_far(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: dict[int, float] = {}

    class Adam(torch.optim.Adam):
        def __init__(self, groups: list[dict[str, Any]]) -> None:
            rates.update({id(group["params"][0]): group["lr"] for group in groups})
            super().__init__(groups)

    monkeypatch.setattr(tuning, "Adam", Adam)
    of = pruned("linears")
    with torch.no_grad():
        of.dense["fc1.weight"].mul_(1e-3)
    tune(of)
    small, large = (of.network.module.get_parameter(f"fc{n}.weight") for n in (1, 2))
    size = float(of.dense["fc1.weight"].square().mean().sqrt())
    assert rates[id(small)] == pytest.approx(0.4 * size)
    assert rates[id(large)] == SHORT.learning_rate


def tuned(of: Pruned, **settings: Any) -> TuneOutcome:
    """What tuning tells of itself, on all samples in one batch."""
    told: list[TuneOutcome] = []
    at_once = Batches(begin=lambda: batches(6))
    tune(replace(of, batches=at_once, tuning=replace(SHORT, **settings), tell=told.append))
    (outcome,) = told
    return outcome


@pytest.mark.parametrize("augment", [(), ("flip",), ("shift",), ("flip", "shift")])
def test_both_networks_see_a_sample_in_the_same_way(augment: tuple[str, ...]) -> None:
    # nothing is pruned: at the first step they are one network, whatever is done to a picture
    outcome = tuned(whole("linears"), steps=1, augment=augment)
    assert outcome.images == 6
    assert outcome.loss_at_first < 1e-9


@pytest.mark.parametrize(("steps", "few", "goal"), [(40, 5, 24), (16, 2, 9), (4, 1, 2), (1, 1, 0)])
def test_losses_are_told_of_an_eighth_of_the_steps_each(
    steps: int, few: int, goal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []

    def noting(*given: Any) -> Tensor:
        loss = compute_divergence(*given)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(tuning, "compute_divergence", noting)
    outcome = tuned(pruned("linears"), steps=steps)
    assert outcome.steps == len(losses) == steps
    assert outcome.loss_at_first == pytest.approx(sum(losses[:few]) / few)
    assert outcome.loss_at_goal == pytest.approx(sum(losses[goal : goal + few]) / few)
    assert outcome.loss_at_last == pytest.approx(sum(losses[-few:]) / few)


def test_the_temperature_is_half_a_deviation_of_the_dense_networks_logits() -> None:
    of = pruned("linears")
    with torch.no_grad(), dense(of) as module:
        logits = module(PICTURES).mean(0)
    spread = (logits - logits.mean(1, keepdim=True)).square().mean().sqrt()
    assert tuned(of, steps=2).temperature == pytest.approx(0.5 * float(spread), rel=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_few_steps_are_steps_too(steps: int) -> None:
    outcome = tuned(pruned("linears"), steps=steps)
    assert outcome.steps == steps
    assert outcome.loss_at_last > 0


def test_the_rate_rises_over_a_tenth_of_the_steps_and_falls_to_0(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates: list[float] = []

    class Adam(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            rates.append(self.param_groups[-1]["lr"])
            return super().step(closure)

    monkeypatch.setattr(tuning, "Adam", Adam)
    tuned(pruned("linears"), steps=40, learning_rate=1e-3)
    assert len(rates) == 40
    assert rates.index(max(rates)) == 3  # the fourth of forty
    assert max(rates) == pytest.approx(1e-3)
    assert rates[0] == pytest.approx(1e-3 / 25)
    assert rates[-1] < 1e-6


def test_labels_are_read_where_they_are_asked_for() -> None:
    by_labels = replace(SHORT, use_labels=True)
    of = replace(pruned("convolved"), tuning=by_labels)
    with pytest.raises(InputError, match="label"):
        tune(replace(of, batches=Batches(begin=poisoned)))
    with pytest.raises(InputError, match="no labels to tune by"):
        tune(of)
    labelled = Batches(begin=lambda: ((x, torch.arange(len(x)) % 4) for x, _ in batches()))
    tune(replace(of, batches=labelled))


def test_samples_one_by_one_will_do_as_they_are_put_together() -> None:
    for name in ("linears", "convolved"):
        of = replace(pruned(name), batches=Batches(begin=lambda: batches(1)))
        before = apart(of)
        tune(of)
        assert apart(of) < 0.9 * before


def test_a_single_sample_has_no_variance_for_a_norm() -> None:
    alone = Batches(begin=lambda: itertools.islice(batches(1), 1))
    tune(replace(pruned("linears"), batches=alone))
    with pytest.raises(InputError, match="two samples"):
        tune(replace(pruned("convolved"), batches=alone))


@pytest.mark.parametrize("size", [3, 6])
def test_one_batch_or_two_are_enough(size: int) -> None:
    of = replace(pruned("snnTorch"), batches=Batches(begin=lambda: batches(size)))
    before = apart(of)
    tune(of)
    assert apart(of) < 0.9 * before


def test_the_cost_of_a_step_is_that_of_64_samples_there_and_back() -> None:
    network = made("linears")
    before = surroundings(network.module)
    cost = measure_step(network, Batches(begin=batches))
    # nothing asks for the gradient of the picture; the linear layer after the spikes runs 3 times
    assert cost == StepCost(multiply_adds=64 * (2 * 128 * 10 + 3 * 3 * 10 * CLASSES))
    assert surroundings(network.module) == before
    assert all(parameter.grad is None for parameter in network.module.parameters())
    with pytest.raises(InputError, match="holds no samples"):
        measure_step(network, Batches(begin=list))


class TwoLayers(nn.Module):
    """Two linear layers with neurons and something else between them, and something after them."""

    def __init__(self, between: Change, after: Change) -> None:
        super().__init__()
        self.fc1, self.lif1, self.fc2 = nn.Linear(128, 10), lif(), nn.Linear(10, CLASSES)
        self.between, self.after = between, after

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.lif1(self.fc1(x.flatten(1)).expand(STEPS, -1, -1))
        return self.after(self.fc2(self.between(spikes)))


def fire(u: Tensor) -> Tensor:
    return (u > 0).float()


def leave(u: Tensor) -> Tensor:
    return u


@pytest.mark.parametrize(
    ("between", "after", "unreached", "surrogate"),
    [
        (leave, leave, (), False),
        (fire, leave, (), True),
        (leave, fire, (), True),
        (Tensor.detach, leave, ("fc1.weight",), False),  # a surrogate would not help
        (Tensor.detach, fire, ("fc1.weight",), True),
    ],
)
def test_comparisons_get_a_gradient_where_weights_need_it(
    between: Change, after: Change, unreached: tuple[str, ...], surrogate: bool
) -> None:
    network = trace(TwoLayers(between, after).eval(), PICTURES[:1])
    cost = measure_step(network, Batches(begin=batches))
    assert (cost.unreached, cost.surrogate) == (unreached, surrogate)
