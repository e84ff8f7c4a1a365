"""What is met on a pass, and the links that follow from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.errors import InputError
from snnprune.network.dynamics import Decay, Trail
from snnprune.network.following import Follower
from snnprune.network.layer_calls import LayerCall
from snnprune.network.layout import Layout
from snnprune.network.libraries import library_of
from snnprune.network.linking import (
    Population,
    Way,
    flows_into,
    is_input_scale,
    link_of,
    names_of,
    populations,
    renamed,
    share,
    unique,
    united,
    ways_to,
)
from snnprune.network.links import Layer, Link, Network, Neuron, Settled
from snnprune.network.membrane import is_reshaped
from snnprune.network.observers import Observers
from snnprune.network.origins import Origin
from snnprune.network.sites import COMPARISON, Site
from snnprune.network.walking import Term, recurrent, terms
from snnprune.network.weights import Made

SAME = 1e-2  # relative: rounding to fewer bits makes no other weight


class Seen:
    """What is met on the pass."""

    def __init__(self, module: nn.Module, settled: Settled) -> None:
        self.module, self.settled = module, settled
        self.layers: dict[str, Layer] = {}
        self.layouts: dict[str, Layout] = {}
        """How the parameter of each layer lies to its weight, at the call that is told of next."""
        self.contested: dict[str, Layout] = {}
        """The layouts that count where a parameter was used in several ways."""
        self.made: dict[str, str] = {}
        self.wholes: dict[tuple[str, ...], Tensor] = {}
        """Weights that are made of parameters, by the keys of these, as they were made first."""
        self.unseen: dict[str, str] = {}
        self.drives: dict[str, list[Term]] = {}
        self.axes: dict[str, int | None] = {}
        """Where neurons and sites have the channels of the layers before them."""
        self.entering: dict[str, list[str | None]] = {}
        """Neurons whose spikes enter each layer."""
        self.put_out: list[str | None] = []
        """Neurons whose spikes are the output."""
        self.sources: dict[str, bool] = {}
        """Neurons whose spikes reach a layer or the output; whether something else has a say."""
        self.trail = Trail()
        self.follower = Follower(
            module,
            Observers(
                on_layer=self.on_layer,
                on_layout=self.layouts.__setitem__,
                on_made=self.on_made,
                on_unseen=self.on_unseen,
                on_drive=self.on_drive,
                on_compared=self.on_compared,
                on_site=self.trail.take,
            ),
            settled,
            numbering=True,
        )

    def on_layer(self, weight: str, call: LayerCall, neuron: str | None) -> None:
        origins = self.follower.origins(call.input)
        fed = neuron is not None or any(origin.fed for origin in origins)
        if neuron is not None:
            self.drives.setdefault(neuron, []).append(recurrent(weight))
        for neuron, gated in united(origins).items():
            self.sources[neuron] = self.sources.get(neuron, False) or gated
        layout = self.layouts[weight]
        layer = Layer(
            weight=weight,
            kind=call.kind,
            shape=tuple(call.weight.shape),
            groups=call.groups,
            encoding=not fed,
            layout=None if layout.is_plain else layout,
            current_axis=call.channels or -1,
            shaped=weight in self.settled.functions or self._differs(weight, call, layout),
        )
        found = (term.neuron for origin in origins for term in terms(origin))
        self.entering.setdefault(weight, []).extend(found)
        before = self.layers.get(weight, layer)
        if replace(before, encoding=layer.encoding) != layer:
            self._contest(weight, before, layer)
            return
        # at the first time step it may be fed with nothing yet
        self.layers[weight] = replace(layer, encoding=layer.encoding and before.encoding)

    def _differs(self, key: str, call: LayerCall, layout: Layout) -> bool:
        """Whether a weight has other values than its parameter, as under a mask."""
        if key in self.layers:
            return self.layers[key].shaped
        held = layout.weight(self.module.get_parameter(key).detach())
        if held.data_ptr() == call.weight.data_ptr() and held.shape == call.weight.shape:
            return False
        weight = call.weight.detach().to(held.dtype).reshape(held.shape)
        rounding = SAME * float(held.abs().max()) if held.numel() else 0.0
        return not torch.allclose(weight, held, rtol=SAME, atol=rounding)

    def _contest(self, weight: str, before: Layer, layer: Layer) -> None:
        """Settle which use of a weight counts, as of a decoder that is tied to an encoder."""
        turned = [one for one in (before, layer) if one.layout and not one.layout.in_order]
        if not turned:
            raise InputError(
                f"is used in two ways: {_use_of(before)} and {_use_of(layer)}", field=weight
            )
        counts = layer if before in turned else before
        self.contested[weight] = counts.layout or Layout.of(counts.shape)

    def on_made(self, made: Made, call: LayerCall, weight: Tensor) -> None:
        for neuron, gated in united(self.follower.origins(call.input)).items():
            self.sources[neuron] = self.sources.get(neuron, False) or gated
        shapes = {key: self.module.get_parameter(key).shape for key in made.keys}
        alike = [key for key, shape in shapes.items() if shape == weight.shape]
        self.made.update(dict.fromkeys(alike or made.keys, made.how))
        if made.keys not in self.wholes:
            with self.follower.apart():
                self.wholes[made.keys] = weight.detach().clone()

    def on_unseen(self, keys: tuple[str, ...], how: str) -> None:
        self.unseen.update(dict.fromkeys(keys, how))

    def on_drive(self, neuron: str, inputs: tuple[Origin, ...], axis: int | None) -> None:
        found = self.drives.setdefault(neuron, [])
        found += [term for origin in inputs for term in terms(origin)]
        self.axes.setdefault(neuron, axis)

    def on_compared(self, site: Site, operand: Tensor) -> None:
        if site.key not in self.axes:
            self.axes[site.key] = self.follower.axis(operand)

    def finish(self, output: Any) -> None:
        # a membrane may be put out beside the spikes
        origins = self.follower.origins(output)
        self.put_out = [term.neuron for origin in origins for term in terms(origin)]
        for neuron, gated in united(origins).items():
            self.sources.setdefault(neuron, gated)

    def _through_neurons(self) -> None:
        """Neurons whose spikes drive another neuron that counts, as in attention, count too.

        What compares a membrane to reset it counts for no neuron of its own.
        """
        sites = {site.key: site for site in self.follower.comparisons.sites.found}
        steps = [site for site in sites.values() if site.key in self.sources]
        driven = [term.neuron for drive in self.drives.values() for term in drive if term.neuron]
        for key in driven:
            if key in sites and key not in self.sources:
                self.sources[key] = False
                steps.append(sites[key])
        while steps:
            here = steps.pop()
            behind = united(event.compared.origin for event in here.events)
            for key, gated in behind.items():
                other = sites.get(key)
                if other is None or key in self.sources or share(here, other):
                    continue
                if not (gated and flows_into(other, here)):  # else it clamps a membrane
                    self.sources[key] = gated
                    steps.append(other)

    def populations(self) -> list[Population]:
        """The neurons that are comparisons whose spikes go somewhere."""
        self._through_neurons()
        sites = [site for site in self.follower.comparisons.sites.found if site.key in self.sources]
        firsts = {key: kept[0] for key, kept in self.trail.distances.items()}
        return populations(sites, firsts)

    def axis_of(self, population: Population) -> int | None:
        """Where u - u_th has the channels, from the end; it is told of in a layer's own shape."""
        first = population.first
        drive = [term for term in first.events[0].terms if term.layer in self.layers]
        shapes = {term.source.shape for term in drive if term.source}
        axes = {self.layers[term.layer].current_axis for term in drive if term.layer}
        alike = len(shapes) == len(axes) == 1 and not any(term.moved for term in drive)
        if alike and is_reshaped(first.place.shape, *shapes):
            return axes.pop()
        return self.axes.get(first.key)

    def network(self, decays: Mapping[str, Decay], kept: Mapping[str, str]) -> Network:
        """The links that were seen.

        `decays` are by comparison; `kept` are parameters that weights are made with, by those.

        Raises:
            InputError: no layer or no neuron was seen.
        """
        return _Links(self, decays).network(kept)


