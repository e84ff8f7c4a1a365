"""Sub-networks of random networks, found without training a weight (edge-popup)."""
