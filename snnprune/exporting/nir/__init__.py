"""NIR graphs, made by the library that a network's neurons are of, and checked."""

from snnprune.exporting.nir.file import write_nir

__all__ = ["write_nir"]
