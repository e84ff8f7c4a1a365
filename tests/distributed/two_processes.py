"""What two processes check together; `test_two_processes.py` has torchrun start them.

    torchrun --standalone --nproc-per-node 2 two_processes.py MODEL RESULTS

Each check compares with one process on the whole batch, which every rank works out for itself.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based import layer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from snnprune.cli import run_app, run_command
from snnprune.distributed.ranks import ALONE, Ranks, join_ranks
from snnprune.distributed.whole_batch import ReplicatedNetwork, synchronise_batchnorms
from snnprune.graph.network import Network
from snnprune.graph.trace import trace
from snnprune.measure.calibrate import calibrate
from snnprune.measure.calibration import Calibration
from snnprune.measure.evaluation import Evaluation, evaluate
from snnprune.models import ModelSpec, build_model
from snnprune.recipe.sections import TrainingSection
from snnprune.training.step import Trainer

Check = Callable[[Ranks], None]
CHECKS: dict[str, Check] = {}
COMMANDS = ("calibrate", "eval")


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def close(found: Any, expected: Any, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@check
def sums_are_over_all_ranks_and_whole_numbers_exact(ranks: Ranks) -> None:
    assert ranks.size == 2
    assert ranks.total([2**51 + ranks.rank, 0.25]) == [2**52 + 1, 0.5]


@check
def a_flag_of_one_rank_is_seen_by_all(ranks: Ranks) -> None:
    assert ranks.any(ranks.rank == 1)
    assert not ranks.any(False)


@check
def values_arrive_in_the_order_of_the_ranks(ranks: Ranks) -> None:
    found = ranks.gather({"rank": ranks.rank, "tensor": torch.full((2,), ranks.rank)})
    close(found, [{"rank": k, "tensor": torch.full((2,), k)} for k in (0, 1)])


@check
def what_the_first_makes_all_have_and_only_the_first_makes_it(ranks: Ranks) -> None:
    made: list[int] = []

    def work() -> Tensor:
        made.append(ranks.rank)
        return torch.arange(5)

    assert ranks.by_first(work).tolist() == [0, 1, 2, 3, 4]
    assert made == ([0] if ranks.first else [])
    assert ranks.share(ranks.rank) == 0


@check
def one_goes_before_the_others(ranks: Ranks) -> None:
    with ranks.one_before_others():
        before = ranks.rank
    assert before == ranks.rank
    assert ranks.gather(ranks.local_rank) == [0, 1]


@check
def what_draws_by_itself_draws_alike(ranks: Ranks) -> None:
    first, second = ranks.gather(torch.rand(3))
    assert torch.equal(first, second)


NORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain": (lambda: nn.BatchNorm2d(3), (5, 3, 4, 2)),
    "cumulative": (lambda: nn.BatchNorm1d(3, momentum=None), (5, 3)),
    "not affine": (lambda: nn.BatchNorm3d(3, affine=False), (5, 3, 2, 2, 2)),
    "no running statistics": (lambda: nn.BatchNorm1d(3, track_running_stats=False), (5, 3, 6)),
    "another momentum": (lambda: nn.BatchNorm1d(3, momentum=0.7, eps=0.1), (5, 3)),
}


def normed(
    norm: nn.Module, x: Tensor, slope: Tensor, ranks: Ranks = ALONE, *, counts: bool = True
) -> tuple[Tensor, dict[str, Tensor]]:
    """Output, and gradients and buffers after two passes; the loss is the sum of slope * y**2."""
    x = x.clone().requires_grad_()
    with synchronise_batchnorms(ranks, counts=counts):
        norm(x.detach() * 2)
        y = norm(x)
    ((y.square() * slope).sum() * counts).backward()
    assert x.grad is not None
    gradients = {k: p.grad for k, p in norm.named_parameters() if p.grad is not None}
    return y.detach(), {"x": x.grad, **gradients, **dict(norm.named_buffers())}


def compare_norms(
    make: Callable[[], nn.Module], x: Tensor, slope: Tensor, ranks: Ranks, *, along: int = 0
) -> None:
    """A norm of all ranks, each with its part of `x`, against one of one process."""
    whole, mine = make().to(x.dtype).train(), make().to(x.dtype).train()
    y, expected = normed(whole, x, slope)
    split = [3, x.shape[along] - 3]
    parts = [tensor.split(split, along)[ranks.rank] for tensor in (x, slope, y, expected["x"])]
    found, gathered = normed(mine, parts[0], parts[1], ranks)
    close(found, parts[2])
    close(gathered.pop("x"), parts[3])
    del expected["x"]
    for key, _ in whole.named_parameters():  # DDP would sum these
        gathered[key] = torch.stack(ranks.gather(gathered[key])).sum(0)
    close(gathered, expected)


@check
def batchnorm_over_uneven_parts_is_that_of_the_whole_batch(ranks: Ranks) -> None:
    for make, shape in NORMS.values():
        compare_norms(make, drawn(*shape), drawn(*shape, seed=1), ranks)


@check
def a_library_s_own_batchnorm_goes_through_too(ranks: Ranks) -> None:
    shape = (2, 5, 3, 4, 4)  # time first

    def make() -> nn.Module:
        norm: nn.Module = layer.BatchNorm2d(3, step_mode="m")
        return norm

    compare_norms(make, drawn(*shape), drawn(*shape, seed=1), ranks, along=1)


@check
def batchnorm_called_as_a_function_goes_through_too(ranks: Ranks) -> None:
    x = drawn(5, 3)
    with synchronise_batchnorms(ranks):
        found = functional.batch_norm(x.split([3, 2])[ranks.rank], None, None, training=True)
    close(found, functional.batch_norm(x, None, None, training=True).split([3, 2])[ranks.rank])


@check
def a_rank_that_stands_in_changes_nothing(ranks: Ranks) -> None:
    x, slope = drawn(4, 3), drawn(4, 3, seed=1)
    whole, mine = (nn.BatchNorm1d(3).double().train() for _ in range(2))
    _, expected = normed(whole, x, slope)
    _, found = normed(mine, x if ranks.first else x[:1], slope[: len(x)], ranks, counts=ranks.first)
    gradient, of_all = found.pop("x"), expected.pop("x")
    close(gradient, of_all if ranks.first else torch.zeros_like(gradient))
    for key in ("weight", "bias"):
        found[key] = torch.stack(ranks.gather(found[key])).sum(0)
    close(found, expected)


@check
def a_variance_far_from_zero_mean_does_not_cancel_in_float32(ranks: Ranks) -> None:
    norm = nn.BatchNorm1d(1, momentum=1.0).train()
    x = (torch.arange(1000) % 2).float().add(4096.0).view(-1, 1)
    with synchronise_batchnorms(ranks):
        norm(x.split([300, 700])[ranks.rank])
    assert norm.running_var is not None
    assert abs(norm.running_var.item() - 250 / 999) < 1e-6


@check
def batchnorm_takes_what_autocast_makes(ranks: Ranks) -> None:
    x = drawn(5, 3, dtype=torch.float32)
    norm = nn.BatchNorm1d(3).train()
    with synchronise_batchnorms(ranks):
        y = norm(x.split([3, 2])[ranks.rank].bfloat16().requires_grad_())
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    expected = functional.batch_norm(x, None, None, training=True).split([3, 2])[ranks.rank]
    torch.testing.assert_close(y.detach().float(), expected, rtol=2e-2, atol=2e-2)


@check
def batchnorm_in_eval_mode_is_left_alone(ranks: Ranks) -> None:
    norm = nn.BatchNorm1d(3).double().eval()
    x = drawn(2 + ranks.rank, 3)
    with synchronise_batchnorms(ranks):
        assert torch.equal(norm(x), functional.batch_norm(x, *_statistics(norm)))
    assert norm.num_batches_tracked == torch.tensor(0)


def _statistics(norm: nn.BatchNorm1d) -> tuple[Any, ...]:
    return norm.running_mean, norm.running_var, norm.weight, norm.bias


class Smooth(nn.Module):
    """No thresholds, so that rounding stays rounding; with frozen and unused parameters."""

    def __init__(self, *, unused: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, 2)
        self.norm = nn.BatchNorm2d(3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.last = nn.Linear(3, 2)
        if unused:
            self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x)).tanh().mean((2, 3))
        for _ in range(3):  # as over time
            y = self.frozen(y).tanh()
        return self.last(y)


def smooth(*, unused: bool) -> Smooth:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return Smooth(unused=unused).double().train()


def trained(module: Smooth, sizes: list[int], pieces: int, ranks: Ranks) -> dict[str, Tensor]:
    """The state after a step on batches of these sizes, each taken in `pieces`."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5, momentum=0.9, weight_decay=0.01)
    with synchronise_batchnorms(ranks):
        copies = ReplicatedNetwork(module, lambda x: module(x), ranks, drawn(2, 1, 4, 4))
    for seed, size in enumerate(sizes):
        optimizer.zero_grad()
        x, y = drawn(size, 1, 4, 4, seed=seed), torch.arange(size) % 2
        split = list(zip(x.tensor_split(pieces), y.tensor_split(pieces), strict=True))
        for number, (some_x, some_y) in enumerate(split):
            part = ranks.part(some_x, some_y)
            last = number == pieces - 1
            with (
                synchronise_batchnorms(ranks, counts=part.counts),
                contextlib.nullcontext() if last else copies.apart(),
            ):
                logits = copies(part.x)
            share = part.share * len(some_y) / size
            with contextlib.nullcontext() if last else copies.apart():
                copies.backward(functional.cross_entropy(logits, part.y) * share)
        optimizer.step()
    return module.state_dict()


