"""What two networks have in common: spikes by neuron and step, outputs, answers."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sinabs.layers as sl
import torch
from spiking_networks import NETWORKS, STEPS, changed, images, made, spikes_of
from torch import Tensor, nn

from snnprune.errors import InputError, NonFiniteError
from snnprune.graph.forward import Readout
from snnprune.graph.network import Network
from snnprune.graph.state import copy_tensors
from snnprune.graph.trace import trace
from snnprune.measure.agreement import (
    Agreement,
    compare_answers,
    compare_outputs,
    describe_agreement,
)
from snnprune.measure.agreement_pass import (
    SpikeRecorder,
    _make_call,
    agreement,
    measure_agreements,
)


class Inputs(nn.Module):
    """Neurons that spike where weight times input is at least 1, two steps; outputs count them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3, bias=False)
        self.fc.weight.data = torch.eye(3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(self.fc(x * step) >= 1).to(x) for step in (1.0, 2.0)])


def batched(x: Tensor, y: Tensor | None, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    for start in range(0, len(x), size):
        yield x[start : start + size], None if y is None else y[start : start + size]


def held(network: Network, other: dict[str, Tensor], x: Tensor, **more: Any) -> Agreement:
    return agreement(network, {}, other, [(x, None)], **more)


def test_saved_states_and_what_the_network_has_not_are_no_part_of_it() -> None:
    neuron = sl.LIF(tau_mem=2.0)
    module = nn.Sequential(nn.Linear(3, 4), neuron, nn.Linear(4, 2))
    x = 3 * torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(0))
    network = trace(module, x)
    saved = {"1.v_mem": torch.full((7, 4), 9.0), "elsewhere.weight": torch.ones(2)}
    found = held(network, {**module.state_dict(), **saved}, x)
    assert found.share() == 1
    assert neuron.v_mem.shape != (7, 4)


def test_flipped_spikes_are_counted_by_time_step() -> None:
    x = torch.tensor([[1.0, 0.6, 0.0], [0.5, 0.4, 1.0]])
    network = trace(Inputs(), x)
    (name,) = network.neurons
    other = torch.diag(torch.tensor([1.0, 0.0, 2.5]))  # channel 1 falls silent, 2 is as before
    found = held(network, {"fc.weight": other}, x).spikes[name]
    # dense: step 1 (1, 0, 0), (0, 0, 1); step 2 (1, 1, 0), (1, 0, 1)
    assert found.places == (6, 6)
    assert found.first == (2, 4)
    assert found.other == (2, 3)
    assert found.same == (6, 5)
    assert found.shares == (1.0, 5 / 6)
    assert found.share == 11 / 12
    assert found.rates == (6 / 12, 5 / 12)


@pytest.mark.parametrize("name", NETWORKS)
def test_spikes_agree_as_those_of_the_library_do(name: str) -> None:
    module, x = made(NETWORKS[name]), images(5, 1, 8, 8)
    network, other = trace(module, x), changed(module)
    first, second = spikes_of(module, module.state_dict(), x), spikes_of(module, other, x)
    found = held(network, other, x)
    assert found.spikes.keys() == first.keys()
    assert 0.5 < (found.share() or 0) < 1
    for neuron, spikes in found.spikes.items():
        same = (first[neuron] == second[neuron]).flatten(1)
        assert spikes.timed
        assert spikes.same == tuple(same.sum(1).tolist())
        assert spikes.places == (same.shape[1],) * STEPS
        assert spikes.first == tuple(first[neuron].flatten(1).sum(1).tolist())
        assert spikes.other == tuple(second[neuron].flatten(1).sum(1).tolist())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_agrees_with_itself_everywhere(name: str) -> None:
    module, x = made(NETWORKS[name]), images(4, 1, 8, 8)
    network = trace(module, x)
    y = torch.arange(4)
    found = agreement(network, {}, module.state_dict(), [(x, y)], readout=Readout())
    assert {share for spikes in found.spikes.values() for share in spikes.shares} == {1.0}
    assert found.outputs is not None
    outputs = found.outputs
    assert (outputs.share, outputs.mean_cosine, outputs.divergence, outputs.difference) == (
        1,
        1,
        0,
        0,
    )
    assert found.answers is not None
    assert found.answers.only_first == found.answers.only_other == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_do_not_depend_on_the_batches(name: str) -> None:
    module, x = made(NETWORKS[name]), images(7, 1, 8, 8)
    network, other, y = trace(module, x), changed(module), torch.arange(7) % 10
    whole, cut = (
        agreement(network, {}, other, batched(x, y, size), readout=Readout()) for size in (7, 3)
    )
    assert whole.spikes == cut.spikes
    assert whole.answers == cut.answers
    assert whole.outputs is not None
    assert cut.outputs is not None
    assert whole.outputs.same_class == cut.outputs.same_class
    assert whole.outputs.divergence == pytest.approx(cut.outputs.divergence)


