"""Prefixes that a wrapper around the network, not the network, put before every key."""

from torch import Tensor

from snnprune.checkpoint.naming import counted

PREFIXES = ("module.", "_orig_mod.")
"""Of DataParallel, DistributedDataParallel and AveragedModel; of torch.compile."""


def without_prefixes(
    tensors: dict[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, str], tuple[str, ...]]:
    """The tensors without the prefixes of wrappers, the key each had, a note for each prefix.

    A wrapper's own counter may stand beside, as `n_averaged` of AveragedModel does, and stays.
    """
    notes = []
    names = {name: name for name in tensors}
    while prefix := _wrapper_prefix(tensors):
        count = sum(name.startswith(prefix) for name in tensors)
        names = {name.removeprefix(prefix): original for name, original in names.items()}
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        notes.append(f"stripped the prefix {prefix} from {counted(count, 'key')}")
    return tensors, names, tuple(notes)


def _wrapper_prefix(tensors: dict[str, Tensor]) -> str | None:
    for prefix in PREFIXES:
        inside = [name for name in tensors if name.startswith(prefix)]
        beside = [name for name in tensors if not name.startswith(prefix)]
        if (
            inside
            and prefix not in inside
            and all(_is_counter(name, tensors[name]) for name in beside)
            and not {name.removeprefix(prefix) for name in inside}.intersection(beside)
        ):
            return prefix
    return None


def _is_counter(name: str, tensor: Tensor) -> bool:
    """Whether it can be a wrapper's own; a dot means that a module of the network has it."""
    return "." not in name and (tensor.dim() == 0 or not tensor.is_floating_point())
