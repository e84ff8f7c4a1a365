"""What a NIR graph says otherwise than the network."""

from __future__ import annotations

from typing import Any

from snnprune.checkpoint.naming import counted
from snnprune.exporting.running import Running


def notes_on(seen: Running, time_step: float | None) -> tuple[str, ...]:
    """The time step, and a line where neurons reset in a way that NIR has no word for."""
    notes = []
    if time_step is not None:
        notes.append(
            f"NIR's neurons are of continuous time: a reader must take a time step of "
            f"{time_step:.5g}, in the unit of their tau"
        )
    if soft := sum(_is_soft(neuron.module) for neuron in seen.network.neurons.values()):
        notes.append(
            f"NIR has the reset to a potential alone: {counted(soft, 'layer')} of neurons that "
            "subtract the threshold, or do not reset, are exported with a reset to 0"
        )
    return tuple(notes)


def _is_soft(neuron: Any) -> bool:
    """Of snnTorch and sinabs; SpikingJelly refuses such a neuron itself, norse has none."""
    if getattr(neuron, "reset_mechanism", "zero") != "zero":
        return True
    return type(getattr(neuron, "reset_fn", None)).__name__ == "MembraneSubtract"
