"""What is met on a pass, and the neurons, links and names that follow from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.errors import InputError, layer_name
from snnprune.graph.calls import LayerCall
from snnprune.graph.decay import MembraneTrail
from snnprune.graph.network import Gain, Layer, Layout, Link, Network, TraceSettings
from snnprune.graph.origins import (
    Origin,
    PassedOperation,
    Term,
    find_between,
    find_neurons_behind,
    find_terms,
    make_recurrent_term,
)
from snnprune.graph.thresholds import ComparisonEvent, SiteKey, ThresholdSite, is_reshaped
from snnprune.graph.tracer import Tracer
from snnprune.graph.weight_uses import ComposedWeight, Observers

NO_NEURON = "none"
SAME = 1e-2  # relative: rounding to fewer bits makes no other weight
TOLERANCE = 1e-3  # of a factor that is taken for 1 - beta


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


def merge_neurons_behind(origins: Iterable[Origin]) -> dict[str, bool]:
    """The neurons behind all of these together."""
    united: dict[str, bool] = {}
    for origin in origins:
        for neuron, gated in find_neurons_behind(origin).items():
            united[neuron] = united.get(neuron, True) and gated
    return united


@dataclass(frozen=True, kw_only=True)
class Population:
    """One spiking neuron: a comparison, or several that are time steps of one membrane."""

    sites: tuple[ThresholdSite, ...]
    shadows: tuple[ThresholdSite, ...] = ()
    """Comparisons of the same membranes with the same threshold, as some neurons do to reset."""

    @property
    def first(self) -> ThresholdSite:
        """The one that was met first."""
        return self.sites[0]

    def list_events(self) -> list[ComparisonEvent]:
        """The time steps."""
        return [event for site in self.sites for event in site.events]

    def list_terms(self) -> list[Term]:
        """What drives it, over all time steps."""
        return [term for event in self.list_events() for term in event.terms]

    def find_feeders(self) -> set[str]:
        """Weights of the layers that drive it."""
        return set().union(*(site.find_feeders() for site in self.sites))

    def list_keys(self) -> list[str]:
        """What stands for its spikes while a pass goes on."""
        return [site.key for site in (*self.sites, *self.shadows)]

    def count_scalings(self) -> int:
        """How many of the factors on what is compared are its own."""
        return min(site.count_scalings() for site in self.sites)


def group_populations(
    sites: Iterable[ThresholdSite], seen: Mapping[str, Tensor]
) -> list[Population]:
    """The spiking neurons that sites are; `seen` has the first u - u_th of each."""
    found: list[Population] = []
    for site in sites:
        for place, one in enumerate(found):
            if _is_continued(one.sites[-1], site):
                found[place] = replace(one, sites=(*one.sites, _continue_site(one.sites[-1], site)))
                break
            if _is_shadow(one.first, site, seen):
                found[place] = replace(one, shadows=(*one.shadows, site))
                break
        else:
            found.append(Population(sites=(site,)))
    return found


def _is_continued(before: ThresholdSite, site: ThresholdSite) -> bool:
    """Whether a site is where another one's membrane is compared from some time step on.

    As where the first step is written apart, or every step is.
    """
    first, last = site.events[0], before.events[-1]
    alike = _is_written_alike(before.place, site.place) and before.place.shape == site.place.shape
    if not alike or last.number >= first.number:
        return False
    forms = set(last.compared.forms)
    driven = {term.layer for term in find_terms(first.compared.origin, stops=forms)}
    # more layers may drive it by then, as recurrent ones, but not they alone: that is a sum of
    # currents
    goes_on = site.find_feeders() <= before.find_feeders() or before.find_feeders() <= driven
    return goes_on and bool(find_between(first.compared.origin, forms))


def _is_written_alike(one: SiteKey, other: SiteKey) -> bool:
    """Whether two places ask the same; a threshold that adapts may be a number at first."""
    turned, level, *asked = one.written
    other_turned, other_level, *other_asked = other.written
    same = (turned, asked) == (other_turned, other_asked)
    return same and (level == other_level or "" in (level, other_level))


def _continue_site(before: ThresholdSite, site: ThresholdSite) -> ThresholdSite:
    """The site with a first step that comes after the last one of `before`."""
    first, forms = site.events[0], set(before.events[-1].compared.forms)
    operand = first.compared.origin
    drive = tuple(find_terms(operand, stops=forms))
    event = replace(first, terms=drive, state=frozenset(find_between(operand, forms)))
    return replace(site, events=[event, *site.events[1:]])


def has_shared_membrane(one: ThresholdSite, other: ThresholdSite) -> bool:
    """Whether two sites compare one membrane at any step."""
    forms = {form for event in one.events for form in event.compared.forms}
    return any(form in forms for event in other.events for form in event.compared.forms)


def flows_into(one: ThresholdSite, other: ThresholdSite) -> bool:
    """Whether the membranes of a site are in those of another, and not through spikes alone."""
    forms = {form for event in one.events for form in event.compared.forms}
    return any(find_between(event.compared.origin, forms) for event in other.events)


def _is_shadow(one: ThresholdSite, other: ThresholdSite, seen: Mapping[str, Tensor]) -> bool:
    """Whether a site compares membranes that another one did with the same threshold."""
    forms = {form for event in one.events for form in event.compared.forms}
    first, second = (seen.get(site.key) for site in (one, other))
    common = all(forms & {*event.compared.forms} for event in other.events)
    if not common or first is None or second is None or first.shape != second.shape:
        return False
    return one.also_equal == other.also_equal and bool(torch.equal(first, second))


@dataclass(frozen=True, kw_only=True)
class DrivePath:
    """A layer's way to a neuron at one time step, and what of it is inside the neuron."""

    term: Term
    around: tuple[PassedOperation, ...]
    """What is not in the code of the neuron's own module."""
    outside: tuple[PassedOperation, ...]
    """Of these, what does not come after the state of the step before has come in."""
    inner: tuple[PassedOperation, ...]
    """What the neuron itself does to its input."""
    has_state: bool
    """Whether the membrane of the step before is told apart from what is added to it."""


