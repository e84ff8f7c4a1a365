"""Finding the links of any network by running it: what a pass meets becomes layers and neurons."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.data.batches import copy_batch
from snnprune.errors import InputError
from snnprune.graph.calls import BY_BATCH
from snnprune.graph.decay import Decay, measure_decays
from snnprune.graph.forward import Forward, device_of
from snnprune.graph.libraries import library_of
from snnprune.graph.links import (
    DrivePath,
    Population,
    TraceRecord,
    apply_links,
    choose_names,
    drop_duplicates,
    find_paths,
    is_input_scale,
    make_link,
    rename_terms,
)
from snnprune.graph.network import NOWHERE, Layer, Link, Network, Neuron, TraceSettings
from snnprune.graph.origins import Term
from snnprune.graph.state import unwrap, use_eval_mode
from snnprune.graph.thresholds import COMPARISON
from snnprune.graph.weight_uses import WeightFunctions, find_functions


def assemble_network(
    seen: TraceRecord, decays: Mapping[str, Decay], kept: Mapping[str, str]
) -> Network:
    """The network that was seen.

    `decays` are by comparison; `kept` are parameters that weights are made with, by those.

    Raises:
        InputError: no layer or no neuron was seen.
    """
    return _Assembly(seen, decays).network(kept)


class _Assembly:
    """From what was seen to a network."""

    def __init__(self, seen: TraceRecord, decays: Mapping[str, Decay]) -> None:
        self.seen, self.decays, self.module = seen, decays, seen.module
        self.found = seen.list_populations()
        self.homes = {one.first.key: self._find_home(one) for one in self.found}
        self.names = choose_names(self.found, self.homes)

    def network(self, kept: Mapping[str, str]) -> Network:
        seen = self.seen
        layers = {**seen.layers, **self._make_unseen_layers(kept)}
        known: dict[str, Population | None] = dict.fromkeys(seen.drives)
        known |= {self.names[one.first.key]: one for one in self.found}
        self._require(layers, known)
        layers = {
            key: replace(
                layer,
                sources=self._rename(seen.entering.get(key, ())),
                side_by_side=key in seen.side_by_side,
            )
            for key, layer in layers.items()
        }
        neurons = {}
        for name, population in known.items():
            drive, links = self._make_drive(name, population)
            for key, link in links.items():
                layers[key] = replace(layers[key], links=(*layers[key].links, link))
            neurons[name] = self._neuron(name, drive, population, known)
        return Network(
            module=self.module,
            layers=layers,
            neurons=neurons,
            outputs=self._rename(seen.put_out),
            made={
                key: how for key, how in seen.made.items() if key not in layers and key not in kept
            },
            kept=tuple(kept),
            settled=replace(
                seen.settled,
                scalings={
                    site.index: one.count_scalings()
                    for one in self.found
                    for site in (*one.sites, *one.shadows)
                },
                layers=frozenset(seen.layers),
                resting=self._find_resting(),
            ),
        )

    def _find_resting(self) -> frozenset[int]:
        """The sites that no other shares its place in the code with."""
        sites = self.seen.tracer.comparisons.sites.found
        places = [site.place for site in sites]
        first = [one.first for one in self.found]
        return frozenset(site.index for site in first if places.count(site.place) == 1)

    def _make_unseen_layers(self, kept: Mapping[str, str]) -> dict[str, Layer]:
        """Weights that are applied where nothing can be seen."""
        seen, found = self.seen, {}
        reasons = dict(seen.unseen)
        for weight in dict.fromkeys(kept.values()):
            beside = [key for key, own in kept.items() if own == weight]
            reasons[weight] = f"its kernel is made with {', '.join(beside)}"
        for key, how in reasons.items():
            if key in seen.layers:
                continue
            shape = tuple(self.module.get_parameter(key).shape)
            found[key] = Layer(
                weight=key, kind="linear", shape=shape, encoding=False, unseen=_explain(how)
            )
        return found

    def _make_drive(
        self, name: str, population: Population | None
    ) -> tuple[list[Term], dict[str, Link]]:
        """What drives a neuron, and a link of each layer that does."""
        if population is None:
            drive = self.seen.drives[name]
            ways = [
                DrivePath(
                    term=term, around=term.through, outside=term.through, inner=(), has_state=False
                )
                for term in drive
            ]
            scale = None
        else:
            drive = rename_terms(population.list_terms(), self.names)
            ways, scale = self._find_paths(population)
        links = {}
        for key in self._layers_of(drive):
            ours = [way for way in ways if way.term.layer == key]
            links[key] = make_link(name, ours, scale)
        return drive, links

    def _find_paths(self, population: Population) -> tuple[list[DrivePath], Tensor | None]:
        """The ways to a comparison, and 1 - beta of its membrane, () or (C,)."""
        ways = find_paths(population, self.homes[population.first.key])
        decay = self.decays.get(population.first.key)
        by_channel = decay.by_channel if decay is not None else None
        return ways, None if by_channel is None else 1 - by_channel

    def _neuron(
        self,
        name: str,
        drive: list[Term],
        population: Population | None,
        known: Collection[str],
    ) -> Neuron:
        if population is None:
            neuron = make_neuron(name, self.module.get_submodule(name))
            axis = self.seen.axes.get(name)
        else:
            neuron = self._make_comparison(name, population)
            axis = self.seen.find_axis(population)
        return replace(
            neuron,
            axis=axis,
            feeders=self._layers_of(drive),
            # its own state may come back to it as an argument
            identities=drop_duplicates(
                term.neuron for term in drive if term.neuron in known and term.neuron != name
            ),
        )

    def _make_comparison(self, name: str, population: Population) -> Neuron:
        site, home = population.first, self.homes[population.first.key]
        module = self.module.get_submodule(home)
        constants = replace(COMPARISON.constants(module), fires_at_threshold=site.also_equal)
        if decay := self.decays.get(site.key):
            ways, scale = self._find_paths(population)
            constants = replace(
                constants,
                beta=decay.beta,
                decay_input=scale is not None and _takes_scaled(ways, scale),
            )
        return Neuron(
            name=name,
            module=module,
            library=COMPARISON,
            constants=constants,
            sites=tuple(one.index for one in population.sites),
            gated=all(
                self.seen.sources[key] for key in population.list_keys() if key in self.seen.sources
            ),
        )

    def _find_home(self, population: Population) -> str:
        """The outermost module around a neuron that has no layer and no other neuron; "" if none.

        A surrogate that all neurons share is inside of each of them and is none of their homes.
        """
        others = [site for one in self.found if one is not population for site in one.sites]
        taken = {name for site in others for name in site.place.inside}
        taken |= {
            name
            for name in population.first.place.inside
            if any(key.startswith(f"{name}." if name else "") for key in self.seen.layers)
        }
        free = (name for name in population.first.place.inside if name not in taken)
        return next(free, "")

    def _layers_of(self, drive: list[Term]) -> tuple[str, ...]:
        """The layers in a drive; what else makes a current has a weight that is made as a whole."""
        return drop_duplicates(term.layer for term in drive if term.layer in self.seen.layers)

    def _rename(self, neurons: Collection[str | None]) -> tuple[str, ...]:
        return drop_duplicates(self.names.get(name or "", name) for name in neurons)

    def _require(self, layers: Collection[str], neurons: Collection[str]) -> None:
        if not layers and not self.seen.made:
            raise InputError(
                "no layer was used in the forward pass",
                field="--model",
                hint="does the function call the network? module types: "
                + self._format_module_types(),
            )
        if not neurons:
            raise InputError(
                "no spiking neuron found in the network",
                field="--model",
                hint="nothing that comes from a layer is compared with a threshold (a kernel would "
                "hide it: choose a back end of plain torch); module types: "
                + self._format_module_types(),
            )

    def _format_module_types(self) -> str:
        return ", ".join(sorted({type(child).__name__ for child in self.module.modules()})[:12])


def make_neuron(name: str, module: nn.Module) -> Neuron:
    """A neuron that is a module of a known library."""
    library = library_of(module)
    assert library is not None
    return Neuron(name=name, module=module, library=library, constants=library.constants(module))


def _takes_scaled(ways: list[DrivePath], scale: Tensor) -> bool:
    """Whether a neuron takes its input times 1 - beta, in its own code or before it."""
    told = [way for way in ways if way.term.layer is not None]
    best = next((way for way in told if way.has_state), next(iter(told), None))
    if best is None:
        return False
    gains = [one.gain for one in (*best.inner, *best.outside) if one.gain is not None]
    return any(is_input_scale(gain, scale) for gain in gains)


def _explain(how: str) -> str:
    whole = " " in how  # else the name of a function
    return how if whole else f"it is applied by {how}, where nothing can be seen"


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
        passes = _TracePasses(module=module, example=example, run=run or _call, reset=reset)
        seen, functions = passes.settle()
        network = assemble_network(seen, passes.decays(seen), functions.kept)
    network = replace(network, restless=seen.restless, draws=0 if any(passes.draws) else None)
    return apply_links(network.with_forward(run), links or {})


def _call(module: nn.Module, x: Any) -> Any:
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

    def run_pass(self, settled: TraceSettings) -> TraceRecord:
        """What is met on a pass."""
        found = TraceRecord(self.module, settled)
        with found.tracer.trace_calls(scripts=True):
            found.finish(self.once())
        return found

    def settle(self) -> tuple[TraceRecord, WeightFunctions]:
        """What is met once it is clear what weights are made of and which use of them counts."""
        seen, functions = self.run_pass(TraceSettings()), WeightFunctions()
        if seen.wholes:
            functions = find_functions(self.module, seen.wholes, self._build_wholes)
        if functions.elementwise or seen.contested:
            settled = TraceSettings(functions=functions.elementwise, layouts=seen.contested)
            seen = self.run_pass(settled)
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
        return self.run_pass(TraceSettings()).wholes


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
