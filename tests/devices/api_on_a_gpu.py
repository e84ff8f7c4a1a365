"""Prune, score and measure a network of this process on a pretended GPU, as on the CPU."""

from typing import Any

import torch
from pretended_gpu import pretend
from torch import nn

import snnprune
from snnprune.api.results import PruningResult
from snnprune.models.lif import LIF, Dynamics

GPU = torch.device("cuda", 0)


def build() -> nn.Module:
    """Fresh, on the CPU."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 24), LIF(Dynamics()), nn.Linear(24, 3))


X = 4 * torch.rand(4, 4, 32, 12, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0, :, 0] > 2).long()
BATCHES = [(x, y) for x, y in zip(X, Y, strict=True)]


def prune(model: nn.Module, *, copy: bool = True) -> PruningResult:
    """With a repair that tunes, and one in closed form before it."""
    options = dict[str, Any](criterion="sf", repair="obs+tune", tune_steps=3)
    return snnprune.prune_model(model, BATCHES, sparsity=0.8, copy=copy, **options)


def main() -> None:
    """The same numbers as on the CPU, where the network is."""
    pretend()  # before a first backward pass, which counts the devices
    expected = prune(build())
    model = build().to("cuda")
    for result in (prune(model), prune(model, copy=False)):
        assert {one.device for one in result.model.parameters()} == {GPU}
        for key, mask in result.masks.items():
            assert mask.device.type == "cpu"
            assert torch.equal(mask, expected.masks[key])
        for key, one in result.model.state_dict().items():
            assert torch.allclose(one.cpu(), expected.model.state_dict()[key], atol=1e-5)
    assert result.model is model
    measured = snnprune.evaluate_model(model, BATCHES)
    assert not measured.report["device"].startswith("cpu")
    there = snnprune.score_model(build(), BATCHES, criterion="sf", device="cuda")
    assert all(one.device.type == "cpu" for one in there.scores.values())
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    with snnprune.hold_masks(model, expected, optimizer):
        model(X[0].to("cuda")).sum().backward()
        optimizer.step()
    for key, mask in expected.masks.items():
        assert not model.get_parameter(key).cpu()[~mask].any()


if __name__ == "__main__":
    main()
