"""Which output channels of which layers can only go together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from snnprune.network import Layer, Link, Network, Norm


@dataclass(frozen=True, kw_only=True)
class Group:
    """Neurons that have their channels in common, by what drives them and what they feed."""

    neurons: tuple[str, ...]
    layers: tuple[str, ...]
    """Weights whose outputs are these channels, by key."""
    channels: int
    norms: tuple[str, ...]
    """Keys of the running variances of their BatchNorms."""
    readers: tuple[str, ...]
    """Weights whose inputs are these channels, or places of them."""
    mixed: tuple[str, ...] = ()
    """Weights that read them beside other spikes, so that nobody knows which inputs are which."""


@dataclass(frozen=True, kw_only=True)
class Grouped:
    """The groups of a network, and why other layers keep all of their channels."""

    groups: tuple[Group, ...]
    reasons: dict[str, str]
    """By weight key."""


def channel_groups(network: Network) -> Grouped:
    """The groups of output channels that can be removed.

    Layers that drive one neuron share its channels. So do neurons whose spikes reach one another
    past every layer, as over the identity of a residual block, and neurons whose spikes are added
    on the way to a layer: what is added must stay together.
    """
    reasons: dict[str, str] = {
        key: "drives no neuron" for key, layer in network.layers.items() if not layer.links
    }
    groups = []
    for neurons in _joined(network):
        layers = [key for key, layer in network.layers.items() if _drives(layer, neurons)]
        reason = _reason(network, neurons, layers)
        if reason is not None:
            reasons |= dict.fromkeys(layers, reason)
            continue
        reading = {k: layer for k, layer in network.layers.items() if {*layer.sources} & {*neurons}}
        alone = {k for k, layer in reading.items() if _reads_alone(layer, neurons)}
        groups.append(
            Group(
                neurons=tuple(neurons),
                layers=tuple(layers),
                channels=network.layers[layers[0]].shape[0],
                norms=tuple(dict.fromkeys(_norms(network, layers))),
                readers=tuple(key for key in reading if key in alone),
                mixed=tuple(key for key in reading if key not in alone),
            )
        )
    return Grouped(groups=tuple(groups), reasons=reasons)


def _joined(network: Network) -> list[list[str]]:
    """The neurons, those that share channels together."""
    parts: list[set[str]] = [{name} for name in network.neurons]
    ties = [{name, *neuron.identities} for name, neuron in network.neurons.items()]
    ties += [{link.neuron for link in layer.links} for layer in network.layers.values()]
    ties += [{*layer.sources} for layer in network.layers.values() if _adds(layer)]
    for tie in ties:
        touched = [part for part in parts if part & tie]
        parts = [part for part in parts if not part & tie]
        if touched:
            parts.append(set().union(*touched))
    return [[name for name in network.neurons if name in part] for part in parts]


def _adds(layer: Layer) -> bool:
    """Whether it reads a sum of spikes of several neurons."""
    return len(layer.sources) > 1 and not layer.side_by_side


def _reads_alone(layer: Layer, neurons: list[str]) -> bool:
    """Whether each of its inputs is of the same channel of these neurons, and of no other."""
    return {*layer.sources} <= {*neurons} and (len(layer.sources) == 1 or _adds(layer))


def _drives(layer: Layer, neurons: list[str]) -> bool:
    return any(link.neuron in neurons for link in layer.links)


def _reason(network: Network, neurons: list[str], keys: list[str]) -> str | None:
    """Why the channels of a group cannot be removed."""
    layers = [network.layers[key] for key in keys]
    if not layers:
        return "no layer drives it"
    if len({layer.shape[0] for layer in layers}) > 1:
        return "layers of different width drive the same neuron"
    if any(layer.groups > 1 for layer in layers):
        return "a grouped convolution"
    links = [link for layer in layers for link in layer.links]
    if any(link.moved for link in links):
        return "its dimensions change places"
    if any(link.beside for link in links):
        return "currents of several layers are laid side by side"
    obstacle = next((link.obstacle for link in links if link.obstacle), None)
    if obstacle is not None:
        return f"{obstacle} stands before the neuron"
    if {*neurons} & {*network.outputs}:
        return "its spikes are the output"
    if any(network.neurons[name].gated for name in neurons):
        return "something else decides whether its neuron spikes"
    by_hand = any(norm.eps is None for norm in _all_norms(links))
    return "its normalisation is written by hand" if by_hand else None


def _norms(network: Network, keys: list[str]) -> Iterator[str]:
    for key in keys:
        yield from (norm.variance for norm in _all_norms([*network.layers[key].links]))


def _all_norms(links: list[Link]) -> list[Norm]:
    return [norm for link in links for chain in link.norms for norm in chain]
