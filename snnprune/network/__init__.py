"""What feeds what in a spiking network, and how to watch it run."""

from snnprune.network.capture import watching
from snnprune.network.libraries import NeuronConstants
from snnprune.network.links import Layer, Network, Neuron, Norm
from snnprune.network.mode import batch_length, evaluating
from snnprune.network.readout import class_scores
from snnprune.network.trace import trace

__all__ = [
    "Layer",
    "Network",
    "Neuron",
    "NeuronConstants",
    "Norm",
    "batch_length",
    "class_scores",
    "evaluating",
    "trace",
    "watching",
]