@torch.no_grad()
@pytest.mark.parametrize("silent_first", [True, False])
def test_spikes_with_the_samples_before_time_are_put_in_order(silent_first: bool) -> None:
    torch.manual_seed(0)
    neuron = sl.IAFSqueeze(num_timesteps=STEPS)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), neuron, nn.Flatten(), nn.Linear(144, 3)).eval()
    x = 6 * images(4 * STEPS, 1, 8, 8)  # (N T, 1, 8, 8)
    # the dense network is silent on blank images, so that its spikes fit any order
    batches = [torch.zeros_like(x), x] if silent_first else [x, torch.zeros_like(x)]
    dense = {"0.bias": torch.zeros(4)}
    other = {"0.bias": torch.tensor([0.6, 0.0, 0.4, 0.0])}
    network = trace(module, x)
    (found,) = agreement(network, dense, other, batches).spikes.values()
    assert isinstance(module[0], nn.Conv2d)
    assert module[0].bias is not None
    seen = []
    for bias in (dense, other):
        module[0].bias.copy_(bias["0.bias"])
        for batch in batches:
            neuron.reset_states()
            seen.append(neuron(module[0](batch)).unflatten(0, (4, STEPS)).transpose(0, 1))
    first, then = torch.cat(seen[:2], 1).flatten(1), torch.cat(seen[2:], 1).flatten(1)
    assert found.first == tuple(first.sum(1).tolist())
    assert found.other == tuple(then.sum(1).tolist())
    assert found.same == tuple((first == then).sum(1).tolist())
    assert len(set(found.same)) == STEPS


@pytest.mark.parametrize("fires", [True, False])
def test_a_membrane_at_its_threshold_spikes_where_its_neuron_says_so(fires: bool) -> None:
    network = trace(Inputs(), torch.ones(2, 3))
    ((name, neuron),) = network.neurons.items()
    constants = replace(neuron.constants, fires_at_threshold=fires)
    known = replace(network, neurons={name: replace(neuron, constants=constants)})
    recorder = SpikeRecorder(known)
    with recorder.batch():
        recorder.on_membrane(name, torch.tensor([-1.0, 0.0, 1.0]).expand(4, 2, 3))
        recorder.on_spikes(name, torch.tensor([0.0, float(fires), 1.0]).expand(4, 2, 3))
    assert recorder.calls[name][0].shape == (4, 2, 3)
    assert recorder.tells_steps_apart(name)


def test_one_call_without_a_membrane_may_be_several_steps() -> None:
    network = trace(Inputs(), torch.ones(2, 3))
    (name,) = network.neurons
    recorder = SpikeRecorder(network)
    with recorder.batch():
        recorder.on_spikes(name, torch.ones(4, 2, 3))
        assert not recorder.tells_steps_apart(name)
        recorder.on_spikes(name, torch.ones(4, 2, 3))
        assert recorder.tells_steps_apart(name)
    with recorder.batch():
        recorder.on_spikes(name, torch.ones(4, 2, 3))
        assert not recorder.tells_steps_apart(name)


def test_the_network_holds_afterwards_what_it_held() -> None:
    module, x = made(NETWORKS["snnTorch"]), images(4, 1, 8, 8)
    network, before = trace(module, x), copy_tensors(module)
    parameters = dict(module.named_parameters())
    other = changed(module)
    held(network, other, x)
    nan = {"fc.bias": torch.full((10,), torch.nan)}
    with pytest.raises(NonFiniteError):
        held(network, nan, x, readout=Readout())
    after = copy_tensors(module)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(parameters[key] is value for key, value in module.named_parameters())
    assert all(not hook for part in module.modules() for hook in (part._forward_hooks,))


def test_a_threshold_that_is_a_tensor_is_each_network_s_own() -> None:
    module, x = made(NETWORKS["snnTorch"]), images(4, 1, 8, 8)
    found = held(trace(module, x), {"spikes.threshold": torch.tensor(1e6)}, x).spikes["spikes"]
    assert sum(found.first) > 0 == sum(found.other)
    assert torch.equal(module.get_buffer("spikes.threshold"), torch.tensor(1.0))


def test_tensors_in_another_type_are_taken_as_the_network_has_them() -> None:
    module, x = made(NETWORKS["multi-step"]), images(4, 1, 8, 8)
    network = trace(module, x)
    half = {key: value.half() for key, value in module.state_dict().items()}
    rounded = {key: value.half().to(value) for key, value in module.state_dict().items()}
    assert agreement(network, rounded, half, [x]).share() == 1


def test_several_others_are_compared_in_one_go_as_one_by_one() -> None:
    module, x = made(NETWORKS["built in"]), images(4, 1, 8, 8)
    network = trace(module, x)
    others = [changed(module, seed) for seed in (1, 2)]
    together = measure_agreements(network, {}, others, [(x, None)])
    assert together == [held(network, other, x, readout=Readout()) for other in others]
    assert together[0] != together[1]


