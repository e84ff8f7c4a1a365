"""What holds for every network of every library; a test file subclasses it beside its `case`."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from zoo import (
    Links,
    calibrated,
    inner_state,
    left_out,
    links_of,
    lively,
    output,
    outputs,
    pruned_by_the_command,
    scores_by,
    seen,
)

from snnprune.graph.hooks import observe
from snnprune.graph.network import Network
from snnprune.graph.samples_and_steps import StepCount
from snnprune.graph.trace import trace
from snnprune.measure.calibration import Calibration
from snnprune.pruning.score import Scores

Networks = dict[str, tuple[Callable[[], nn.Module], Tensor]]
"""Name: what builds the network, and a batch for it."""


def made_of(networks: Networks, name: str) -> tuple[nn.Module, Tensor]:
    """The network of that name, the same at every call, and its batch."""
    torch.manual_seed(0)
    build, x = networks[name]
    return lively(build()), x


@dataclass(frozen=True, kw_only=True)
class Case:
    """A traced network, a batch for it, and its links as they are read off its code."""

    network: Network
    x: Tensor
    links: Links

    @functools.cached_property
    def calibration(self) -> Calibration:
        """Statistics of the batch."""
        return calibrated(self.network, self.x)

    @functools.cached_property
    def scores(self) -> Scores:
        """Scores by the spiking-firing criterion."""
        return scores_by(self.network, self.calibration)


def cases_of(networks: Networks, links: dict[str, Links]) -> object:
    """A fixture: each of the networks, traced once for all tests of a module."""

    @pytest.fixture(scope="module", params=networks)
    def case(request: pytest.FixtureRequest) -> Case:
        module, x = made_of(networks, request.param)
        return Case(network=trace(module, x), x=x, links=links[request.param])

    return case


class Behaviour:
    """Tests of the `case` that the fixture of that name gives in the subclass's module."""

    results: ClassVar[tuple[str, ...]] = ()
    """Attributes that every call writes anew, watched or not."""
    liveliest: ClassVar[float] = 0.05
    """A firing rate that one neuron exceeds, or only silence would be compared."""

    def state(self, network: Network) -> dict[str, Any]:
        """All that has to be as before when nobody watches any more."""
        found = inner_state(network.module)
        return {key: one for key, one in found.items() if not key.endswith(self.results)}

    def test_the_links_are_those_read_off_the_code(self, case: Case) -> None:
        assert links_of(case.network) == case.links

    def test_the_output_is_bit_identical_while_watched_and_after(self, case: Case) -> None:
        told: list[str] = []
        before = outputs(case.network, case.x)
        with observe(
            case.network, on_membrane=lambda n, u: told.append(n), on_spikes=lambda n, s: None
        ):
            during = outputs(case.network, case.x)
        for one, other, after in zip(before, during, outputs(case.network, case.x), strict=True):
            assert torch.equal(one, other)
            assert torch.equal(one, after)
        assert set(told) == set(case.network.neurons)

    @pytest.mark.parametrize("fails", [False, True])
    def test_nothing_is_left_behind(self, case: Case, fails: bool) -> None:
        output(case.network, case.x)
        module = case.network.module
        before, keys = self.state(case.network), list(module.state_dict())

        def look(name: str, distance: Tensor) -> None:
            if fails:
                raise RuntimeError("stop")

        try:
            with observe(case.network, on_membrane=look):
                output(case.network, case.x)
        except RuntimeError:
            assert fails
        else:
            assert not fails
        assert self.state(case.network) == before
        assert list(module.state_dict()) == keys

    def test_spikes_follow_from_the_membranes(self, case: Case) -> None:
        found = case.calibration
        assert set(found.neurons) == set(case.network.neurons)
        assert not left_out(found)
        rates = [float(one.firing_rate.mean()) for one in found.neurons.values()]
        assert max(rates) > self.liveliest

    def test_the_shapes_of_the_spikes_tell_the_time_steps(self, case: Case) -> None:
        count = StepCount(case.network)
        with observe(case.network, on_spikes=count.on_spikes):
            output(case.network, case.x)
        membranes, _ = seen(case.network, case.x)
        steps, samples = membranes[next(iter(case.network.neurons))].shape[:2]
        assert count.of(samples) == steps

    def test_every_convolution_between_spikes_is_scored_by_the_formula(self, case: Case) -> None:
        for key, layer in case.network.layers.items():
            inside = not layer.encoding and bool(layer.links) and layer.kind != "linear"
            assert (key in case.scores.fallback) is not inside


class DropIn:
    """A test of what `prune` writes for a network of the subclass's module."""

    network: ClassVar[str]
    """Its name."""
    weight: ClassVar[str]
    """A weight of it that is pruned."""

    def test_what_prune_writes_loads_into_a_fresh_network(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        module = type(self).__module__
        state = pruned_by_the_command(run, module, self.network)
        fresh, x = import_module(module).made(self.network)
        fresh.load_state_dict(state)
        assert int((fresh.get_parameter(self.weight) == 0).sum()) > 20
        assert torch.isfinite(output(trace(fresh, x), x)).all()
