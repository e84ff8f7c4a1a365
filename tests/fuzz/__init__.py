"""Mutated files for every reader: `python tests/fuzz/run.py --help`."""