def find_paths(population: Population, home: str) -> list[DrivePath]:
    """Every layer's ways to a neuron; what is in the code of the module `home` is the neuron's."""
    count = population.count_scalings()
    return [
        _make_path(term, event, home, count)
        for event in population.list_events()
        for term in event.terms
    ]


def _make_path(term: Term, event: ComparisonEvent, home: str, scalings: int) -> DrivePath:
    own = set[Origin]()
    for made in event.compared.operations:
        scalings -= made.gain is not None
        if scalings < 0:
            break
        own.add(made)
    inner = [
        one
        for one in term.through
        if one.origin in event.state or one.origin in own or _is_in(one.origin, home)
    ]
    return DrivePath(
        term=term,
        around=tuple(one for one in term.through if not _is_in(one.origin, home)),
        outside=tuple(one for one in term.through if one not in inner),
        inner=tuple(one for one in inner if one.origin not in own),
        has_state=bool(event.state),
    )


def _is_in(made: Origin, home: str) -> bool:
    return bool(home) and home in made.inside


def make_link(neuron: str, ways: list[DrivePath], scale: Tensor | None = None) -> Link:
    """One link of all the ways from a layer to a neuron.

    `scale` is 1 - beta of the neuron, () or (C,), NaN where it is not known: a factor of that size
    on the way is how the neuron takes its input.
    """
    best = next((way for way in ways if way.has_state), ways[0])
    gains = tuple(one.gain for one in best.outside if one.gain is not None)
    return Link(
        neuron=neuron,
        norms=tuple(dict.fromkeys(way.term.norms for way in ways)),
        gains=tuple(gain for gain in gains if scale is None or not is_input_scale(gain, scale)),
        through=drop_duplicates(one.name for way in ways for one in way.around),
        obstacle=next((one.name for way in ways for one in way.outside if one.is_obstacle), None),
        moved=any(way.term.moved for way in ways),
        beside=any(way.term.beside for way in ways),
    )


def is_input_scale(gain: Gain, scale: Tensor) -> bool:
    """Whether a factor is 1 - beta; never where beta is 0 and the factor is none."""
    value = torch.as_tensor(gain.value).detach().double().abs().cpu()
    value = 1 / value if gain.divides else value
    if bool((scale == 1).all()):
        return False
    lengths = [length for length in value.shape if length > 1]
    if lengths not in ([], list(scale.shape)):
        return False
    known = scale.isfinite()
    value, scale = (one.expand(known.shape)[known] for one in (value.reshape(lengths), scale))
    return bool(torch.allclose(value, scale.double(), rtol=TOLERANCE, atol=1e-6))


def choose_names(found: list[Population], homes: Mapping[str, str]) -> dict[str, str]:
    """A name for each site: that of its module, or where it has none, by a layer before it."""
    names, told = dict[str, str](), set[str]()
    for one in found:
        feeders = drop_duplicates(term.layer for term in one.list_terms())
        # behind a sum of currents: not by the layer that an earlier one is named by
        layer = next((key for key in feeders if key not in told), next(iter(feeders), ""))
        told |= one.find_feeders()
        name = homes[one.first.key] or f"spikes after {layer_name(layer)}"
        name = name if name not in names.values() else f"{name} ({one.first.index})"
        names |= dict.fromkeys(one.list_keys(), name)
    return names


def rename_terms(found: list[Term], names: Mapping[str, str]) -> list[Term]:
    return [replace(term, neuron=names.get(term.neuron or "", term.neuron)) for term in found]


def apply_links(network: Network, links: Mapping[str, str]) -> Network:
    """The network with the links that somebody settled."""
    layers = dict(network.layers)
    for key, neuron in links.items():
        layer = layers.get(key) or layers.get(f"{key}.weight")
        candidates = [link.neuron for link in layer.links] if layer else list(layers)
        if layer is None or neuron not in (*candidates, NO_NEURON):
            raise InputError(
                f"{key} drives no {neuron}" if layer else f"no layer {key}",
                field="--link",
                hint=f"there are: {', '.join(candidates[:8])}",
            )
        kept = tuple(link for link in layer.links if link.neuron == neuron)
        layers[layer.weight] = replace(layer, links=kept)
    return replace(network, layers=layers)


def drop_duplicates(names: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name is not None))
