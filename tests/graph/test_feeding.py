"""Batches as people have them."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from snnprune import calibrate, evaluate, trace
from snnprune.errors import InputError
from snnprune.graph.forward import explain_label_errors, require_as_many
from snnprune.graph.network import Network
from snnprune.models import ModelSpec, build_model
from snnprune.pruning.repair.batchnorm import recalibrate_batchnorm

X, Y = torch.rand(6, 1, 28, 28), torch.tensor([0, 1, 2, 3, 4, 5])


def network() -> Network:
    torch.manual_seed(0)
    module = build_model(ModelSpec(name="conv-snn", args={"width": 4, "depth": 2}))
    return trace(module.eval(), X[:1])


def test_a_data_loader_plain_tensors_and_pairs_give_the_same() -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=3)  # gives lists
    found = [calibrate(network(), batches) for batches in (loader, X.split(3), [(X, None)])]
    rates = [one.neurons["encoder.neuron"].firing_rate for one in found]
    assert [one.samples for one in found] == [6, 6, 6]
    assert all(torch.equal(rate, rates[0]) for rate in rates)


def test_labels_of_a_loader_are_used() -> None:
    found = evaluate(network(), DataLoader(TensorDataset(X, Y), batch_size=3))
    assert (found.labelled, found.samples) == (6, 6)
    assert evaluate(network(), X.split(3)).labelled == 0


def test_a_repair_takes_a_loader_too() -> None:
    one = network()
    recalibrate_batchnorm(one, DataLoader(TensorDataset(X, Y), batch_size=3))
    other = network()
    recalibrate_batchnorm(other, [(X[:3], None), (X[3:], None)])
    for key, value in one.module.state_dict().items():
        assert torch.equal(value, other.module.state_dict()[key])


@pytest.mark.parametrize("batch", [{"x": X}, (X, "labels"), [X, Y, Y], 3])
def test_what_is_no_batch_is_refused(batch: object) -> None:
    with pytest.raises(InputError, match=r"--data: a batch is a (dict|tuple|list|int)"):
        calibrate(network(), [batch])


def test_a_wrapped_module_may_be_handed_over_as_it_is() -> None:
    module = nn.DataParallel(network().module)
    assert list(trace(module, X[:1]).layers) == list(network().layers)


def test_events_that_have_time_first_are_counted_by_their_labels() -> None:
    events = torch.zeros(7, 3, 2, 4, 4)
    assert network().count_samples(events, None) == 7
    assert network().count_samples(events, torch.zeros(3)) == 3


class InPlace(nn.Module):
    """Prepares its images in place, as some do."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network().module

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.sub_(0.5).div_(0.25))


def test_a_network_that_works_in_place_finds_and_leaves_the_data_as_they_were() -> None:
    module, x = InPlace().eval(), X.clone()
    traced = trace(module, x[:1].clone())
    first, second = (calibrate(traced, [(x, None)]) for _ in range(2))
    assert torch.equal(x, X)
    rates = [one.neurons["network.encoder.neuron"].firing_rate for one in (first, second)]
    assert torch.equal(*rates)


FITS = "--data: .* with 5 labels. give a label for each sample"


@pytest.mark.parametrize(
    ("scores", "count", "refused"),
    [
        (torch.zeros(6, 10), 6, False),
        (torch.zeros(4, 6, 10), 6, False),
        (torch.zeros(5, 10), 5, False),  # the network may fold several pictures into a sample
        (torch.zeros(6, 10), 5, True),
        (torch.zeros(6, 5), 5, True),  # classes are no samples
        ({"no": "scores"}, 5, False),  # whoever reads it will tell
    ],
)
def test_labels_are_as_many_as_samples_or_as_outputs(
    scores: object, count: int, refused: bool
) -> None:
    y = torch.zeros(count).long()
    with pytest.raises(InputError, match=FITS) if refused else nullcontext():
        require_as_many(scores, X, y, "sum")
    require_as_many(scores, X, None, "sum")


@pytest.mark.parametrize(
    ("field", "labels", "told"),
    [
        ("--readout", 5, FITS),
        ("--readout", 6, "--readout: of another shape"),
        ("--readout", None, "--readout: of another shape"),
        ("--data", 5, "--data: of another shape"),
    ],
)
def test_where_an_output_cannot_be_read_labels_that_do_not_fit_are_at_fault(
    field: str, labels: int | None, told: str
) -> None:
    y = None if labels is None else torch.zeros(labels).long()
    with pytest.raises(InputError, match=told), explain_label_errors(X, y):
        raise InputError("of another shape", field=field)


def test_every_name_of_a_tied_weight_is_known() -> None:
    module = nn.ModuleDict({name: nn.Linear(3, 3) for name in ("a", "b", "c")})
    module["c"].weight = module["a"].weight
    tied = Network(module=module)
    assert tied.find_tied("a.weight") == tied.find_tied("c.weight") == ["a.weight", "c.weight"]
    assert tied.find_tied("b.weight") == ["b.weight"]
