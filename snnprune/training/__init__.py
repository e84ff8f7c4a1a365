"""The loops, each to be read from top to bottom, and the steps that they are made of."""