class _Links:
    """From what was seen to a network."""

    def __init__(self, seen: Seen, decays: Mapping[str, Decay]) -> None:
        self.seen, self.decays, self.module = seen, decays, seen.module
        self.found = seen.populations()
        self.homes = {one.first.key: self._home(one) for one in self.found}
        self.names = names_of(self.found, self.homes)

    def network(self, kept: Mapping[str, str]) -> Network:
        seen = self.seen
        layers = {**seen.layers, **self._unseen(kept)}
        known: dict[str, Population | None] = dict.fromkeys(seen.drives)
        known |= {self.names[one.first.key]: one for one in self.found}
        self._require(layers, known)
        layers = {
            key: replace(layer, sources=self._renamed(seen.entering.get(key, ())))
            for key, layer in layers.items()
        }
        neurons = {}
        for name, population in known.items():
            drive, links = self._drive(name, population)
            for key, link in links.items():
                layers[key] = replace(layers[key], links=(*layers[key].links, link))
            neurons[name] = self._neuron(name, drive, population, known)
        return Network(
            module=self.module,
            layers=layers,
            neurons=neurons,
            outputs=self._renamed(seen.put_out),
            made={
                key: how for key, how in seen.made.items() if key not in layers and key not in kept
            },
            kept=tuple(kept),
            settled=replace(
                seen.settled,
                scalings={
                    site.index: one.scalings
                    for one in self.found
                    for site in (*one.sites, *one.shadows)
                },
                layers=frozenset(seen.layers),
                resting=self._resting(),
            ),
        )

    def _resting(self) -> frozenset[int]:
        """The sites that no other shares its place in the code with."""
        sites = self.seen.follower.comparisons.sites.found
        places = [site.place for site in sites]
        first = [one.first for one in self.found]
        return frozenset(site.index for site in first if places.count(site.place) == 1)

    def _unseen(self, kept: Mapping[str, str]) -> dict[str, Layer]:
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
                weight=key, kind="linear", shape=shape, encoding=False, unseen=_reason(how)
            )
        return found

    def _drive(
        self, name: str, population: Population | None
    ) -> tuple[list[Term], dict[str, Link]]:
        """What drives a neuron, and a link of each layer that does."""
        if population is None:
            drive = self.seen.drives[name]
            ways = [
                Way(term=term, around=term.through, outside=term.through, inner=(), has_state=False)
                for term in drive
            ]
            scale = None
        else:
            drive = renamed(population.terms, self.names)
            ways, scale = self._ways(population)
        links = {}
        for key in self._layers_of(drive):
            ours = [way for way in ways if way.term.layer == key]
            links[key] = link_of(name, ours, scale)
        return drive, links

    def _ways(self, population: Population) -> tuple[list[Way], Tensor | None]:
        """The ways to a comparison, and 1 - beta of its membrane, () or (C,)."""
        ways = ways_to(population, self.homes[population.first.key])
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
            neuron = neuron_of(name, self.module.get_submodule(name))
            axis = self.seen.axes.get(name)
        else:
            neuron = self._comparison(name, population)
            axis = self.seen.axis_of(population)
        return replace(
            neuron,
            axis=axis,
            feeders=self._layers_of(drive),
            # its own state may come back to it as an argument
            identities=unique(
                term.neuron for term in drive if term.neuron in known and term.neuron != name
            ),
        )

    def _comparison(self, name: str, population: Population) -> Neuron:
        site, home = population.first, self.homes[population.first.key]
        module = self.module.get_submodule(home)
        constants = replace(COMPARISON.constants(module), fires_at_threshold=site.also_equal)
        if decay := self.decays.get(site.key):
            ways, scale = self._ways(population)
            constants = replace(
                constants,
                beta=decay.beta,
                reset=decay.reset,
                decay_input=scale is not None and _takes_scaled(ways, scale),
            )
        return Neuron(
            name=name,
            module=module,
            library=COMPARISON,
            constants=constants,
            sites=tuple(one.index for one in population.sites),
            gated=all(
                self.seen.sources[key] for key in population.keys if key in self.seen.sources
            ),
        )

    def _home(self, population: Population) -> str:
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
        return unique(term.layer for term in drive if term.layer in self.seen.layers)

    def _renamed(self, neurons: Collection[str | None]) -> tuple[str, ...]:
        return unique(self.names.get(name or "", name) for name in neurons)

    def _require(self, layers: Collection[str], neurons: Collection[str]) -> None:
        if not layers and not self.seen.made:
            raise InputError(
                "no layer was used in the forward pass",
                field="--model",
                hint="does the function call the network? module types: " + self._module_types(),
            )
        if not neurons:
            raise InputError(
                "no spiking neuron found in the network",
                field="--model",
                hint="nothing that comes from a layer is compared with a threshold (a kernel would "
                "hide it: choose a back end of plain torch); module types: " + self._module_types(),
            )

    def _module_types(self) -> str:
        return ", ".join(sorted({type(child).__name__ for child in self.module.modules()})[:12])


def neuron_of(name: str, module: nn.Module) -> Neuron:
    """A neuron that is a module of a known library."""
    library = library_of(module)
    assert library is not None
    return Neuron(name=name, module=module, library=library, constants=library.constants(module))


def _takes_scaled(ways: list[Way], scale: Tensor) -> bool:
    """Whether a neuron takes its input times 1 - beta, in its own code or before it."""
    told = [way for way in ways if way.term.layer is not None]
    best = next((way for way in told if way.has_state), next(iter(told), None))
    if best is None:
        return False
    gains = [one.gain for one in (*best.inner, *best.outside) if one.gain is not None]
    return any(is_input_scale(gain, scale) for gain in gains)


def _reason(how: str) -> str:
    whole = " " in how  # else the name of a function
    return how if whole else f"it is applied by {how}, where nothing can be seen"


def _use_of(layer: Layer) -> str:
    return f"{layer.kind} of {layer.groups} groups"