def compare_training(sizes: list[int], pieces: int, ranks: Ranks, *, unused: bool = False) -> None:
    expected = trained(smooth(unused=unused), sizes, pieces, ALONE)
    found = trained(smooth(unused=unused), sizes, pieces, ranks)
    assert list(found) == list(expected)
    close(found, expected)
    first, second = ranks.gather(found)
    assert all(torch.equal(first[key], second[key]) for key in first)


@check
def training_on_uneven_parts_is_that_of_one_process(ranks: Ranks) -> None:
    compare_training([6, 5, 7], 1, ranks)


@check
def parameters_that_are_not_used_stay_as_one_process_leaves_them(ranks: Ranks) -> None:
    compare_training([6, 5], 1, ranks, unused=True)


@check
def accumulated_pieces_are_those_of_one_process(ranks: Ranks) -> None:
    compare_training([9, 8], 2, ranks)
    compare_training([9, 8], 2, ranks, unused=True)


@check
def a_batch_smaller_than_the_ranks_is_that_of_one_process(ranks: Ranks) -> None:
    compare_training([4, 1, 4], 1, ranks)


@check
def a_step_in_pieces_is_that_of_one_process(ranks: Ranks) -> None:
    """Of 8, 5 and 2 images in 3 pieces: one rank's part would give fewer."""
    expected, found = (stepped(8, 5, 2, ranks=taking) for taking in (ALONE, ranks))
    close(found, expected, 1e-4)


