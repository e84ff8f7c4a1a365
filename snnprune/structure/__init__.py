"""Structures: which weights may only go together. Importing this package imports no torch."""

from snnprune.structure.structure import CHANNELS, UNSTRUCTURED, Structure, parse_structure

__all__ = ["CHANNELS", "UNSTRUCTURED", "Structure", "parse_structure"]
