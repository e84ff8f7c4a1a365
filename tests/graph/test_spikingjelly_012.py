"""SpikingJelly 0.0.0.0.12, and 0.0.0.0.14 where it is used in the same way: not beside 2.x.

pip install --no-deps --target DIR spikingjelly==0.0.0.0.12
PYTHONPATH=DIR pytest tests/graph/test_spikingjelly_012.py
"""

import functools
import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from behaviour import Behaviour, DropIn, cases_of, made_of
from torch import Tensor, nn
from zoo import (
    One,
    calibrated,
    images,
    inner_state,
    left_out,
    log_crisis,
    output,
    scored,
    scores_by,
    seen,
)

from snnprune.data.batches import Batches
from snnprune.graph.hooks import observe
from snnprune.graph.libraries import allow_missing_kernels, library_of, reset_states
from snnprune.graph.state import use_eval_mode
from snnprune.graph.trace import trace
from snnprune.measure.evaluation import evaluate
from snnprune.measure.gradients import compute_weight_gradients
from snnprune.recipe.sections import TrainingSection
from snnprune.training.step import Trainer

with warnings.catch_warnings():
    # escapes in docstrings and ways of numpy and torchvision, which the old package still uses
    for category in (FutureWarning, DeprecationWarning, SyntaxWarning, UserWarning):
        warnings.simplefilter("ignore", category)
    if importlib.util.find_spec("spikingjelly.clock_driven") is None:
        pytest.skip(
            "needs an environment with spikingjelly==0.0.0.0.12 (see the top of the file)",
            allow_module_level=True,
        )
    from clock_driven_networks import LIF, LINKS, NETWORKS, STEPS
    from spikingjelly.clock_driven import layer, neuron

made = functools.partial(made_of, NETWORKS)
case = cases_of(NETWORKS, LINKS)


class TestBehaviour(Behaviour):
    pass


class TestDropIn(DropIn):
    network, weight = "single step", "conv2.weight"


@torch.no_grad()
def test_scores_equal_the_formula() -> None:
    module, x = made("single step")
    network = trace(module, x)
    result = scored(network, x)
    membranes, spikes = seen(network, x)
    rate = spikes["spikes1"].double().mean((0, 2, 3))
    norm: Any = module.get_submodule("bn2")
    expected = log_crisis(network.weight("conv2.weight"), rate, norm, membranes["spikes2"])
    torch.testing.assert_close(result.values["conv2.weight"], expected, rtol=0, atol=1e-4)
    assert set(result.fallback) == {"conv1.weight", "fc.weight"}


LIBRARY: Any = library_of(neuron.IFNode())


def test_a_neuron_that_puts_out_its_membrane_is_left_out() -> None:
    torch.manual_seed(0)
    spikes = neuron.LIAFNode(torch.relu, threshold_related=False)
    found = calibrated(One(spikes).eval(), images(4, 1, 8, 8))
    assert "spikes: its spikes do not follow" in " ".join(found.warnings)
    assert not found.neurons


def test_filters_are_put_at_rest_with_the_neurons() -> None:
    module = nn.Sequential(neuron.MultiStepIFNode(), layer.SynapseFilter(tau=2.0))
    with torch.no_grad():
        first = module(images(2, 3) + 1)
        assert not torch.equal(module(images(2, 3) + 1), first)
        reset_states(module)
        assert torch.equal(module(images(2, 3) + 1), first)


def test_every_batch_begins_at_rest() -> None:
    module, x = made("containers")
    network = trace(module, x)
    expected = output(network, x)
    with use_eval_mode(module), observe(network, on_membrane=lambda n, u: None) as start:
        for size in (2, 1, 2):  # the library itself refuses another size without a reset
            start()
            put_out = module(x[:, :size])
    assert torch.equal(put_out, expected)


class Recurrent(nn.Module):
    """The library's recurrence, whose state is one of its memory modules."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.spikes1 = nn.Linear(6, 8), neuron.IFNode(**LIF)
        spikes = neuron.LIFNode(v_threshold=0.1, **LIF)
        self.loop = layer.LinearRecurrentContainer(spikes, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.loop(self.spikes1(self.fc(x))) for _ in range(STEPS)])


@torch.no_grad()
def test_a_recurrent_layer_gets_what_comes_in_and_what_comes_back() -> None:
    torch.manual_seed(0)
    module, x = Recurrent().eval(), 3 * images(5, 6)
    network = trace(module, x)
    known = network.layers["loop.rc.weight"]
    assert set(known.sources) == {"spikes1", "loop.sub_module"}
    assert [link.neuron for link in known.links] == ["loop.sub_module"]
    membranes, spikes = seen(network, x)
    comes_in, comes_back = (
        spikes[name].reshape(STEPS, 5, 8).double() for name in ("spikes1", "loop.sub_module")
    )
    before = torch.cat([torch.zeros(1, 5, 8), comes_back[:-1]])
    found = calibrated(network, x)
    assert 0.05 < float(before.mean()) < 0.95
    torch.testing.assert_close(
        found.layers["loop.rc.weight"].input_rate,
        torch.cat([comes_in, before], -1).mean((0, 1)),
    )
    torch.testing.assert_close(
        found.neurons["loop.sub_module"].membrane_mean,
        membranes["loop.sub_module"].double().mean((0, 1)) + 0.1,
    )


class ForKernels(nn.Module):
    """A network as its authors trained it, on a GPU with cupy."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.spikes1 = neuron.MultiStepLIFNode(v_threshold=0.5, backend="cupy", **LIF)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.spikes2 = neuron.MultiStepParametricLIFNode(backend="cupy", **LIF)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        z = self.bn1(self.conv1(x)).repeat(STEPS, 1, 1, 1, 1)
        z = self.bn2(self.conv2(self.spikes1(z).flatten(0, 1))).unflatten(0, (STEPS, -1))
        return self.fc(self.spikes2(z).mean((3, 4)))


