"""Counts against a network small enough to work out on paper."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from two_ranks import run_both

from snnprune.distributed.ranks import ALONE, Ranks
from snnprune.errors import InputError, UsageError
from snnprune.graph.forward import Reading
from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.measure.evaluation import (
    Activity,
    ActivityCount,
    Evaluation,
    compute_time_averaged_loss,
    evaluate,
)
from snnprune.measure.workload import Workload
from snnprune.models.lif import LIF, Dynamics

# beta 0.5, threshold 1: a constant 2 fires at both steps, 0.75 only at the second, 0 never.
X = torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.75, 0.0]])
SURE = math.log(1 + math.exp(-1))  # cross-entropy of logits (1, 0) for class 0
EVEN = math.log(2)  # of logits (0, 0)


class Two(nn.Module):
    """Two neurons driven by the image itself for two steps; their spikes are the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.drive = nn.Linear(2, 2, bias=False)
        nn.init.eye_(self.drive.weight)
        self.neuron = LIF(Dynamics(beta=0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.drive(x).expand(2, -1, -1))


@pytest.fixture
def network() -> Network:
    return trace(Two(), torch.zeros(1, 2))


def labels(*values: int) -> Tensor:
    return torch.tensor(values)


def test_counts_losses_and_firing_rates_are_those_worked_out_by_hand(network: Network) -> None:
    result = evaluate(network, [(X, labels(0, 1, 1))])
    assert (result.samples, result.labelled, result.correct) == (3, 3, 2)
    assert result.accuracy == pytest.approx(2 / 3)
    # the third is silent first, and then votes for the wrong class
    third = (EVEN + SURE + 1) / 2
    assert result.loss_sum == pytest.approx(2 * SURE + third)
    assert result.loss == pytest.approx((2 * SURE + third) / 3)
    assert result.firing_rates == {"neuron": pytest.approx(5 / 12)}


def test_a_channel_that_never_spikes_is_silent_and_one_that_always_does_is_saturated(
    network: Network,
) -> None:
    # the first fires at both steps of both images, the second at none
    always = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    activity = evaluate(network, [(always, labels(0, 0))]).activity["neuron"]
    assert (activity.channels, activity.silent, activity.saturated) == (2, 1, 1)
    # 3 of 4 and 1 of 4: neither
    mixed = torch.tensor([[2.0, 0.75], [0.75, 0.0]])
    activity = evaluate(network, [(mixed, labels(0, 0))]).activity["neuron"]
    assert (activity.silent, activity.saturated) == (0, 0)
    assert activity.firing_rate == pytest.approx(4 / 8)


class Stepped(Two):
    """Two steps in a loop, the second of twice the current."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(self.drive(step * x) >= 1).to(x) for step in (1, 2)])


@pytest.mark.parametrize(("module", "steps"), [(Two, None), (Stepped, 2)])
def test_each_of_several_processes_knows_the_counts_of_all(
    module: Callable[[], nn.Module], steps: int | None
) -> None:
    network = trace(module(), torch.zeros(1, 2))
    x = torch.cat([X, torch.tensor([[0.75, 2.0], [2.0, 2.0], [0.0, 0.75], [0.0, 0.0]])])
    y = labels(0, 1, 1, 1, 0, 0, 1)

    def work(ranks: Ranks) -> tuple[Evaluation, Workload]:
        batches, found = zip(x.split(2), y.split(2), strict=True), Workload()
        return evaluate(network, list(batches), ranks=ranks, workload=found), found

    alone, done = work(ALONE)
    # wrong: 0 for the third and the last, and 1 for the sixth; where both are equal it is 0
    assert (alone.samples, alone.labelled, alone.correct) == (7, 7, 4)
    assert (alone.answers, alone.classes, alone.time_steps) == (2, 2, steps)
    for each, counted in run_both(work):
        assert replace(each, loss_sum=0) == replace(alone, loss_sum=0)
        assert each.loss_sum == pytest.approx(alone.loss_sum)
        assert counted == done


def test_batches_of_any_size_give_the_same_counts(network: Network) -> None:
    whole = evaluate(network, [(X, labels(0, 1, 1))])
    parts = evaluate(network, [(X[:1], labels(0)), (X[1:], labels(1, 1))])
    assert (parts.samples, parts.correct) == (whole.samples, whole.correct)
    assert parts.loss_sum == pytest.approx(whole.loss_sum)
    assert parts.firing_rates == pytest.approx(whole.firing_rates)


def test_channels_that_are_not_the_same_throughout_are_counted_as_one(network: Network) -> None:
    count = ActivityCount(network)
    count.add({"neuron": (torch.tensor([1.0, 2.0]).double(), 10)})
    count.add({"neuron": (torch.tensor([0.0, 3.0, 0.0]).double(), 20)})
    # 6 spikes of 2 x 10 and 3 x 20 places
    assert count.result() == {
        "neuron": Activity(channels=1, silent=0, saturated=0, firing_rate=6 / 80)
    }


def test_without_labels_there_is_firing_but_no_accuracy(network: Network) -> None:
    result = evaluate(network, [(X, None)])
    assert (result.samples, result.labelled, result.correct) == (3, 0, 0)
    assert result.accuracy is None
    assert result.loss is None
    assert result.firing_rates == {"neuron": pytest.approx(5 / 12)}


def test_accuracy_is_of_the_labelled_samples_alone(network: Network) -> None:
    result = evaluate(network, [(X, None), (X[:2], labels(0, 0))])
    assert (result.samples, result.labelled, result.correct) == (5, 2, 1)
    assert result.accuracy == 0.5


@pytest.mark.parametrize("wrong", [2, 7, -1, -100])
def test_a_label_that_is_no_class_is_an_input_error(network: Network, wrong: int) -> None:
    with pytest.raises(InputError) as caught:
        evaluate(network, [(X, labels(0, wrong, 1))])
    assert str(caught.value) == f"--data: label {wrong} for a network of 2 classes"


@pytest.mark.parametrize("wrong", [torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3)])
def test_labels_that_are_not_whole_numbers_are_an_input_error(
    network: Network, wrong: Tensor
) -> None:
    with pytest.raises(InputError, match=r"^--data: labels of shape .* one whole number per"):
        evaluate(network, [(X, wrong)])


def test_fewer_labels_than_samples_are_an_input_error(network: Network) -> None:
    with pytest.raises(InputError, match=r"^--data: a batch of shape \(3, 2\) with 1 label"):
        evaluate(network, [(X, labels(0))])


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_labels_may_be_whole_numbers_of_any_width(network: Network, dtype: torch.dtype) -> None:
    assert evaluate(network, [(X, labels(0, 1, 0).to(dtype))]).correct == 3


def test_events_with_time_first_are_counted_by_their_labels(network: Network) -> None:
    events = X.expand(2, -1, -1)  # (T, N, 2)
    result = evaluate(network, [(events, labels(0, 1, 1))])
    assert (result.samples, result.correct) == (3, 2)


def test_no_samples_are_an_input_error(network: Network) -> None:
    with pytest.raises(InputError, match=r"^--data: no samples to evaluate on$"):
        evaluate(network, [])


def test_an_output_that_fits_no_readout_is_an_input_error(network: Network) -> None:
    with pytest.raises(
        InputError, match=r"^--readout: the network puts out a float32 tensor of shape"
    ):
        evaluate(network, [(X, labels(0, 1, 1))], run=lambda module, x: module(x)[:, :2])


def test_another_way_of_running_a_batch_is_used(network: Network) -> None:
    result = evaluate(network, [(X, labels(0, 1, 0))], run=lambda module, x: list(module(x)))
    assert result.correct == 3


def test_the_prediction_is_the_sum_over_time(network: Network) -> None:
    votes = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])  # two steps against the last
    assert evaluate(network, [(X[:1], labels(0))], run=lambda *_: votes).correct == 1


VOTES = torch.tensor([[[3.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]])  # (T, N, classes)


def nats(logits: list[float]) -> float:
    """The cross-entropy of `logits` for class 0."""
    return math.log(sum(math.exp(logit - logits[0]) for logit in logits))


@pytest.mark.parametrize(
    ("readout", "right", "loss"),
    [
        ("auto", 1, (nats([3, 0]) + 2 * nats([0, 1])) / 3),
        ("sum", 1, (nats([3, 0]) + 2 * nats([0, 1])) / 3),
        ("mean", 1, nats([1, 2 / 3])),
        ("last", 0, nats([0, 1])),
        (lambda output: output[1] - output[0], 0, nats([-3, 1])),
    ],
    ids=["auto", "sum", "mean", "last", "function"],
)
def test_every_readout_scores_and_loses_as_worked_out_by_hand(
    readout: str | Reading, right: int, loss: float, network: Network
) -> None:
    found = evaluate(network, [(X[:1], labels(0))], run=lambda *_: VOTES, readout=readout)
    assert found.correct == right
    assert found.loss_sum == pytest.approx(loss)


def test_the_layout_of_an_output_is_remembered_over_all_batches(network: Network) -> None:
    def samples_first(module: nn.Module, x: Tensor) -> Tensor:
        return module(x).transpose(0, 1)

    batches = [(X, labels(0, 1, 0)), (X[:2], labels(0, 1))]  # in the last N = T = 2
    found = evaluate(network, batches, run=samples_first)
    assert found.correct == 5
    assert found.loss_sum == pytest.approx(evaluate(network, batches).loss_sum)


def test_an_unknown_readout_is_a_usage_error(network: Network) -> None:
    with pytest.raises(UsageError, match="unknown readout"):
        evaluate(network, [(X, None)], readout="men")


@pytest.mark.parametrize("training", [True, False])
def test_it_runs_in_eval_mode_and_goes_back(network: Network, training: bool) -> None:
    network.module.train(training)
    seen: list[bool] = []
    network.module.register_forward_hook(lambda module, *_: seen.append(module.training))
    evaluate(network, [(X, None)])
    assert seen == [False]
    assert network.module.training == training


def test_the_mode_and_the_hooks_are_restored_after_an_exception(network: Network) -> None:
    def breaking() -> Iterator[tuple[Tensor, None]]:
        yield X, None
        raise OSError("the disk is gone")

    network.module.train()
    with pytest.raises(OSError, match="the disk is gone"):
        evaluate(network, breaking())
    assert all(module.training for module in network.module.modules())
    assert not any(module._forward_hooks for module in network.module.modules())


def test_nothing_is_kept_for_a_gradient(network: Network) -> None:
    seen: list[Tensor] = []
    network.module.register_forward_hook(lambda _, __, output: seen.append(output))
    evaluate(network, [(X, labels(0, 1, 1))])
    assert not seen[0].requires_grad


def test_the_loss_of_a_sample_is_its_mean_over_time() -> None:
    steps = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]])  # (T, N, classes)
    found = compute_time_averaged_loss(steps, labels(0, 1))
    torch.testing.assert_close(found, torch.full((2,), (SURE + EVEN) / 2))
