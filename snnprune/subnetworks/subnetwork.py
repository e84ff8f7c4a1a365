"""A network whose weights are drawn once and never trained: what is searched is which to keep."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snnprune.errors import InputError
from snnprune.network import Network
from snnprune.subnetworks.attaching import parametrized, places_of, require_plain
from snnprune.subnetworks.drawing import WeightDraw, drawn_scores, drawn_weight
from snnprune.subnetworks.freezing import frozen, neutralise
from snnprune.subnetworks.masking import TopScores


@dataclass(frozen=True, kw_only=True, eq=False)
class Subnetwork:
    """A random network under masks; only `scores` learn."""

    network: Network
    """As it was traced; its module computes with the masked weights."""
    parts: Mapping[str, TopScores]
    """What masks each layer, by weight key."""
    names: Mapping[str, tuple[str, ...]]
    """Every state-dict key of each weight, by weight key."""
    keys: tuple[str, ...]
    """Of the module's state dict without the masks, in its order."""

    @property
    def scores(self) -> dict[str, nn.Parameter]:
        """What to give to an optimizer, by weight key; each in its weight's shape."""
        return {key: part.scores for key, part in self.parts.items()}

    def masks(self) -> dict[str, Tensor]:
        """True = kept, by weight key."""
        return {key: part.mask() for key, part in self.parts.items()}

    def weight(self, key: str) -> Tensor:
        """The drawn weight, before the mask."""
        path, _, name = key.rpartition(".")
        original = f"parametrizations.{name}.original"
        return self.network.module.get_parameter(f"{path}.{original}" if path else original)

    @torch.no_grad()
    def state_dict(self) -> dict[str, Tensor]:
        """What the plain module would hold: its own keys and order, 0 where a weight is masked.

        A copy, in which what is one tensor under several names still is one.
        """
        held = self.network.module.state_dict()
        for key, part in self.parts.items():
            held.update(dict.fromkeys(self.names[key], part.effective(self.weight(key))))
        return copy.deepcopy({key: held[key] for key in self.keys})

    @torch.no_grad()
    def load_scores(self, scores: Mapping[str, Tensor]) -> None:
        """Take back what `scores` gave.

        Raises:
            KeyError: a layer has none.
            RuntimeError: one has another shape.
        """
        for key, part in self.parts.items():
            part.scores.copy_(scores[key])


@contextlib.contextmanager
def searching(
    network: Network, *, weights: WeightDraw, kept: float, seed: int
) -> Iterator[Subnetwork]:
    """The network's module becomes a random one of which each layer keeps the share `kept`.

    Every layer is masked, the first and the last too: `round(kept * n)` of its n weights are kept,
    but at least one. Weights are drawn by `seed` and key and never change. The biases beside them
    are 0; BatchNorm has gamma 1, beta 0 and new, live running statistics. Whatever else could learn
    stays as it is and does not: time constants and thresholds of neurons, LayerNorm and GroupNorm,
    embeddings, weights that no layer uses. A weight under several names has one score.

    The links of `network` hold in the block, but neurons that are comparisons in somebody's code
    are not seen by `network.watching` there. After it the module is as it was before.

    Raises:
        InputError: `kept` is not in (0, 1], or a weight cannot be masked.
    """
    if not 0 < kept <= 1:
        raise InputError(
            f"a share of {kept} cannot be kept", field="kept", hint="give one above 0, at most 1"
        )
    require_plain(network)
    module = network.module
    keys = tuple(module.state_dict())
    names = {key: tuple(network.tied(key)) for key in network.layers}
    with frozen(module), contextlib.ExitStack() as stack:
        neutralise(network, [name for each in names.values() for name in each])
        parts = {}
        for key in network.layers:
            weight = module.get_parameter(key)
            with torch.no_grad():
                weight.copy_(drawn_weight(weight.shape, weights, kept=kept, seed=seed, key=key))
            parts[key] = _part(weight, kept, seed, key)
            for owner, name in places_of(module, names[key]):
                stack.enter_context(parametrized(owner, name, parts[key]))
        yield Subnetwork(network=network, parts=parts, names=names, keys=keys)


def _part(weight: Tensor, kept: float, seed: int, key: str) -> TopScores:
    """Scores for a weight, on its device, in its layout and at least in float32."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    scores = torch.empty_like(weight, dtype=dtype, requires_grad=False)
    scores.copy_(drawn_scores(weight.shape, seed=seed, key=key))
    # nothing passes an empty layer, and no gradient that could fill it
    return TopScores(scores, max(1, round(kept * weight.numel())))
