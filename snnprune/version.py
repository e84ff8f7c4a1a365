"""The version, apart, so that what all import can tell it."""

__version__ = "0.1.0"
