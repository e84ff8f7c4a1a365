"""Whole output channels: all that makes a channel's current goes, and all that reads its spikes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.errors import InputError
from snnprune.graph.network import Layer, Link, Network, Norm, find_bias_key
from snnprune.masks import Masks, select_lowest
from snnprune.pruning.prune import PruneResult
from snnprune.pruning.score import Scores


@dataclass(frozen=True, kw_only=True)
class ChannelGroup:
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
class ChannelGroups:
    """The groups of a network, and why other layers keep all of their channels."""

    groups: tuple[ChannelGroup, ...]
    reasons: dict[str, str]
    """By weight key."""


def find_channel_groups(network: Network) -> ChannelGroups:
    """The groups of output channels that can be removed.

    Layers that drive one neuron share its channels. So do neurons whose spikes reach one another
    past every layer, as over the identity of a residual block, and neurons whose spikes are added
    on the way to a layer: what is added must stay together.
    """
    reasons: dict[str, str] = {
        key: "drives no neuron" for key, layer in network.layers.items() if not layer.links
    }
    groups = []
    for neurons in _join_neurons(network):
        layers = [key for key, layer in network.layers.items() if _drives(layer, neurons)]
        reason = _explain_fixed(network, neurons, layers)
        if reason is not None:
            reasons |= dict.fromkeys(layers, reason)
            continue
        reading = {k: layer for k, layer in network.layers.items() if {*layer.sources} & {*neurons}}
        alone = {k for k, layer in reading.items() if _reads_alone(layer, neurons)}
        groups.append(
            ChannelGroup(
                neurons=tuple(neurons),
                layers=tuple(layers),
                channels=network.layers[layers[0]].shape[0],
                norms=tuple(dict.fromkeys(_iter_norm_keys(network, layers))),
                readers=tuple(key for key in reading if key in alone),
                mixed=tuple(key for key in reading if key not in alone),
            )
        )
    return ChannelGroups(groups=tuple(groups), reasons=reasons)


def _join_neurons(network: Network) -> list[list[str]]:
    """The neurons, those that share channels together."""
    parts: list[set[str]] = [{name} for name in network.neurons]
    ties = [{name, *neuron.identities} for name, neuron in network.neurons.items()]
    ties += [{link.neuron for link in layer.links} for layer in network.layers.values()]
    ties += [{*layer.sources} for layer in network.layers.values() if _is_adding(layer)]
    for tie in ties:
        touched = [part for part in parts if part & tie]
        parts = [part for part in parts if not part & tie]
        if touched:
            parts.append(set().union(*touched))
    return [[name for name in network.neurons if name in part] for part in parts]


def _is_adding(layer: Layer) -> bool:
    """Whether it reads a sum of spikes of several neurons."""
    return len(layer.sources) > 1 and not layer.side_by_side


def _reads_alone(layer: Layer, neurons: list[str]) -> bool:
    """Whether each of its inputs is of the same channel of these neurons, and of no other."""
    return {*layer.sources} <= {*neurons} and (len(layer.sources) == 1 or _is_adding(layer))


def _drives(layer: Layer, neurons: list[str]) -> bool:
    return any(link.neuron in neurons for link in layer.links)


def _explain_fixed(network: Network, neurons: list[str], keys: list[str]) -> str | None:
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
    by_hand = any(norm.eps is None for norm in _list_norms(links))
    return "its normalisation is written by hand" if by_hand else None


def _iter_norm_keys(network: Network, keys: list[str]) -> Iterator[str]:
    for key in keys:
        yield from (norm.variance for norm in _list_norms([*network.layers[key].links]))


def _list_norms(links: list[Link]) -> list[Norm]:
    return [norm for link in links for chain in link.norms for norm in chain]


LEFT_OUT = "a layer of its group is left out"
LEAST = 0.25
"""The share of a group's channels that stays, whatever the ranking says."""


@dataclass(frozen=True, kw_only=True)
class RemovedChannels:
    """Channels that are gone, by the first layer of their group."""

    groups: tuple[ChannelGroup, ...]
    kept: Mapping[str, Tensor]
    """(channels,) bool, by the key of the group's first layer."""

    def of(self, group: ChannelGroup) -> Tensor:
        """Which channels of a group are kept."""
        return self.kept[group.layers[0]]

    def counts(self) -> dict[str, dict[str, int]]:
        """How many channels each layer keeps of how many, by weight key."""
        return {
            key: {"kept": int(self.of(group).sum()), "of": len(self.of(group))}
            for group in self.groups
            for key in group.layers
        }


