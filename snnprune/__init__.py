"""snnprune: prune trained spiking neural networks, with the evidence."""

__version__ = "0.1.0"
