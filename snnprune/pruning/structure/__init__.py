"""Structures: which weights may only go together."""
