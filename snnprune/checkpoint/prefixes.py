"""Prefixes that a wrapper around the network, not the network, put before every key."""

from torch import Tensor

from snnprune.checkpoint.naming import counted

PREFIXES = ("module.", "_orig_mod.")
"""Of DataParallel and of torch.compile."""


def without_prefixes(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors without the prefixes that all their keys share, and a note for each prefix."""
    notes = []
    while prefix := _shared_prefix(tensors):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        notes.append(f"stripped the prefix {prefix} from {counted(len(tensors), 'key')}")
    return tensors, tuple(notes)


def _shared_prefix(tensors: dict[str, Tensor]) -> str | None:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) and name != prefix for name in tensors):
            return prefix
    return None
