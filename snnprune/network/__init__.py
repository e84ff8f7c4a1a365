"""What feeds what in a spiking network, and how to watch it run."""

from snnprune.network.calls import LayerCall
from snnprune.network.capture import watching
from snnprune.network.feeding import Batch
from snnprune.network.libraries import NeuronConstants, plainly
from snnprune.network.links import NOWHERE, Gain, Layer, Link, Neuron, Norm
from snnprune.network.mode import evaluating
from snnprune.network.network import Network
from snnprune.network.operations import NormCall
from snnprune.network.trace import trace
from snnprune.network.values import holding, snapshot
from snnprune.network.wrappers import bare

__all__ = [
    "NOWHERE",
    "Batch",
    "Gain",
    "Layer",
    "LayerCall",
    "Link",
    "Network",
    "Neuron",
    "NeuronConstants",
    "Norm",
    "NormCall",
    "bare",
    "evaluating",
    "holding",
    "plainly",
    "snapshot",
    "trace",
    "watching",
]
