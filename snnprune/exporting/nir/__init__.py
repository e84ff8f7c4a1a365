"""NIR graphs, made by the library that a network's neurons are of, and checked."""

from snnprune.exporting.nir.file import write_nir
from snnprune.exporting.nir.notes import notes_on

__all__ = ["notes_on", "write_nir"]
