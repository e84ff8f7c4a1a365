"""Whole output channels: all that makes a channel's current goes, and all that reads its spikes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.errors import InputError
from snnprune.grams import bias_key
from snnprune.mask import Masks
from snnprune.network import Layer, Network
from snnprune.pruning import Cut
from snnprune.ranking import lowest
from snnprune.scoring import Scores
from snnprune.structure.groups import Group, Grouped, channel_groups

LEAST = 0.25
"""The share of a group's channels that stays, whatever the ranking says."""


@dataclass(frozen=True, kw_only=True)
class Removed:
    """Channels that are gone, by the first layer of their group."""

    groups: tuple[Group, ...]
    kept: Mapping[str, Tensor]
    """(channels,) bool, by the key of the group's first layer."""

    def of(self, group: Group) -> Tensor:
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
    and widths compare. A quarter of the channels of each group stays.
    """

    def __init__(self, network: Network, *, locally: bool = False) -> None:
        self.network, self.locally = network, locally
        self.grouped: Grouped = channel_groups(network)
        self.removed = Removed(groups=(), kept={})
        """What was cut last."""
        if not self.grouped.groups:
            first = next(iter(self.grouped.reasons.items()), ("", "no layer"))
            raise InputError(
                f"no channel can be removed: {first[0]}: {first[1]}", field="--structure"
            )

    def __call__(
        self, weights: Mapping[str, Tensor], scores: Scores, sparsity: float, alive: Masks | None
    ) -> Cut:
        """The masks under which the channels of the lowest scores are gone."""
        groups = [g for g in self.grouped.groups if all(key in weights for key in g.layers)]
        worth = {g.layers[0]: _worth(g, scores, self.network.layers) for g in groups}
        kept = self._kept(worth, sparsity)
        self.removed = removed = Removed(groups=tuple(groups), kept=kept)
        masks = {key: weight != 0 for key, weight in weights.items()}
        masks = {k: m if alive is None else alive[k] for k, m in masks.items()}
        zeros = sum(int((~mask).sum()) for mask in masks.values())
        low = [*self._low(sparsity)]
        return Cut(
            masks=without(removed, masks, self.network.layers),
            already_zero=zeros,
            warnings=(*(f"{k} keeps its channels: {r}" for k, r in self._left(groups)), *low),
            silenced=silenced(self.network, removed),
        )

    def _low(self, sparsity: float) -> Iterator[str]:
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
            if int(kept.sum()) <= least(len(kept)) < len(kept):
                yield f"{key} keeps {int(kept.sum())} of {len(kept)} channels, the least it may"

    def _left(self, groups: list[Group]) -> Iterator[tuple[str, str]]:
        """Layers that keep their channels, and why; that the last one does needs no word."""
        plain = ("drives no neuron", "its spikes are the output")
        yield from ((key, why) for key, why in self.grouped.reasons.items() if why not in plain)
        for group in self.grouped.groups:
            if group not in groups:
                yield group.layers[0], "a layer of its group is left out"

    def _kept(self, worth: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
        parts = [{key: one} for key, one in worth.items()] if self.locally else [dict(worth)]
        return {key: kept for part in parts for key, kept in _highest(part, sparsity).items()}


def _worth(group: Group, scores: Scores, layers: Mapping[str, Layer]) -> Tensor:
    """A score for each channel, (channels,) float64."""
    found = []
    for key in group.layers:
        values = layers[key].weight_of(scores.values[key].double())
        log = scores.scale == "log"
        found.append((values.exp() if log else values.clamp(min=0)).flatten(1).mean(1))
    return torch.stack(found).mean(0)


def least(channels: int) -> int:
    """How many channels of a group stay at least."""
    return max(1, math.ceil(LEAST * channels))


def _highest(worth: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Which channels are kept, of each group at least the `least`."""
    safe = {key: _comparable(one) for key, one in worth.items()}
    flat = torch.cat([*safe.values()])
    count = min(round(sparsity * len(flat)), int(flat.isfinite().sum()))
    gone = lowest(flat, count, ties_by=torch.cat([*worth.values()]))
    pieces = gone.split([len(one) for one in safe.values()])
    return {key: ~piece for key, piece in zip(safe, pieces, strict=True)}


def _comparable(worth: Tensor) -> Tensor:
    """What ranks the channels of a group among those of others; infinite where they must stay."""
    order = worth.argsort(stable=True)
    ranked = worth[order]
    left = ranked.flip(0).cumsum(0).flip(0)  # of what does not go before
    share = torch.where(left > 0, ranked / left, 0.0)
    share[len(share) - least(len(share)) :] = torch.inf
    return torch.empty_like(share).index_copy_(0, order, share)


def without(removed: Removed, masks: Masks, layers: Mapping[str, Layer]) -> dict[str, Tensor]:
    """`masks` without what makes and what reads the channels that are gone."""
    masks = {key: layers[key].weight_of(mask).clone() for key, mask in masks.items()}
    for group in removed.groups:
        kept = removed.of(group)
        for key in group.layers:
            masks[key][~kept] = False
        for key in group.readers:
            if key in masks and (columns := columns_of(kept, masks[key])) is not None:
                masks[key][:, ~columns] = False
    return {key: layers[key].parameter_of(mask) for key, mask in masks.items()}


def columns_of(kept: Tensor, weight: Tensor) -> Tensor | None:
    """Which inputs of a weight (out, in, *kernel) come from channels that are kept.

    Behind a flattening each channel has as many inputs as it has places, next to each other. None
    where the numbers do not fit, as behind a concatenation.
    """
    places, rest = divmod(weight.shape[1], len(kept))
    if rest or not places or (places > 1 and weight.dim() > 2):
        return None
    return kept.repeat_interleave(places)


def silenced(network: Network, removed: Removed) -> dict[str, Tensor]:
    """What must be 0 beside weights, so that a channel that is gone has no current: by key, True
    where it is 0. Biases, and scale, shift and mean of BatchNorms.
    """
    own = network.module.state_dict()
    found: dict[str, Tensor] = {}
    for group in removed.groups:
        gone = ~removed.of(group)
        norms = [variance.removesuffix("running_var") for variance in group.norms]
        kinds = ("weight", "bias", "running_mean")
        names = [bias_key(network, key) for key in group.layers]
        names += [f"{norm}{kind}" for norm in norms for kind in kinds]
        found |= {name: gone for name in names if name in own and own[name].shape == gone.shape}
    return found