def test_answers_are_counted_as_numpy_counts_them() -> None:
    drawn = np.random.default_rng(0)
    a, b = drawn.normal(size=(2, 200, 3))
    y = drawn.integers(3, size=200)
    table = np.zeros((2, 2), dtype=int)
    first, other = a.argmax(1) == y, b.argmax(1) == y
    np.add.at(table, (first.astype(int), other.astype(int)), 1)
    answers = compare_answers(*map(torch.from_numpy, (a, b, y)))
    assert [[answers.neither, answers.only_other], [answers.only_first, answers.both]] == (
        table.tolist()
    )
    assert answers.accuracies == (first.mean(), other.mean())
    outputs = compare_outputs(torch.from_numpy(a), torch.from_numpy(b))
    assert outputs.same_class == np.sum(a.argmax(1) == b.argmax(1))


def test_outputs_are_compared_as_their_mean_over_time() -> None:
    module, x = made(NETWORKS["step by step"]), images(6, 1, 8, 8)
    network, other = trace(module, x), changed(module)
    with torch.no_grad():
        a = module(x).double().mean(0)
        own = {key: value.clone() for key, value in module.state_dict().items()}
        module.load_state_dict(other)
        b = module(x).double().mean(0)
        module.load_state_dict(own)
    outputs = held(network, other, x, readout=Readout()).outputs
    assert outputs is not None
    p, q = (torch.distributions.Categorical(logits=logits) for logits in (a, b))
    divergence = torch.distributions.kl_divergence(p, q).mean()
    assert outputs.mean_divergence == pytest.approx(float(divergence))
    assert outputs.mean_difference == pytest.approx(np.abs(a.numpy() - b.numpy()).mean())
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    assert outputs.mean_cosine == pytest.approx(float(cosine.mean()))


def test_silent_outputs_are_alike() -> None:
    x = torch.zeros(2, 3)
    outputs = held(
        trace(Inputs(), x), {"fc.weight": 2 * torch.eye(3)}, x, readout=Readout()
    ).outputs
    assert outputs is not None
    assert outputs.mean_cosine == 1


class AsLong(nn.Module):
    """Runs for as many steps as a parameter says."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.fc = nn.Parameter(torch.tensor(2.0)), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(self.fc(x) > 0).to(x) for _ in range(int(self.steps))])


@pytest.mark.parametrize("steps", [1.0, 3.0])
def test_networks_that_run_for_different_times_are_refused(steps: float) -> None:
    x = images(2, 3)
    with pytest.raises(InputError, match="spikes at other places in one network"):
        held(trace(AsLong(), x), {"steps": torch.tensor(steps)}, x)


def test_no_samples_are_refused() -> None:
    with pytest.raises(InputError, match="no samples"):
        agreement(trace(Inputs(), torch.ones(1, 3)), {}, {}, [])


def test_shares_of_some_neurons_count_each_place_once() -> None:
    module, x = made(NETWORKS["built in"]), images(4, 1, 8, 8)
    found = held(trace(module, x), changed(module), x)
    one, two = found.spikes.values()
    assert found.share([next(iter(found.spikes))]) == one.share
    same, places = sum(one.same) + sum(two.same), sum(one.places) + sum(two.places)
    assert found.share() == same / places
    assert sum(one.places) != sum(two.places)
    assert found.share([]) is None


def test_a_report_has_counts_beside_the_shares() -> None:
    module, x = made(NETWORKS["built in"]), images(4, 1, 8, 8)
    found = agreement(
        trace(module, x), {}, changed(module), [(x, torch.arange(4))], readout=Readout()
    )
    told = describe_agreement(found)
    assert told is not None
    assert describe_agreement(None) is None
    neuron = told["neurons"]["encoder.neuron"]
    assert neuron["agreement"] == sum(neuron["same"]) / sum(neuron["places"])
    assert len(neuron["agreement_by_step"]) == STEPS
    assert told["outputs"]["same_class"] == 4 * told["outputs"]["same_class_share"]
    assert told["answers"]["labelled"] == 4


FIRES = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0)) < 0.5  # (T, N, C)


@pytest.mark.parametrize(
    "seen",
    [[], [FIRES[:2]], [~FIRES], [FIRES.flip(0)]],
    ids=["no membrane", "fewer places", "others", "backwards"],
)
def test_spikes_that_follow_from_no_membrane_are_of_one_step(seen: list[Tensor]) -> None:
    call = _make_call(FIRES.float(), seen)
    assert (call.shape, call.shows_order) == (None, False)
    assert torch.equal(call.spikes, FIRES)
    values = torch.arange(60).view(3, 4, 5)
    (found,) = call.split_by_time(values)
    assert torch.equal(found, values.view(1, 60))


@pytest.mark.parametrize("samples_first", [False, True])
def test_spikes_are_split_by_time_as_their_membrane_was_seen(samples_first: bool) -> None:
    def lie(values: Tensor) -> Tensor:
        return (values.transpose(0, 1) if samples_first else values).flatten(0, 1)

    call = _make_call(lie(2.0 * FIRES), [FIRES[:1], FIRES[1:]])
    assert (call.shape, call.orders, call.shows_order) == ((3, 4, 5), (samples_first,), True)
    assert call.spikes.dtype == torch.float32  # two at a time are no yes or no
    values = torch.arange(60).view(3, 4, 5)
    (found,) = call.split_by_time(lie(values))
    assert torch.equal(found, values.view(3, 20))
