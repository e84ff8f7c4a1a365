"""NIR graphs, as HDF5."""
