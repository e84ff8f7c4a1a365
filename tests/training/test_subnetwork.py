"""Searching in networks of all kinds, and what is left of it."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import NETWORKS, conv_snn, images, traced
from torch import Tensor, distributed, nn, optim
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations, parametrize, prune

from snnprune.data import Augmentation, DataOptions, open_data
from snnprune.data.images import ImageSplit
from snnprune.errors import InputError
from snnprune.graph.network import Network
from snnprune.measure.evaluation import compute_time_averaged_loss, evaluate
from snnprune.training.edge_popup import Subnetwork, randomize_network


def built(name: str) -> tuple[Network, Tensor]:
    build, x = NETWORKS[name]
    return traced(build(), x), x


def search_for(found: Subnetwork, x: Tensor, steps: int = 5) -> None:
    """A few steps of training on `x`."""
    module = found.network.module.train()
    optimizer = optim.SGD(found.scores.values(), lr=2.0, momentum=0.9, weight_decay=5e-4)
    with found.network.reset_between_batches() as reset:
        for _ in range(steps):
            reset()
            optimizer.zero_grad()
            (module(x) - 1).square().mean().backward()
            optimizer.step()


@torch.no_grad()
def output(network: Network, x: Tensor) -> Tensor:
    network.module.eval()
    with network.reset_between_batches() as reset:
        reset()
        result: Tensor = network.module(x).clone()
        return result


def everything(module: nn.Module) -> dict[str, Any]:
    """Classes, flags, order and values."""
    return {
        "classes": [(name, type(part)) for name, part in module.named_modules()],
        "parameters": [(n, id(p), p.requires_grad) for n, p in module.named_parameters()],
        "names": [list(part._parameters) for part in module.modules()],
        "values": {key: value.tolist() for key, value in module.state_dict().items()},
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_only_scores_learn_and_all_else_stays_as_it_is(name: str) -> None:
    network, x = built(name)
    module = network.module
    with randomize_network(network, weights="signed-constant", kept=0.5, seed=0) as found:
        learning = {id(p) for p in module.parameters() if p.requires_grad}
        assert learning == {id(scores) for scores in found.scores.values()}
        fixed = {n: p.clone() for n, p in module.named_parameters() if not p.requires_grad}
        scores = {key: score.detach().clone() for key, score in found.scores.items()}
        masks = found.masks()
        search_for(found, x)
        for key, before in scores.items():
            assert not torch.equal(found.scores[key], before)
        assert any(not torch.equal(mask, masks[key]) for key, mask in found.masks().items())
        for key, parameter in module.named_parameters():
            if key in fixed:
                assert torch.equal(parameter, fixed[key])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_plain_state_dict_gives_the_same_outputs_in_a_fresh_network(name: str) -> None:
    network, x = built(name)
    with randomize_network(network, weights="kaiming-normal", kept=0.3, seed=0) as found:
        search_for(found, x)
        expected, written, masks = output(network, x), found.state_dict(), found.masks()
    fresh = NETWORKS[name][0]()
    fresh.load_state_dict(written, strict=True)
    assert list(written) == list(fresh.state_dict())
    again = traced(fresh, x)
    assert torch.equal(output(again, x), expected)
    assert bool(expected.any())
    for key, mask in masks.items():
        assert torch.equal(again.weight(key) != 0, mask)
        assert int(mask.sum()) == round(0.3 * mask.numel())


@pytest.mark.parametrize("name", NETWORKS)
def test_afterwards_the_network_is_as_it_was(name: str) -> None:
    network, x = built(name)
    before, plain = everything(network.module), output(network, x)
    with randomize_network(network, weights="kaiming-normal", kept=0.3, seed=0) as found:
        search_for(found, x)
    assert everything(network.module) == before
    assert torch.equal(output(network, x), plain)


def test_it_is_as_it_was_after_an_exception_too() -> None:
    network, _ = built("conv-snn")
    before = everything(network.module)
    with (
        pytest.raises(ZeroDivisionError),
        randomize_network(network, weights="kaiming-normal", kept=0.3, seed=0),
    ):
        raise ZeroDivisionError
    assert everything(network.module) == before


class Buffered(nn.Sequential):
    """A network that keeps its last output in a buffer."""

    last: Tensor

    def __init__(self) -> None:
        super().__init__(conv_snn())
        self.register_buffer("last", torch.zeros(2, 2, 10))

    def forward(self, x: Tensor) -> Tensor:
        self.last = super().forward(x)
        return self.last


@pytest.mark.parametrize("samples", [2, 5])
@pytest.mark.parametrize("inference", [True, False])
def test_buffers_come_back_whatever_a_pass_made_of_them(samples: int, inference: bool) -> None:
    network = traced(Buffered())
    module: Any = network.module
    before = module.last.clone()
    with (
        randomize_network(network, weights="kaiming-normal", kept=0.5, seed=0),
        torch.inference_mode(inference),
    ):
        module(images(samples, 1, 8, 8))
    assert torch.equal(module.last, before)


def test_a_buffer_that_was_taken_away_comes_back() -> None:
    network = traced(Buffered())
    module: Any = network.module
    before = module.last.clone()
    with randomize_network(network, weights="kaiming-normal", kept=0.5, seed=0):
        module.last = None
    assert torch.equal(module.last, before)


def test_biases_are_gone_norms_are_plain_and_their_statistics_are_new_and_live() -> None:
    module = conv_snn()
    norm: Any = module.get_submodule("blocks.0.norm")
    for parameter in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(parameter, 2, 3)
    network, x = traced(module), images(4, 1, 8, 8)
    with randomize_network(network, weights="kaiming-normal", kept=0.5, seed=0) as found:
        state = found.state_dict()
        assert not state["classifier.bias"].any()
        assert state["blocks.0.norm.weight"].eq(1).all()
        assert not state["blocks.0.norm.bias"].any()
        assert not state["blocks.0.norm.running_mean"].any()
        assert state["blocks.0.norm.running_var"].eq(1).all()
        search_for(found, x)
        assert found.state_dict()["blocks.0.norm.running_mean"].any()


def test_a_weight_under_two_names_has_one_score_and_stays_one_weight() -> None:
    network, x = built("own")
    module: Any = network.module
    with randomize_network(network, weights="kaiming-normal", kept=0.5, seed=0) as found:
        assert set(found.scores) == {"weight", "fc.weight"}
        search_for(found, x)
        assert torch.equal(module.weight, module.again.weight)
        written = found.state_dict()
    assert written["weight"].data_ptr() == written["again.weight"].data_ptr()
    assert module.weight is module.again.weight
    assert not written["bias"].any()
    assert not written["again.bias"].any()
    # no bias of a layer, and no BatchNorm
    assert written["norm.weight"].eq(1).all()
    assert float(written["threshold"]) == 0.5


def test_scores_can_be_taken_up_again() -> None:
    network, x = built("conv-snn")
    with randomize_network(network, weights="kaiming-normal", kept=0.5, seed=0) as found:
        search_for(found, x)
        scores = {key: score.detach().clone() for key, score in found.scores.items()}
        masks = found.masks()
    with randomize_network(network, weights="kaiming-normal", kept=0.5, seed=0) as found:
        assert any(not torch.equal(mask, masks[key]) for key, mask in found.masks().items())
        found.load_scores(scores)
        assert all(torch.equal(mask, masks[key]) for key, mask in found.masks().items())


def test_a_layer_of_few_weights_keeps_one() -> None:
    network = traced(conv_snn(width=1, depth=1, size=1, classes=2), images(2, 1, 1, 1))
    with randomize_network(network, weights="kaiming-normal", kept=0.1, seed=0) as found:
        kept = {key: int(mask.sum()) for key, mask in found.masks().items()}
    assert kept == {"encoder.conv.weight": 1, "classifier.weight": 1}


@contextlib.contextmanager
def one_process() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        store = (Path(folder) / "store").as_uri()
        distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
        try:
            yield
        finally:
            distributed.destroy_process_group()


def test_a_search_runs_in_distributed_data_parallel() -> None:
    network, x = built("conv-snn")
    results = []
    for wrap in (lambda module: module, DistributedDataParallel):
        with (
            one_process(),
            randomize_network(network, weights="kaiming-normal", kept=0.5, seed=0) as found,
        ):
            module = wrap(network.module.train())
            optimizer = optim.SGD(found.scores.values(), lr=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                module(x).square().mean().backward()
                optimizer.step()
            results.append({key: score.detach().clone() for key, score in found.scores.items()})
            del module, optimizer
    alone, parallel = results
    for key, scores in alone.items():
        torch.testing.assert_close(parallel[key], scores)


def lazy() -> Network:
    module = conv_snn()
    network = traced(module)
    module.add_module("unused", nn.LazyLinear(3))
    return network


def normed() -> Network:
    module = conv_snn()
    parametrizations.weight_norm(module.get_submodule("blocks.0.conv"))
    return traced(module)


def masked() -> Network:
    module = conv_snn()
    prune.random_unstructured(module.get_submodule("blocks.0.conv"), "weight", amount=0.5)
    return traced(module)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def doubled() -> Network:
    module = conv_snn()
    parametrize.register_parametrization(module.get_submodule("blocks.0.conv"), "weight", Doubled())
    return traced(module)


REFUSED = {
    "lazy": (lazy, "unused.weight: has no shape yet. run a batch through it first"),
    "made": (
        normed,
        "blocks.0.conv.parametrizations.weight.original1: is made by weight_norm. "
        "a search needs plain parameters: give the network as it is before that",
    ),
    "parametrized": (
        doubled,
        "blocks.0.conv.parametrizations.weight.original: is parametrized already. ",
    ),
    "pruned": (masked, "blocks.0.conv.weight_orig: is masked by torch.nn.utils.prune. "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_weights_that_are_no_plain_parameters_are_refused(name: str) -> None:
    make, line = REFUSED[name]
    network = make()
    before = list(network.module.state_dict())
    with (
        pytest.raises(InputError) as caught,
        randomize_network(network, weights="kaiming-normal", kept=0.5, seed=0),
    ):
        pytest.fail("it began")
    assert str(caught.value).startswith(line)
    assert list(network.module.state_dict()) == before


def test_all_of_a_network_may_be_kept() -> None:
    with randomize_network(traced(), weights="kaiming-normal", kept=1.0, seed=0) as found:
        assert all(bool(mask.all()) for mask in found.masks().values())


@pytest.mark.parametrize("kept", [0.0, -0.1, 1.1, float("nan")])
def test_what_is_no_share_cannot_be_kept(kept: float) -> None:
    with (
        pytest.raises(InputError, match="cannot be kept"),
        randomize_network(traced(), weights="kaiming-normal", kept=kept, seed=0),
    ):
        pytest.fail("it began")


def bundled(count: int) -> tuple[ImageSplit, ImageSplit]:
    data = open_data("fashion-mnist-mini", options=DataOptions())
    assert isinstance(data.train, ImageSplit)
    assert isinstance(data.test, ImageSplit)
    return data.train.sample(count, 0), data.test.sample(count, 0)


def test_a_search_on_real_images_finds_a_subnetwork_far_above_chance() -> None:
    train, test = bundled(500)
    network = traced(conv_snn(width=8, size=28, depth=3), images(2, 1, 28, 28))
    with randomize_network(network, weights="signed-constant", kept=0.5, seed=0) as found:
        module = network.module.train()
        optimizer = optim.SGD(found.scores.values(), lr=0.3, momentum=0.9)
        for epoch in range(4):
            for x, y in train.shuffle(50, key=(0, epoch), device="cpu", augment=Augmentation()):
                assert y is not None
                optimizer.zero_grad()
                compute_time_averaged_loss(module(x), y).mean().backward()
                optimizer.step()
        accuracy = evaluate(network, test.batches(250)).accuracy
    assert accuracy is not None
    assert accuracy > 0.5
