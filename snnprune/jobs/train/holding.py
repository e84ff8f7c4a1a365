"""Which weights of a checkpoint stay pruned while it is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from snnprune.checkpoint.checkpoint import Checkpoint
from snnprune.checkpoint.mask_file import read_masks, read_partner
from snnprune.errors import InputError
from snnprune.graph.network import Network
from snnprune.masks import Masks, count_prunable, count_pruned
from snnprune.text import format_count
from snnprune.training.ranking import copy_prunable_weights, make_full_masks
from snnprune.training.runs.ownership import BEST, MASK, MODEL


@dataclass(frozen=True, kw_only=True)
class FixedMasks:
    """Masks for every layer of a network."""

    masks: Masks
    origin: str
    """What they were taken from: the name of a file, or that it was the zeros."""
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """How much they prune, and why."""
        weights = count_prunable(self.masks)
        share = count_pruned(self.masks) / weights
        return f"holding {share:.2%} of {format_count(weights, 'weight')} at 0: {self.origin}"


def find_mask_file(checkpoint: Path) -> Path | None:
    """The mask file that `prune`, or a run, wrote beside a checkpoint; None without one."""
    names = [f"{checkpoint.stem}.mask.safetensors", f"{checkpoint.name}.mask.safetensors"]
    names += [MASK] if checkpoint.name in (MODEL, BEST) else []
    found = (checkpoint.with_name(name) for name in names)
    return next((path for path in found if path.is_file()), None)


def read_fixed_masks(
    network: Network, checkpoint: Checkpoint, path: Path | None, *, asked: bool
) -> FixedMasks:
    """The masks of the file at `path`, or without one, of what is 0 in `checkpoint`.

    `network` has the weights of `checkpoint`. A weight without a mask is kept whole. A file that
    was `asked` for may prune more than is 0.

    Raises:
        InputError: nothing can be pruned, or the file is not of this network.
    """
    weights = copy_prunable_weights(network)
    if path is None:
        masks = {key: weight != 0 for key, weight in weights.items()}
        notes = () if count_pruned(masks) else ("nothing is pruned: no prunable weight is 0",)
        return FixedMasks(masks=masks, origin="those that are 0 in the checkpoint", notes=notes)
    named, unused = _rename_masks(read_masks(path), network, checkpoint, path)
    masks = make_full_masks(weights) | named
    more = sum(int((weights[key] != 0)[~mask].sum()) for key, mask in masks.items())
    if more and not asked:
        raise InputError(
            f"prunes {format_count(more, 'weight')} that are not 0 in {checkpoint.path.name}",
            file=path,
            hint="--masks holds them at 0 all the same",
        )
    if not asked:
        _require_partner(path, checkpoint, masks, weights)
    lines = [f"no layer uses {key}: its mask is not held" for key in unused]
    if more:
        lines.append(f"{path.name} prunes {format_count(more, 'weight')} that were not 0")
    return FixedMasks(masks=masks, origin=f"masks of {path.name}", notes=tuple(lines))


def _require_partner(
    path: Path, checkpoint: Checkpoint, masks: Masks, weights: Mapping[str, Tensor]
) -> None:
    """Refuse masks that a crash, or somebody, left beside another file than their own.

    They may say what the zeros say: then it is the same network in a file that was written again.

    Raises:
        InputError: they were written with another file, and say something else.
    """
    partner = read_partner(path)
    if partner is None or partner == checkpoint.sha256:
        return
    if all(torch.equal(mask, weights[key] != 0) for key, mask in masks.items()):
        return
    raise InputError(
        f"was written with another file than {checkpoint.path.name} is now",
        file=path,
        hint="prune again, or let --masks hold them all the same",
    )


def _rename_masks(
    masks: Masks, network: Network, checkpoint: Checkpoint, path: Path
) -> tuple[dict[str, Tensor], list[str]]:
    """Masks by the keys of the network, from those by the keys of the checkpoint's file.

    And the keys of weights that are none of a layer's.
    """
    keys = {name: key for key, name in checkpoint.names.items()}
    parameters = dict(network.module.named_parameters())
    named = {keys.get(name, name): mask for name, mask in masks.items()}
    for key, mask in named.items():
        if key not in parameters:
            raise InputError("is no weight of the model", file=path, field=key)
        if mask.shape != parameters[key].shape:
            shapes = f"has shape {list(mask.shape)}, the weight {list(parameters[key].shape)}"
            raise InputError(shapes, file=path, field=key)
    used = {key: mask for key, mask in named.items() if key in network.layers}
    return used, [key for key in named if key not in used]
