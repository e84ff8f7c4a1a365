"""What is met on a pass, and the links that follow from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.errors import InputError
from snnprune.graph.calls import LayerCall
from snnprune.graph.decay import MembraneTrail
from snnprune.graph.layout import Layout
from snnprune.graph.linking import (
    Population,
    flows_into,
    group_populations,
    has_shared_membrane,
    merge_neurons_behind,
)
from snnprune.graph.network import Layer, TraceSettings
from snnprune.graph.origins import Origin, Term, find_terms, make_recurrent_term
from snnprune.graph.thresholds import ThresholdSite, is_reshaped
from snnprune.graph.tracer import Tracer
from snnprune.graph.weight_uses import ComposedWeight, Observers

SAME = 1e-2  # relative: rounding to fewer bits makes no other weight


class TraceRecord:
    """What is met on the pass."""

    def __init__(self, module: nn.Module, settled: TraceSettings) -> None:
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
        self.side_by_side: set[str] = set()
        """Neurons whose spikes enter each layer."""
        self.put_out: list[str | None] = []
        """Neurons whose spikes are the output."""
        self.sources: dict[str, bool] = {}
        """Neurons whose spikes reach a layer or the output; whether something else has a say."""
        self.restless: dict[str, str] = {}
        """What is done as in training, by module."""
        self.trail = MembraneTrail()
        self.tracer = Tracer(
            module,
            Observers(
                on_layer=self.on_layer,
                on_layout=self.layouts.__setitem__,
                on_made=self.on_made,
                on_unseen=self.on_unseen,
                on_drive=self.on_drive,
                on_compared=self.on_compared,
                on_site=self.trail.take,
                on_restless=self.restless.__setitem__,
            ),
            settled,
            numbering=True,
        )

    def on_layer(self, weight: str, call: LayerCall, neuron: str | None) -> None:
        origins = self.tracer.find_origins(call.input)
        fed = neuron is not None or any(origin.fed for origin in origins)
        if neuron is not None:
            self.drives.setdefault(neuron, []).append(make_recurrent_term(weight))
        for neuron, gated in merge_neurons_behind(origins).items():
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
        found = [term for origin in origins for term in find_terms(origin)]
        self.entering.setdefault(weight, []).extend(term.neuron for term in found)
        if any(term.beside for term in found):
            self.side_by_side.add(weight)
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
                f"is used in two ways: {_format_use(before)} and {_format_use(layer)}", field=weight
            )
        counts = layer if before in turned else before
        self.contested[weight] = counts.layout or Layout.of(counts.shape)

    def on_made(self, made: ComposedWeight, call: LayerCall, weight: Tensor) -> None:
        for neuron, gated in merge_neurons_behind(self.tracer.find_origins(call.input)).items():
            self.sources[neuron] = self.sources.get(neuron, False) or gated
        shapes = {key: self.module.get_parameter(key).shape for key in made.keys}
        alike = [key for key, shape in shapes.items() if shape == weight.shape]
        self.made.update(dict.fromkeys(alike or made.keys, made.how))
        if made.keys not in self.wholes:
            with self.tracer.apart():
                self.wholes[made.keys] = weight.detach().clone()

    def on_unseen(self, keys: tuple[str, ...], how: str) -> None:
        self.unseen.update(dict.fromkeys(keys, how))

    def on_drive(self, neuron: str, inputs: tuple[Origin, ...], axis: int | None) -> None:
        found = self.drives.setdefault(neuron, [])
        found += [term for origin in inputs for term in find_terms(origin)]
        self.axes.setdefault(neuron, axis)

    def on_compared(self, site: ThresholdSite, operand: Tensor) -> None:
        if site.key not in self.axes:
            self.axes[site.key] = self.tracer.axis(operand)

    def finish(self, output: Any) -> None:
        # a membrane may be put out beside the spikes
        origins = self.tracer.find_origins(output)
        self.put_out = [term.neuron for origin in origins for term in find_terms(origin)]
        for neuron, gated in merge_neurons_behind(origins).items():
            self.sources.setdefault(neuron, gated)

    def _link_through_neurons(self) -> None:
        """Neurons whose spikes drive another neuron that counts, as in attention, count too.

        What compares a membrane to reset it counts for no neuron of its own.
        """
        sites = {site.key: site for site in self.tracer.comparisons.sites.found}
        steps = [site for site in sites.values() if site.key in self.sources]
        driven = [term.neuron for drive in self.drives.values() for term in drive if term.neuron]
        for key in driven:
            if key in sites and key not in self.sources:
                self.sources[key] = False
                steps.append(sites[key])
        while steps:
            here = steps.pop()
            behind = merge_neurons_behind(event.compared.origin for event in here.events)
            for key, gated in behind.items():
                other = sites.get(key)
                if other is None or key in self.sources or has_shared_membrane(here, other):
                    continue
                if not (gated and flows_into(other, here)):  # else it clamps a membrane
                    self.sources[key] = gated
                    steps.append(other)

    def list_populations(self) -> list[Population]:
        """The neurons that are comparisons whose spikes go somewhere."""
        self._link_through_neurons()
        sites = [site for site in self.tracer.comparisons.sites.found if site.key in self.sources]
        firsts = {key: kept[0] for key, kept in self.trail.distances.items()}
        return group_populations(sites, firsts)

    def find_axis(self, population: Population) -> int | None:
        """Where u - u_th has the channels, from the end; it is told of in a layer's own shape."""
        first = population.first
        drive = [term for term in first.events[0].terms if term.layer in self.layers]
        shapes = {term.source.shape for term in drive if term.source}
        axes = {self.layers[term.layer].current_axis for term in drive if term.layer}
        alike = len(shapes) == len(axes) == 1 and not any(term.moved for term in drive)
        if alike and is_reshaped(first.place.shape, *shapes):
            return axes.pop()
        return self.axes.get(first.key)


def _format_use(layer: Layer) -> str:
    return f"{layer.kind} of {layer.groups} groups"
