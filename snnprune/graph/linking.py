"""From what was met on a pass to links and names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from snnprune.errors import InputError
from snnprune.graph.links import Gain, Link
from snnprune.graph.network import Network
from snnprune.graph.origins import Origin, Passed, Term, between, neurons_behind, terms
from snnprune.graph.thresholds import Event, Place, Site
from snnprune.text import layer_name

NO_NEURON = "none"
TOLERANCE = 1e-3  # of a factor that is taken for 1 - beta


def united(origins: Iterable[Origin]) -> dict[str, bool]:
    """`neurons_behind` all of these together."""
    united: dict[str, bool] = {}
    for origin in origins:
        for neuron, gated in neurons_behind(origin).items():
            united[neuron] = united.get(neuron, True) and gated
    return united


@dataclass(frozen=True, kw_only=True)
class Population:
    """One spiking neuron: a comparison, or several that are time steps of one membrane."""

    sites: tuple[Site, ...]
    shadows: tuple[Site, ...] = ()
    """Comparisons of the same membranes with the same threshold, as some neurons do to reset."""

    @property
    def first(self) -> Site:
        """The one that was met first."""
        return self.sites[0]

    def list_events(self) -> list[Event]:
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


def populations(sites: Iterable[Site], seen: Mapping[str, Tensor]) -> list[Population]:
    """The spiking neurons that sites are; `seen` has the first u - u_th of each."""
    found: list[Population] = []
    for site in sites:
        for place, one in enumerate(found):
            if _goes_on(one.sites[-1], site):
                found[place] = replace(one, sites=(*one.sites, _behind(one.sites[-1], site)))
                break
            if _is_shadow(one.first, site, seen):
                found[place] = replace(one, shadows=(*one.shadows, site))
                break
        else:
            found.append(Population(sites=(site,)))
    return found


def _goes_on(before: Site, site: Site) -> bool:
    """Whether a site is where another one's membrane is compared from some time step on.

    As where the first step is written apart, or every step is.
    """
    first, last = site.events[0], before.events[-1]
    alike = _written_alike(before.place, site.place) and before.place.shape == site.place.shape
    if not alike or last.number >= first.number:
        return False
    forms = set(last.compared.forms)
    driven = {term.layer for term in terms(first.compared.origin, stops=forms)}
    # more layers may drive it by then, as recurrent ones, but not they alone: that is a sum of
    # currents
    goes_on = site.find_feeders() <= before.find_feeders() or before.find_feeders() <= driven
    return goes_on and bool(between(first.compared.origin, forms))


def _written_alike(one: Place, other: Place) -> bool:
    """Whether two places ask the same; a threshold that adapts may be a number at first."""
    turned, level, *asked = one.written
    other_turned, other_level, *other_asked = other.written
    same = (turned, asked) == (other_turned, other_asked)
    return same and (level == other_level or "" in (level, other_level))


def _behind(before: Site, site: Site) -> Site:
    """The site with a first step that comes after the last one of `before`."""
    first, forms = site.events[0], set(before.events[-1].compared.forms)
    operand = first.compared.origin
    drive = tuple(terms(operand, stops=forms))
    event = replace(first, terms=drive, state=frozenset(between(operand, forms)))
    return replace(site, events=[event, *site.events[1:]])


def share(one: Site, other: Site) -> bool:
    """Whether two sites compare one membrane at any step."""
    forms = {form for event in one.events for form in event.compared.forms}
    return any(form in forms for event in other.events for form in event.compared.forms)


def flows_into(one: Site, other: Site) -> bool:
    """Whether the membranes of a site are in those of another, and not through spikes alone."""
    forms = {form for event in one.events for form in event.compared.forms}
    return any(between(event.compared.origin, forms) for event in other.events)


def _is_shadow(one: Site, other: Site, seen: Mapping[str, Tensor]) -> bool:
    """Whether a site compares membranes that another one did with the same threshold."""
    forms = {form for event in one.events for form in event.compared.forms}
    first, second = (seen.get(site.key) for site in (one, other))
    common = all(forms & {*event.compared.forms} for event in other.events)
    if not common or first is None or second is None or first.shape != second.shape:
        return False
    return one.also_equal == other.also_equal and bool(torch.equal(first, second))


@dataclass(frozen=True, kw_only=True)
class Way:
    """A layer's way to a neuron at one time step, and what of it is inside the neuron."""

    term: Term
    around: tuple[Passed, ...]
    """What is not in the code of the neuron's own module."""
    outside: tuple[Passed, ...]
    """Of these, what does not come after the state of the step before has come in."""
    inner: tuple[Passed, ...]
    """What the neuron itself does to its input."""
    has_state: bool
    """Whether the membrane of the step before is told apart from what is added to it."""


def ways_to(population: Population, home: str) -> list[Way]:
    """Every layer's ways to a neuron; what is in the code of the module `home` is the neuron's."""
    count = population.count_scalings()
    return [
        _way(term, event, home, count) for event in population.list_events() for term in event.terms
    ]


def _way(term: Term, event: Event, home: str, scalings: int) -> Way:
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
    return Way(
        term=term,
        around=tuple(one for one in term.through if not _is_in(one.origin, home)),
        outside=tuple(one for one in term.through if one not in inner),
        inner=tuple(one for one in inner if one.origin not in own),
        has_state=bool(event.state),
    )


def _is_in(made: Origin, home: str) -> bool:
    return bool(home) and home in made.inside


def link_of(neuron: str, ways: list[Way], scale: Tensor | None = None) -> Link:
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
        through=unique(one.name for way in ways for one in way.around),
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


def names_of(found: list[Population], homes: Mapping[str, str]) -> dict[str, str]:
    """A name for each site: that of its module, or where it has none, by a layer before it."""
    names, told = dict[str, str](), set[str]()
    for one in found:
        feeders = unique(term.layer for term in one.list_terms())
        # behind a sum of currents: not by the layer that an earlier one is named by
        layer = next((key for key in feeders if key not in told), next(iter(feeders), ""))
        told |= one.find_feeders()
        name = homes[one.first.key] or f"spikes after {layer_name(layer)}"
        name = name if name not in names.values() else f"{name} ({one.first.index})"
        names |= dict.fromkeys(one.list_keys(), name)
    return names


def renamed(found: list[Term], names: Mapping[str, str]) -> list[Term]:
    return [replace(term, neuron=names.get(term.neuron or "", term.neuron)) for term in found]


def chosen(network: Network, links: Mapping[str, str]) -> Network:
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


def unique(names: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name is not None))
