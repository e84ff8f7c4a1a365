"""Files: written whole or not at all, and read only where they can be."""
