from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from snnprune.errors import InputError, UsageError
from snnprune.graph.network import Layer, Link, Norm
from snnprune.measure.calibration import (
    Calibration,
    DriveStatistics,
    LayerStatistics,
    NeuronStatistics,
)
from snnprune.pruning.criteria import Criterion, Evidence, Needs, load_criterion
from snnprune.pruning.score import NetworkEvidence, score, why_unsuited

OWN = """
from snnprune.pruning.criteria import criterion


@criterion(needs="weight")
def squared(evidence):
    return evidence.weight**2


@criterion(needs="weight")
def broken(evidence):
    return evidence.weight.flatten()


def plain(evidence):
    return evidence.weight
"""


def test_magnitude_is_the_absolute_value() -> None:
    weight = torch.tensor([[-2.0, 1.0]])
    found = load_criterion("magnitude")(Evidence(weight=weight, key="w"))
    assert found.tolist() == [[2.0, 1.0]]


def test_random_depends_on_seed_and_key_alone() -> None:
    random = load_criterion("random")
    weight = torch.ones(3, 4)
    first = random(Evidence(weight=weight, key="a", seed=1))
    assert torch.equal(first, random(Evidence(weight=2 * weight, key="a", seed=1)))
    assert not torch.equal(first, random(Evidence(weight=weight, key="a", seed=2)))
    assert not torch.equal(first, random(Evidence(weight=weight, key="b", seed=1)))


def test_an_unknown_name_is_a_usage_error_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="did you mean magnitude"):
        load_criterion("magnitud")


def test_a_criterion_comes_from_the_users_own_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    squared = load_criterion(f"{file}:squared")
    assert isinstance(squared, Criterion)
    found = score({"w": torch.tensor([[3.0, 0.0]])}, squared, name="squared")
    assert found.values["w"].tolist() == [[9.0, -torch.inf]]
    with pytest.raises(InputError, match="not a criterion"):
        load_criterion(f"{file}:plain")
    with pytest.raises(InputError, match=r"w: broken gives \(2,\) instead of a tensor"):
        score({"w": torch.ones(1, 2)}, load_criterion(f"{file}:broken"), name="broken")


def test_a_criterion_that_needs_data_says_so() -> None:
    with pytest.raises(InputError, match="sf needs the network and data"):
        score({"w": torch.ones(1, 2)}, load_criterion("sf"), name="sf")


def layer_of(**known: Any) -> Layer:
    given = {"weight": "w", "kind": "conv2d", "shape": (3, 2, 1, 1), "encoding": False}
    return Layer(**{**given, **known})


def seen_of(layer: Layer, **known: Any) -> NetworkEvidence:
    """Statistics of a layer, which drives a neuron unless it is said otherwise."""
    ones = torch.ones(3, dtype=torch.float64)
    neuron = NeuronStatistics(
        firing_rate=ones,
        membrane_mean=ones,
        membrane_var=ones,
        membrane_histogram=torch.zeros(3, 3, dtype=torch.int64),
        threshold=ones,
    )
    drive = DriveStatistics(name="lif", neuron=neuron, bn_scale=ones, time_gain=1.0)
    rate = torch.ones(layer.shape[1] * layer.groups, dtype=torch.float64)
    statistics = LayerStatistics(
        **{"input_rate": rate, "input_values": "binary", "drives": (drive,), **known}
    )
    calibration = Calibration(
        layers={"w": statistics},
        neurons={"lif": neuron},
        samples=1,
        time_steps=1,
        histogram_edges=torch.zeros(2),
        source={},
        warnings=(),
    )
    return NetworkEvidence(calibration=calibration)


NORMED = (Link(neuron="lif", norms=((Norm(scale=None, variance="v", eps=0.0),),)),)
CONV, LINEAR, UNSEEN = layer_of(), layer_of(kind="linear"), layer_of(unseen="it is hidden")
REACHED = NetworkEvidence(gradients={"w": torch.ones(3, 2, 1, 1)})
NOTHING = NetworkEvidence()


@pytest.mark.parametrize(
    ("needs", "layer", "evidence", "why"),
    [
        ("weight", UNSEEN, NOTHING, None),
        ("gradient", CONV, REACHED, None),
        ("gradient", UNSEEN, REACHED, None),
        ("gradient", CONV, NetworkEvidence(gradients={}), "no gradient reaches it"),
        ("gradient", UNSEEN, NetworkEvidence(gradients={}), "it is hidden"),
        ("gradient", None, NOTHING, "no gradient reaches it"),
        ("inputs", UNSEEN, seen_of(UNSEEN), "it is hidden"),
        ("inputs", CONV, NOTHING, "not met in the forward pass"),
        ("inputs", None, seen_of(CONV), "not met in the forward pass"),
        ("inputs", CONV, seen_of(CONV, drives=()), None),
        ("gram", CONV, seen_of(CONV), "not met in the forward pass"),
        ("spikes", CONV, seen_of(CONV), None),
        ("spikes", CONV, seen_of(CONV, drives=()), "no spiking neuron after it"),
        ("spikes", CONV, seen_of(CONV, drives=(), refused="of an axis"), "of an axis"),
        (
            "spikes",
            layer_of(encoding=True),
            seen_of(CONV, drives=()),
            "encoding layer: its input is not spikes",
        ),
        ("spikes", LINEAR, seen_of(LINEAR), "linear layer without BatchNorm"),
        ("spikes", layer_of(kind="linear", links=NORMED), seen_of(LINEAR), None),
    ],
)
def test_a_layer_that_lacks_what_a_criterion_needs_is_told_why(
    needs: Needs, layer: Layer | None, evidence: NetworkEvidence, why: str | None
) -> None:
    asked = Criterion(name="mine", function=lambda one: one.weight, needs=needs, scale="linear")
    assert why_unsuited(asked, layer, evidence, "w") == why


@pytest.mark.parametrize(
    ("layer", "fits"),
    [
        (CONV, True),
        (layer_of(shape=(3, 1, 1, 1), groups=2), True),
        (layer_of(shape=(3, 2, 1, 1), groups=2), False),
        (layer_of(shape=(4, 2, 1, 1)), False),
        (None, True),
    ],
)
def test_statistics_of_a_layer_of_another_size_are_refused(layer: Layer | None, fits: bool) -> None:
    asked = Criterion(name="mine", function=lambda one: one.weight, needs="inputs", scale="linear")
    weight, evidence = torch.ones(layer.shape if layer else (1,)), seen_of(CONV)
    with nullcontext() if fits else pytest.raises(InputError, match="w: the statistics are not of"):
        found = evidence.of("w", weight, layer, asked, suited=True, seed=0)
        assert found.groups == (layer.groups if layer else 1)
        assert found.weight is not weight