def stepped(*sizes: int, ranks: Ranks) -> dict[str, Tensor]:
    """A network of ours after a step on batches of each size."""
    training = TrainingSection(epochs=1, batch_size=8, learning_rate=0.01, accumulate=3)
    trained_network = network()
    trainer = Trainer(trained_network, training, len(sizes), ranks=ranks)
    trained_network.module.train()
    for batch in batches(*sizes):
        trainer.train_on(*batch)
    return trained_network.module.state_dict()


@check
def wrapping_leaves_the_module_as_it_was(ranks: Ranks) -> None:
    module, untouched = smooth(unused=False), smooth(unused=False)
    ReplicatedNetwork(module, lambda x: module(x), ranks, drawn(2, 1, 4, 4))
    close(module.state_dict(), untouched.state_dict(), 0)
    assert all(parameter.grad is None for parameter in module.parameters())


def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        spec = ModelSpec(name="conv-snn", args={"width": 4, "depth": 2, "time_steps": 3})
        module = build_model(spec).eval()
        for name, buffer in module.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.1, 0.3)
    return trace(module, torch.rand(1, 1, 28, 28))


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    x = torch.rand(sum(sizes), 1, 28, 28, generator=torch.Generator().manual_seed(2))
    y = torch.arange(sum(sizes)) % 10
    return list(zip(x.split(list(sizes)), y.split(list(sizes)), strict=True))


