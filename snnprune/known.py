"""What is known of a network beside its weights, as far as a criterion asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast, get_args

from torch import Tensor

from snnprune.batches import Batches
from snnprune.calibration import Calibration, LayerStatistics
from snnprune.criteria import Needs
from snnprune.gradients import Found, weight_gradients
from snnprune.grams import Grams
from snnprune.network import Network

BY_GRADIENT: frozenset[Needs] = frozenset(get_args(Found))
BY_GRAM: frozenset[Needs] = frozenset({"gram", "membrane-gram"})


@dataclass(frozen=True, kw_only=True)
class Known:
    """Nothing, unless it says so."""

    calibration: Calibration | None = None
    found: Mapping[str, Tensor] | None = None
    """What a backward pass found, by weight key."""
    grams: Grams | None = None

    def statistics(self, key: str) -> LayerStatistics | None:
        """Of a layer."""
        return self.calibration.layers.get(key) if self.calibration else None

    def suffices(self, needs: Needs) -> bool:
        """Whether a criterion has what it needs."""
        if needs in BY_GRADIENT:
            return self.found is not None
        return (self.grams if needs in BY_GRAM else self.calibration) is not None


def known_for(
    needs: Needs,
    network: Network,
    batches: Batches,
    *,
    calibrate: Callable[[], Calibration],
    seed: int,
) -> Known:
    """What a criterion of these `needs` must know of a network as it is now.

    Gram matrices are taken as they are asked for: the network must not change before.
    """
    if needs == "weight":
        return Known()
    if needs in BY_GRADIENT:
        found = cast(Found, needs)
        return Known(found=weight_gradients(network, batches, found, seed=seed))
    if needs not in BY_GRAM:
        return Known(calibration=calibrate())
    filtered = needs == "membrane-gram"
    return Known(
        calibration=calibrate() if filtered else None,  # what a membrane adds up moves a neuron
        grams=Grams(network, batches, filtered=filtered, seed=seed),
    )