class ChannelCutting:
    """Cuts whole channels: `round(sparsity * removable)` of all, as far as no group goes too low.

    A channel's score is the mean, over the layers that make it, of the mean score of its weights;
    logarithms are taken back first. `local` takes the same share of each group, anything else one
    ranking over all: of a channel's score over the sum of those in its group that do not go before
    it, as LAMP ranks weights (Lee et al. 2021, arXiv 2010.07611), so that groups of other scales
    and widths compare. A quarter of the channels of each group stays. Where `counts` say how many
    are kept of a group, by its first layer, it is the highest of it, and nothing else counts.
    """

    def __init__(
        self,
        network: Network,
        *,
        locally: bool = False,
        counts: Mapping[str, int] | None = None,
    ) -> None:
        self.network, self.locally, self.counts = network, locally, counts
        self.grouped: ChannelGroups = find_channel_groups(network)
        self.removed = RemovedChannels(groups=(), kept={})
        """What was cut last."""
        _require_any(self.grouped.groups, self.grouped.reasons)

    def __call__(
        self, weights: Mapping[str, Tensor], scores: Scores, sparsity: float, alive: Masks | None
    ) -> PruneResult:
        """The masks under which the channels of the lowest scores are gone.

        Raises:
            InputError: a layer of each group is not among the `weights`.
        """
        kept = self._choose_kept(self.score_groups(weights, scores), sparsity)
        return self.remove(kept, weights, alive, sparsity)

    def find_groups(self, weights: Mapping[str, Tensor]) -> tuple[ChannelGroup, ...]:
        """Those whose layers are all among the `weights`.

        Raises:
            InputError: there is none.
        """
        groups = [g for g in self.grouped.groups if all(key in weights for key in g.layers)]
        _require_any(groups, {g.layers[0]: LEFT_OUT for g in self.grouped.groups})
        return tuple(groups)

    def score_groups(self, weights: Mapping[str, Tensor], scores: Scores) -> dict[str, Tensor]:
        """A score for each channel (channels,) float64, by the first layer of its group.

        Raises:
            InputError: a layer of each group is not among the `weights`.
        """
        groups = self.find_groups(weights)
        return {g.layers[0]: _score_channels(g, scores, self.network.layers) for g in groups}

    def remove(
        self,
        kept: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        alive: Masks | None,
        sparsity: float = 0.0,
    ) -> PruneResult:
        """The masks under which only the `kept` channels (channels,) bool are left of each group,
        by its first layer; `sparsity` is the share of channels that was to go.
        """
        groups = self.find_groups(weights)
        self.removed = removed = RemovedChannels(groups=groups, kept=kept)
        masks = {key: weight != 0 for key, weight in weights.items()}
        masks = {k: m if alive is None else alive[k] for k, m in masks.items()}
        zeros = sum(int((~mask).sum()) for mask in masks.values())
        low = [*self._iter_low(sparsity)]
        return PruneResult(
            masks=drop_channels(removed, masks, self.network.layers),
            already_zero=zeros,
            warnings=(
                *(f"{k} keeps its channels: {r}" for k, r in self._iter_left_layers(groups)),
                *low,
            ),
            silenced=find_silenced(self.network, removed),
        )

    def _iter_low(self, sparsity: float) -> Iterator[str]:
        """What of a cut comes near to a collapse."""
        counts = {g.layers[0]: self.removed.of(g) for g in self.removed.groups}
        of = sum(len(kept) for kept in counts.values())
        gone = of - sum(int(kept.sum()) for kept in counts.values())
        if gone < round(sparsity * of):
            yield (
                f"{gone} of {of} channels are gone and not {round(sparsity * of)}: a quarter of "
                "each layer stays"
            )
        for key, kept in counts.items():
            if int(kept.sum()) <= count_least(len(kept)) < len(kept):
                least = ", the least it may" if self.counts is None else ""
                yield f"{key} keeps {int(kept.sum())} of {len(kept)} channels{least}"

    def _iter_left_layers(self, groups: Sequence[ChannelGroup]) -> Iterator[tuple[str, str]]:
        """Layers that keep their channels, and why; that the last one does needs no word."""
        plain = ("drives no neuron", "its spikes are the output")
        yield from ((key, why) for key, why in self.grouped.reasons.items() if why not in plain)
        for group in self.grouped.groups:
            if group not in groups:
                yield group.layers[0], LEFT_OUT

    def _choose_kept(self, worth: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
        if self.counts is not None:
            gone = {key: len(one) - self.counts.get(key, len(one)) for key, one in worth.items()}
            return {key: ~select_lowest(one, gone[key], ties_by=one) for key, one in worth.items()}
        parts = [{key: one} for key, one in worth.items()] if self.locally else [dict(worth)]
        return {
            key: kept for part in parts for key, kept in _select_highest(part, sparsity).items()
        }


def _require_any(groups: Sequence[ChannelGroup], reasons: Mapping[str, str]) -> None:
    """Refuse a cut where no group is left, with the first of the reasons by weight key."""
    if not groups:
        key, why = next(iter(reasons.items()), ("", "no layer"))
        raise InputError(f"no channel can be removed: {key}: {why}", field="--structure")


def _score_channels(group: ChannelGroup, scores: Scores, layers: Mapping[str, Layer]) -> Tensor:
    """A score for each channel, (channels,) float64."""
    found = []
    for key in group.layers:
        values = layers[key].weight_of(scores.values[key].double())
        log = scores.scale == "log"
        found.append((values.exp() if log else values.clamp(min=0)).flatten(1).mean(1))
    return torch.stack(found).mean(0)


def count_least(channels: int) -> int:
    """How many channels of a group stay at least."""
    return max(1, math.ceil(LEAST * channels))


def _select_highest(worth: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Which channels are kept, of each group at least the `least`."""
    safe = {key: normalise_worth(one) for key, one in worth.items()}
    flat = torch.cat([*safe.values()])
    count = min(round(sparsity * len(flat)), int(flat.isfinite().sum()))
    gone = select_lowest(flat, count, ties_by=torch.cat([*worth.values()]))
    pieces = gone.split([len(one) for one in safe.values()])
    return {key: ~piece for key, piece in zip(safe, pieces, strict=True)}


def normalise_worth(worth: Tensor) -> Tensor:
    """What ranks the channels of a group among those of others; infinite where they must stay."""
    order = worth.argsort(stable=True)
    ranked = worth[order]
    left = ranked.flip(0).cumsum(0).flip(0)  # of what does not go before
    share = torch.where(left > 0, ranked / left, 0.0)
    share[len(share) - count_least(len(share)) :] = torch.inf
    return torch.empty_like(share).index_copy_(0, order, share)


def drop_channels(
    removed: RemovedChannels, masks: Masks, layers: Mapping[str, Layer]
) -> dict[str, Tensor]:
    """`masks` without what makes and what reads the channels that are gone."""
    masks = {key: layers[key].weight_of(mask).clone() for key, mask in masks.items()}
    for group in removed.groups:
        kept = removed.of(group)
        for key in group.layers:
            masks[key][~kept] = False
        for key in group.readers:
            if key in masks and (columns := find_columns(kept, masks[key])) is not None:
                masks[key][:, ~columns] = False
    return {key: layers[key].parameter_of(mask) for key, mask in masks.items()}


def find_columns(kept: Tensor, weight: Tensor) -> Tensor | None:
    """Which inputs of a weight (out, in, *kernel) come from channels that are kept.

    Behind a flattening each channel has as many inputs as it has places, next to each other. None
    where the numbers do not fit, as behind a concatenation.
    """
    places, rest = divmod(weight.shape[1], len(kept))
    if rest or not places or (places > 1 and weight.dim() > 2):
        return None
    return kept.repeat_interleave(places)


def find_silenced(network: Network, removed: RemovedChannels) -> dict[str, Tensor]:
    """What must be 0 beside weights, so that a channel that is gone has no current: by key, True
    where it is 0. Biases, and scale, shift and mean of BatchNorms.
    """
    own = network.module.state_dict()
    found: dict[str, Tensor] = {}
    for group in removed.groups:
        gone = ~removed.of(group)
        norms = [variance.removesuffix("running_var") for variance in group.norms]
        kinds = ("weight", "bias", "running_mean")
        names = [find_bias_key(network, key) for key in group.layers]
        names += [f"{norm}{kind}" for norm in norms for kind in kinds]
        found |= {name: gone for name in names if name in own and own[name].shape == gone.shape}
    return found
