"""Safetensors files, one or in shards, believed only where they fit their bytes."""
