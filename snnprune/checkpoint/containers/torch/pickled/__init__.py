"""Pickles read without calling anything: what a file names is never imported, made or hashed."""
