"""A small part of Fashion-MNIST, and how it was made."""
