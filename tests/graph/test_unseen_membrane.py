"""A neuron whose membrane cannot be seen: nothing is guessed about it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from behaviour import made_of
from spikingjelly_networks import ZOO
from zoo import calibrated, scores_by

from snnprune.graph.trace import trace


@contextmanager
def lying(module: Any, sink: Any) -> Iterator[None]:
    """A membrane that has nothing to do with the spikes."""
    handle = module.register_forward_hook(lambda _, __, out: sink(torch.full_like(out, -1.0)))
    yield
    handle.remove()


def test_a_neuron_whose_membrane_cannot_be_seen_is_left_to_magnitude_with_a_warning() -> None:
    module, x = made_of(ZOO, "PLIF net")
    honest, name = trace(module, x), "conv_fc.6"
    liar = replace(
        honest.neurons[name], library=replace(honest.neurons[name].library, recording=lying)
    )
    network = replace(honest, neurons={**honest.neurons, name: liar})
    found = calibrated(network, x)
    assert f"{name}: its spikes do not follow" in " ".join(found.warnings)
    scores = scores_by(network, found)
    assert "do not follow" in scores.fallback["conv_fc.4.weight"]
