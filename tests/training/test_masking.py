"""The parametrization: what it lets through, its gradient, and when it computes again."""

import copy
from collections.abc import Callable

import pytest
import torch
from small_networks import Own, images, traced
from torch import Tensor, nn, optim

from snnprune.masks import select_highest
from snnprune.measure.evaluation import evaluate
from snnprune.training.edge_popup import TopScores, randomize_network


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("tenths", range(1, 10))
@pytest.mark.parametrize("ties", [False, True])
def test_exactly_the_share_of_the_highest_is_let_through(tenths: int, *, ties: bool) -> None:
    scores = drawn(7, 3, 5)
    scores = scores.sign() if ties else scores
    count = round(tenths / 10 * 105)
    part, weight = TopScores(scores, count), drawn(7, 3, 5, seed=1)
    effective = part(weight).detach()
    assert int((effective != 0).sum()) == int(part.mask().sum()) == count
    assert torch.equal(effective[part.mask()], weight[part.mask()])
    assert float(scores.abs()[part.mask()].min()) >= float(scores.abs()[~part.mask()].max())
    assert not effective[~part.mask()].signbit().any()


def test_the_gradient_is_that_of_the_current_times_spike_weight_and_sign_of_the_score() -> None:
    weight, scores, spikes = drawn(3, 4), drawn(3, 4, seed=1), (drawn(5, 4, seed=2) > 0).double()
    part = TopScores(scores, 6)
    current = spikes @ part(weight).T
    current.retain_grad()
    (current - 1).pow(3).sum().backward()
    assert current.grad is not None
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for n in range(5):
        for v in range(3):
            for u in range(4):
                sign = 1 if scores[v, u] > 0 else -1
                expected[v, u] += current.grad[n, v] * spikes[n, u] * weight[v, u] * sign
    torch.testing.assert_close(part.scores.grad, expected)
    assert bool(expected[~part.mask()].any())


def test_the_gradient_is_the_slope_of_the_loss_with_the_mask_made_linear() -> None:
    weight, scores, x = drawn(3, 4), drawn(3, 4, seed=1), drawn(5, 4, seed=2)
    part = TopScores(scores.clone(), 6)
    loss = (x @ part(weight).T).square().sum()
    loss.backward()
    mask = part.mask().double()

    def linearised(at: Tensor) -> float:
        soft = weight * (mask + at.abs() - scores.abs())
        return float((x @ soft.T).square().sum())

    assert linearised(scores) == pytest.approx(loss.item())
    for position in range(12):
        step = torch.zeros(12, dtype=torch.float64)
        step[position] = 1e-6
        step = step.view(3, 4)
        slope = (linearised(scores + step) - linearised(scores - step)) / 2e-6
        assert part.scores.grad is not None
        assert float(part.scores.grad.view(-1)[position]) == pytest.approx(slope, rel=1e-5)


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], optim.Optimizer]] = {
    "SGD": lambda scores: optim.SGD(scores, lr=0.1, momentum=0.9),
    "SGD for each": lambda scores: optim.SGD(scores, lr=0.1, foreach=True),
    "fused SGD": lambda scores: optim.SGD(scores, lr=0.1, fused=True),
    "AdamW": lambda scores: optim.AdamW(scores, lr=0.1),
    "fused AdamW": lambda scores: optim.AdamW(scores, lr=0.1, fused=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_masks_are_made_once_a_step_and_follow_every_optimizer(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, x = Own(), images(4, 6)
    network, made = traced(module, x), list[int]()

    def counted(values: Tensor, count: int) -> Tensor:
        made.append(count)
        return select_highest(values, count)

    monkeypatch.setattr("snnprune.training.edge_popup.select_highest", counted)
    with randomize_network(network, weights="signed-constant", kept=0.5, seed=0) as found:
        optimizer, before = OPTIMIZERS[name](list(found.scores.values())), found.masks()
        module(x).square().sum().backward()
        for _ in range(3):
            optimizer.step()
            module.mem = None
            made.clear()
            module(x).square().sum().backward()
            assert len(made) == 2  # of three layers, two share a weight; read at four time steps
        masks = found.masks()
        assert not torch.equal(masks["weight"], before["weight"])
        assert torch.equal(module.weight != 0, masks["weight"])


def test_a_pass_in_inference_mode_spoils_no_training_step() -> None:
    network, x = traced(), images(2, 1, 8, 8)
    with randomize_network(network, weights="kaiming-normal", kept=0.5, seed=0) as found:
        found.load_scores({key: -scores.detach() for key, scores in found.scores.items()})
        with torch.inference_mode():
            network.module(x)
        network.module(x).sum().backward()
        assert all(scores.grad is not None for scores in found.scores.values())


def test_reads_at_every_time_step_share_their_memory() -> None:
    module, x = Own(), images(4, 6)
    with randomize_network(traced(module, x), weights="kaiming-normal", kept=0.5, seed=0):
        first, second = module.fc.weight, module.fc.weight
        assert first is not second
        assert first.data_ptr() == second.data_ptr()


def test_what_is_seen_of_a_pass_is_the_same_whether_masks_were_made_in_it_or_before() -> None:
    module, x = Own(), images(4, 6)
    network = traced(module, x)
    with randomize_network(network, weights="kaiming-normal", kept=0.5, seed=0) as found:
        found.load_scores(found.scores)  # counts as a change
        seen = [evaluate(network, [(x, torch.zeros(4, dtype=torch.int64))]) for _ in range(2)]
    assert seen[0] == seen[1]


def test_autocast_leaves_scores_and_their_gradients_in_float32() -> None:
    network, x = traced(), images(2, 1, 8, 8)
    with randomize_network(network, weights="kaiming-normal", kept=0.5, seed=0) as found:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = network.module(x)
        out.float().sum().backward()
        assert out.dtype == torch.bfloat16
        gradients = [scores.grad for scores in found.scores.values()]
        assert {g.dtype for g in gradients if g is not None} == {torch.float32}


def test_a_copy_computes_the_same_and_has_scores_of_its_own() -> None:
    network, x = traced(), images(2, 1, 8, 8)
    with randomize_network(network, weights="kaiming-normal", kept=0.5, seed=0) as found:
        before = network.module(x)
        copied = copy.deepcopy(network.module)
        assert torch.equal(copied(x), before)
        found.load_scores({key: -scores.detach() + 1 for key, scores in found.scores.items()})
        assert torch.equal(copied(x), before)
        assert not torch.equal(network.module(x), before)


def test_the_state_of_a_users_own_neuron_beside_a_weight_is_still_put_at_rest() -> None:
    module, x = Own(), images(4, 6)
    network = traced(module, x)
    with randomize_network(network, weights="kaiming-normal", kept=0.5, seed=0), torch.no_grad():
        with network.reset_between_batches() as reset:
            reset()
            first = module(x)
            assert not torch.equal(module(x), first)
            reset()
            assert torch.equal(module(x), first)
        assert module.mem is None
