"""Finding the links of any network by running it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.data.batches import copy_batch
from snnprune.graph.assembly import assemble_network, make_neuron
from snnprune.graph.decay import Decay, measure_decays
from snnprune.graph.forward import Forward, device_of
from snnprune.graph.libraries import library_of
from snnprune.graph.linking import apply_links
from snnprune.graph.links import NOWHERE, TraceSettings
from snnprune.graph.making import WeightFunctions, find_functions
from snnprune.graph.mode import unwrap, use_eval_mode
from snnprune.graph.network import Network
from snnprune.graph.restless import BY_BATCH
from snnprune.graph.visit import TraceRecord


@torch.no_grad()
def trace(
    module: nn.Module,
    example: Any,
    *,
    run: Forward | None = None,
    links: Mapping[str, str] | None = None,
) -> Network:
    """The links of `module`, from running it on `example` (a batch as it is fed to it).

    `run` is how a batch is run, from module and batch to output, here and whenever the network is
    run later. One forward pass tells the links. Where weights are made by functions or neurons are
    comparisons in somebody's code, a few more tell what these do. Where a layer drives several
    neurons, `links` may name, by weight key, the only one that counts, or "none". A module inside
    DataParallel or torch.compile is taken out of it.

    Raises:
        InputError: no spiking neuron is found, one weight is used in two ways, or `links` names
            what is not there.
    """
    module = unwrap(module)
    known = {n: make_neuron(n, m) for n, m in module.named_modules() if library_of(m) is not None}
    anything = dict.fromkeys((name for name, _ in module.named_modules()), BY_BATCH)
    before = Network(module=module, neurons=known, restless=anything)
    with use_eval_mode(module), before.reset_between_batches() as reset:
        passes = _TracePasses(module=module, example=example, run=run or _called, reset=reset)
        seen, functions = passes.settled()
        network = assemble_network(seen, passes.decays(seen), functions.kept)
    network = replace(network, restless=seen.restless, draws=0 if any(passes.draws) else None)
    return apply_links(network.with_forward(run), links or {})


def _called(module: nn.Module, x: Any) -> Any:
    return module(x)  # x may be whatever the module takes


@dataclass(frozen=True, kw_only=True)
class _TracePasses:
    """Passes of a network over one batch, all alike."""

    module: nn.Module
    example: Any
    run: Forward
    reset: Callable[[], None]
    draws: list[bool] = field(default_factory=list)
    """Of each pass, whether the network drew at random."""

    def once(self) -> Any:
        """Run the batch from rest; what the network draws by itself is the same each time."""
        self.reset()
        device = device_of(self.module)
        with _repeat_draws(device):
            before = _read_generator_states(device)
            output = self.run(self.module, copy_batch(self.example, device))  # it may work in place
            self.draws.append(_read_generator_states(device) != before)
            return output

    def seen(self, settled: TraceSettings) -> TraceRecord:
        """What is met on a pass."""
        found = TraceRecord(self.module, settled)
        with found.tracer.trace_calls(scripts=True):
            found.finish(self.once())
        return found

    def settled(self) -> tuple[TraceRecord, WeightFunctions]:
        """What is met once it is clear what weights are made of and which use of them counts."""
        seen, functions = self.seen(TraceSettings()), WeightFunctions()
        if seen.wholes:
            functions = find_functions(self.module, seen.wholes, self._build_wholes)
        if functions.elementwise or seen.contested:
            settled = TraceSettings(functions=functions.elementwise, layouts=seen.contested)
            seen = self.seen(settled)
        return seen, functions

    def decays(self, seen: TraceRecord) -> Mapping[str, Decay]:
        """What the membranes keep from step to step, of neurons that are comparisons."""
        found = seen.list_populations()
        axes = {one.first.key: seen.find_axis(one) for one in found}
        sites = {key: None if axis == NOWHERE else axis for key, axis in axes.items()}
        if not sites:
            return {}
        parts = {site.key: one.first.key for one in found for site in one.sites}
        return measure_decays(
            self.module, self.once, seen.trail.merge_parts(parts), sites, replace(seen.settled)
        )

    def _build_wholes(self) -> Mapping[tuple[str, ...], Tensor]:
        return self.seen(TraceSettings()).wholes


def _read_generator_states(device: torch.device) -> list[bytes]:
    """How torch's generators stand."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return [state.numpy().tobytes() for state in states]


@contextlib.contextmanager
def _repeat_draws(device: torch.device) -> Iterator[None]:
    """The generators as they are, put back afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