def for_kernels(backend: str = "cupy") -> Any:
    torch.manual_seed(0)
    with allow_missing_kernels():
        made = ForKernels().eval()
    for one in (made.bn1, made.bn2):
        nn.init.constant_(one.bias, 0.7)
    made.spikes1.backend = made.spikes2.backend = backend
    return made


PICTURES, LABELS = images(4, 1, 10, 10), torch.tensor([0, 3, 1, 9])


def test_a_network_for_kernels_can_be_made_without_them_by_the_tool_alone() -> None:
    with pytest.raises(AssertionError, match="CuPy"):
        ForKernels()
    with allow_missing_kernels(), pytest.raises(NotImplementedError):
        neuron.MultiStepIFNode(backend="none")
    for_kernels()
    with pytest.raises(AssertionError, match="CuPy"):
        ForKernels()


def test_a_network_for_kernels_is_found_out_about_without_them() -> None:
    results = []
    for backend in ("cupy", "torch"):
        module = for_kernels(backend)
        before = inner_state(module)
        network = trace(module, PICTURES)
        known = calibrated(network, PICTURES)
        gradients = compute_weight_gradients(
            network, Batches(begin=lambda: [(PICTURES, None)]), "gradient"
        )
        evaluation = evaluate(network, [(PICTURES, LABELS)])
        assert {one.backend for one in (module.spikes1, module.spikes2)} == {backend}
        assert inner_state(module) == before
        assert not left_out(known)
        results.append((scores_by(network, known).values, gradients, evaluation))
    for one, other in zip(*results, strict=True):
        assert_same(one, other)


def test_a_step_of_training_on_a_cpu_is_the_one_without_kernels() -> None:
    found = []
    for backend in ("cupy", "torch"):
        module = for_kernels(backend)
        settings = TrainingSection(epochs=1, learning_rate=0.1)
        trainer = Trainer(trace(module, PICTURES), settings, steps_per_epoch=1)
        trainer.train_on(PICTURES, LABELS)
        assert module.spikes1.backend == backend
        found.append(module.state_dict())
    assert_same(*found)


def test_the_kernels_come_back_after_an_exception() -> None:
    module = for_kernels()
    network = trace(module, PICTURES)

    def look(name: str, distance: Tensor) -> None:
        assert module.spikes1.backend == "torch"
        raise RuntimeError("stop")

    with (
        pytest.raises(RuntimeError, match="stop"),
        use_eval_mode(module),
        observe(network, on_membrane=look),
    ):
        module(PICTURES)
    assert module.spikes1.backend == module.spikes2.backend == "cupy"


def test_the_kernels_of_single_steps_rest_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neuron, "cupy", object())
    spikes = neuron.LIFNode(cupy_fp32_inference=True, **LIF)
    with use_eval_mode(spikes):
        assert not spikes.cupy_fp32_inference
    with LIBRARY.recording(spikes, lambda distance: None):
        assert not spikes.cupy_fp32_inference
    assert spikes.cupy_fp32_inference


KERNELS = """
from {module} import LABELS, PICTURES, ForKernels

def build():
    return ForKernels()

def batches():
    yield PICTURES, LABELS
"""


@pytest.mark.parametrize("criterion", ["sf", "sf-obs", "taylor"])
def test_commands_run_a_network_for_kernels_where_these_are_not(
    criterion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(KERNELS.format(module=__name__))
    torch.save(for_kernels().state_dict(), "own.pth")
    flags = ("--model", "own.py:build", "--data", "own.py:batches")
    choice = ("--sparsity", 0.5, "--criterion", criterion)
    done = run("prune", "own.pth", *flags, *choice, "-o", "pruned.pth")
    assert done.returncode == 0, done.stderr
    done = run("eval", "pruned.pth", *flags)
    assert done.returncode == 0, done.stderr
    with allow_missing_kernels():
        ForKernels().load_state_dict(torch.load("pruned.pth", weights_only=True))


class OwnKernel(neuron.LIFNode):  # type: ignore[misc]  # the library has no types
    """Somebody's own kernel, which nobody can look into."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.heaviside(x - 1, torch.ones(()))


def test_where_a_kernel_hides_a_neuron_that_is_said_and_what_to_choose() -> None:
    torch.manual_seed(0)
    found = calibrated(One(OwnKernel()).eval(), images(4, 1, 8, 8))
    assert not found.neurons
    said = " ".join(found.warnings)
    assert "spikes: its spikes do not follow from the membrane that was seen: none was" in said
    assert "choose a back end of plain torch" in said
    assert "choose a back end" in (found.layers["conv.weight"].refused or "")


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert torch.equal(one[key], other[key]), key
    else:
        assert one == other
