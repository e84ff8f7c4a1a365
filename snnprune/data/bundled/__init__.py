"""A part of Fashion-MNIST in its own file format, and the script that took it out."""
