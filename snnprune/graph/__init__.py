"""A network as a graph: which weight drives which neuron, found by running it once."""