def same_calibration(found: Calibration, expected: Calibration) -> None:
    assert (found.samples, found.time_steps, found.warnings) == (
        (expected.samples, expected.time_steps, expected.warnings)
    )
    assert list(found.neurons) == list(expected.neurons) != []
    for name, neuron in expected.neurons.items():
        mine = found.neurons[name]
        close(mine.membrane_mean, neuron.membrane_mean)
        close(mine.membrane_var, neuron.membrane_var)
        assert mine.membrane_mean_step is not None
        assert neuron.membrane_mean_step is not None
        close(mine.membrane_mean_step, neuron.membrane_mean_step)
        assert torch.equal(mine.membrane_histogram, neuron.membrane_histogram)
        assert torch.equal(mine.firing_rate, neuron.firing_rate)
    for key, statistics in expected.layers.items():
        close(found.layers[key].input_rate, statistics.input_rate)
        square = found.layers[key].input_square
        assert square is not None
        assert statistics.input_square is not None
        close(square, statistics.input_square)
        assert found.layers[key].input_values == statistics.input_values
        for one, other in zip(found.layers[key].drives, statistics.drives, strict=True):
            assert torch.equal(one.bn_scale, other.bn_scale)


@check
def calibration_is_that_of_one_process(ranks: Ranks) -> None:
    for sizes in ((5, 5, 5, 2), (4,)):  # of the last, one rank gets nothing
        given = batches(*sizes)
        found = calibrate(network(), given, ranks=ranks)
        same_calibration(found, calibrate(network(), given))
        same_calibration(*ranks.gather(found))


def same_evaluation(found: Evaluation, expected: Evaluation) -> None:
    counts = ("samples", "labelled", "correct", "firing_rates", "readout", "time_steps")
    for name in counts:
        assert getattr(found, name) == getattr(expected, name), name
    close(torch.tensor(found.loss_sum), torch.tensor(expected.loss_sum), 1e-6)


@check
def evaluation_is_that_of_one_process(ranks: Ranks) -> None:
    for sizes in ((5, 5, 5, 2), (4,)):
        given = batches(*sizes)
        same_evaluation(evaluate(network(), given, ranks=ranks), evaluate(network(), given))


@check
def how_the_output_lies_is_learnt_from_the_first_batch_by_all(ranks: Ranks) -> None:
    def samples_first(module: nn.Module, x: Tensor) -> Tensor:
        output: Tensor = module(x).transpose(0, 1)
        return output

    given = batches(5, 3)  # in the second, which is the second rank's, N = T
    found = evaluate(network(), given, run=samples_first, ranks=ranks)
    same_evaluation(found, evaluate(network(), given))


@check
def a_loader_that_shuffles_gives_every_sample_once(ranks: Ranks) -> None:
    ((x, y),) = batches(12)
    loader = DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True)
    same_evaluation(
        evaluate(network(), iter(loader), ranks=ranks), evaluate(network(), batches(4, 4, 4))
    )


def printed_by_commands(model: str, folder: Path) -> dict[str, dict[str, Any]]:
    """What this process says when it runs commands; they meet the other by themselves."""
    flags = {
        "calibrate": ["-o", str(folder / "two.safetensors"), "--samples", "300"],
        "eval": ["--samples", "300"],
    }
    return {name: _ran([name, model, "--json", *flags[name]]) for name in COMMANDS}


def _ran(arguments: list[str]) -> dict[str, Any]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_app(run_command, arguments)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def outcomes(ranks: Ranks) -> Iterator[tuple[str, str]]:
    """The name of each check and what went wrong with it, on any rank."""
    for name, function in CHECKS.items():
        try:
            function(ranks)
            fault = ""
        except Exception:
            fault = f"rank {ranks.rank}: {traceback.format_exc()}"
        yield name, "".join(ranks.gather(fault))


def main(model: str, results: Path) -> None:
    told = printed_by_commands(model, results.parent)
    with join_ranks("cpu") as ranks:
        checked = dict(outcomes(ranks))
        commands = ranks.gather(told)
    if ranks.first:
        results.write_text(json.dumps({"checks": checked, "commands": commands}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)  # as the command does: threads of gloo that outlive the interpreter would abort it
