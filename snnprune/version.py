"""The version, apart, so that what all import can tell it."""

__version__ = "0.1.0"
KEY = "snnprune.version"
"""Metadata of every file that snnprune writes: its own version."""
