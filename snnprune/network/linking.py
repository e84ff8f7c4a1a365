"""From what was met on a pass to links and names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from snnprune.errors import InputError
from snnprune.network.links import Gain, Link, Network
from snnprune.network.origins import Origin
from snnprune.network.sites import Site
from snnprune.network.walking import Passed, Term, neurons_behind

NO_NEURON = "none"


def united(origins: Iterable[Origin]) -> dict[str, bool]:
    """`neurons_behind` all of these together."""
    united: dict[str, bool] = {}
    for origin in origins:
        for neuron, gated in neurons_behind(origin).items():
            united[neuron] = united.get(neuron, True) and gated
    return united


def link_of(neuron: str, ways: list[Term], home: str) -> Link:
    """One link of all the ways from a layer to a neuron; what is inside `home` is the neuron's."""
    passed = [
        passed
        for way in ways
        for passed in way.through
        if not home or not f"{passed.place}.".startswith(f"{home}.")
    ]
    return Link(
        neuron=neuron,
        norms=tuple(dict.fromkeys(way.norms for way in ways)),
        gains=_gains(ways[0], passed),
        through=unique(one.name for one in passed),
        obstacle=next((one.name for one in passed if one.is_obstacle), None),
        moved=any(way.moved for way in ways),
    )


def _gains(way: Term, passed: list[Passed]) -> tuple[Gain, ...]:
    """The constant factors on the shortest way; at other time steps they are the same."""
    return tuple(one.gain for one in way.through if one in passed and one.gain is not None)


def names_of(sites: list[Site], homes: Mapping[str, str]) -> dict[str, str]:
    """A name for each site: that of its module, or where it has none, by a layer before it."""
    names, told = dict[str, str](), set[str]()
    for site in sites:
        feeders = unique(term.layer for term in site.terms)
        # behind a sum of currents: not by the layer that an earlier one is named by
        layer = next((key for key in feeders if key not in told), feeders[0])
        told |= site.feeders
        name = homes[site.key] or f"spikes after {layer.removesuffix('.weight')}"
        names[site.key] = name if name not in names.values() else f"{name} ({site.index})"
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
