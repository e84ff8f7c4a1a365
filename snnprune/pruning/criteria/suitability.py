"""Which layers a criterion can score (decision A8 of docs/criteria); the others go by magnitude."""

from __future__ import annotations

from snnprune.graph.links import Layer
from snnprune.pruning.criteria.criterion import Criterion
from snnprune.pruning.criteria.evidence import BY_GRADIENT, BY_GRAM, NetworkEvidence

NOT_MET = "not met in the forward pass"


def why_unsuited(
    criterion: Criterion, layer: Layer | None, evidence: NetworkEvidence, key: str
) -> str | None:
    """Why `criterion` cannot score this layer, or None if it can."""
    if criterion.needs == "weight":
        return None
    unseen = layer.unseen if layer is not None else None
    if criterion.needs in BY_GRADIENT:
        reached = evidence.gradients is not None and key in evidence.gradients
        return None if reached else unseen or "no gradient reaches it"
    if unseen:
        return unseen
    if criterion.needs in BY_GRAM:
        used = evidence.grams is not None and bool(evidence.grams.measure_usage().calls[key])
        return None if used else NOT_MET
    statistics = evidence.statistics(key)
    if layer is None or statistics is None:
        return NOT_MET
    if criterion.needs == "inputs":
        return None
    if not layer.encoding and not statistics.drives:
        return statistics.refused or "no spiking neuron after it"
    return why_without_spikes(layer)


def why_without_spikes(layer: Layer) -> str | None:
    """Why Eq. 12 does not hold for a layer wherever it leads, or None if it may."""
    if layer.encoding:
        return "encoding layer: its input is not spikes"
    if layer.kind == "linear" and not layer.normalised:
        return "linear layer without BatchNorm"
    return None
