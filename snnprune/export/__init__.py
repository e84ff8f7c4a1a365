"""The same weights in another file: smaller, plain, or for other programs."""
