"""Second moments of what enters layers, and what least squares and OBS make of them."""
