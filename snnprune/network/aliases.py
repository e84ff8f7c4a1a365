"""Tensors that a network has under several names."""

from torch import Tensor, nn


def aliases(module: nn.Module) -> dict[str, tuple[str, ...]]:
    """For each tensor of the state dict, by key, all keys that hold it; the first leads."""
    held = module.state_dict(keep_vars=True)
    together: dict[int, list[str]] = {}
    for key, tensor in held.items():
        if isinstance(tensor, Tensor):  # else what get_extra_state gives
            together.setdefault(id(tensor), []).append(key)
    return {key: tuple(keys) for keys in together.values() for key in keys}
