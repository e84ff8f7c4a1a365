"""The neuron of the theory, in float64 (Yao et al. 2023, Eq. 2 to 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snnprune.errors import UsageError
from snnprune.measure.quantities import Share


@dataclass(frozen=True, kw_only=True)
class NeuronDynamics:
    """A leaky integrate-and-fire neuron: u = h + x, s = [u >= u_th], h = V_reset or beta u."""

    threshold: float = 0.5
    """u_th"""
    beta: Share = 0.5
    """Decay, in [0, 1)."""
    reset: float | None = 0.0
    """V_reset, h = V_reset after a spike; None for soft reset, h = beta (u - u_th)."""

    def run(self, currents: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and u before reset, each as the currents (T, ...); at rest at first."""
        h = torch.zeros_like(currents[0])
        spikes, membranes = torch.empty_like(currents), torch.empty_like(currents)
        for step, x in enumerate(currents):
            u = h + x
            s = (u >= self.threshold).to(u.dtype)
            h = self._after(u, s)
            spikes[step], membranes[step] = s, u
        return spikes, membranes

    def _after(self, u: Tensor, s: Tensor) -> Tensor:
        if self.reset is None:
            return self.beta * (u - self.threshold * s)
        return self.reset * s + self.beta * u * (1 - s)


def require_memoryless(dynamics: NeuronDynamics, span: float) -> None:
    """Refuse dynamics under which a virtual neuron may do otherwise than its input.

    With v in [u_th, span]: after a hard reset h = V_reset must be in [0, u_th), as h + v >= u_th
    and h < u_th are needed. After a soft reset h never exceeds beta (span - u_th) / (1 - beta),
    which is below u_th as long as u_th > beta span.

    Raises:
        UsageError: they are such.
    """
    threshold, reset = dynamics.threshold, dynamics.reset
    if reset is not None and not 0 <= reset < threshold:
        raise UsageError(
            f"after a reset to {reset:g} a virtual neuron "
            + ("fires again without input" if reset >= threshold else "may miss its next input"),
            field="--reset",
            hint=f"choose one in [0, {threshold:g})",
        )
    if reset is None and threshold <= dynamics.beta * span:
        raise UsageError(
            f"what a soft reset leaves, up to {dynamics.beta * (span - threshold):g} and more with "
            f"every spike, can reach the threshold {threshold:g} without input",
            field="--threshold",
            hint=f"choose one above beta times the span, {dynamics.beta * span:g}",
        )
