"""The loops, each to be read from top to bottom."""
