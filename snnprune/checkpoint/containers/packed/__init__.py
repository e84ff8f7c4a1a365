"""Packed checkpoints: safetensors whose sparse tensors are bytes, zeros left out.

`positions` says where the values stand, `values` how precise they are, `file` what lies where.
"""
