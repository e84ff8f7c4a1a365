"""Torch files, read and written without running what is pickled in them."""
