"""The probabilistic model behind the spiking-firing criterion, right where the paper slips."""
