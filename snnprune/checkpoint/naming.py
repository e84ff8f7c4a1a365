"""What keys, types and shapes tell of a file's tensors: which are weights, states, parts of others.

Nothing here looks at a value, so that a header is enough. Imports no torch.
"""

import re
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from snnprune.errors.text import format_count


class Outline(Protocol):
    """A tensor, or what a header says of one."""

    @property
    def dtype(self) -> Any:
        """Its text ends in torch's name of the type."""
        ...

    @property
    def shape(self) -> Any:
        """Sizes, outermost first."""
        ...

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        ...

    def dim(self) -> int:
        """How many sizes it has."""
        ...

    def numel(self) -> int:
        """How many values it has."""
        ...

    def is_floating_point(self) -> bool:
        """Whether its values are real numbers that are no integers."""
        ...


AnyOutline = TypeVar("AnyOutline", bound=Outline)


ORIGINAL, MASK = "_orig", "_mask"
"""What torch.nn.utils.prune puts behind the name of a parameter."""


def find_parametrized(tensors: Mapping[str, Outline]) -> dict[str, str]:
    """Weights that are there only as what they are computed from: name -> by what."""
    found: dict[str, str] = {}
    for key in tensors:
        module, dot, name = key.rpartition(".")
        owner, _, inner = module.rpartition("parametrizations.")
        if name.startswith("original") and module.endswith(f"parametrizations.{inner}"):
            found[owner + inner] = "a parametrization"
        elif name.endswith("_g") and f"{key[:-2]}_v" in tensors:
            found[module + dot + name.removesuffix("_g")] = "weight norm"
        elif name.endswith(ORIGINAL) and f"{key.removesuffix(ORIGINAL)}_u" in tensors:
            found[module + dot + name.removesuffix(ORIGINAL)] = "spectral norm"
    return {name: what for name, what in found.items() if name not in tensors}


def strip_part_suffix(key: str) -> str:
    """`X.weight` for the parts that such a weight is stored in; other keys as they are."""
    key = re.sub(r"(?<![^.])parametrizations\.(\w+)\.original\d*$", r"\1", key)
    return re.sub(r"(?<=weight)(_orig|_g|_v)$", "", key)


def find_split_parameters(tensors: Mapping[str, Outline]) -> list[str]:
    """The parameters that torch.nn.utils.prune has split into values and a mask."""
    names = [key.removesuffix(ORIGINAL) for key in tensors if key.endswith(ORIGINAL)]
    return [
        name
        for name in names
        if name + MASK in tensors
        and name not in tensors
        and tensors[name + MASK].shape == tensors[name + ORIGINAL].shape
    ]


PREFIXES = ("module.", "_orig_mod.")
"""Of DataParallel, DistributedDataParallel and AveragedModel; of torch.compile."""


def strip_prefixes(
    tensors: dict[str, AnyOutline],
) -> tuple[dict[str, AnyOutline], dict[str, str], tuple[str, ...]]:
    """The tensors without the prefixes of wrappers, the key each had, a note for each prefix.

    A wrapper's own counter may stand beside, as `n_averaged` of AveragedModel does, and stays.
    """
    notes = []
    names = {name: name for name in tensors}
    while prefix := _find_wrapper_prefix(tensors):
        count = sum(name.startswith(prefix) for name in tensors)
        names = {name.removeprefix(prefix): original for name, original in names.items()}
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        notes.append(f"stripped the prefix {prefix} from {format_count(count, 'key')}")
    return tensors, names, tuple(notes)


def _find_wrapper_prefix(tensors: Mapping[str, Outline]) -> str | None:
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


def _is_counter(name: str, tensor: Outline) -> bool:
    """Whether it can be a wrapper's own; a dot means that a module of the network has it."""
    return "." not in name and (tensor.dim() == 0 or not tensor.is_floating_point())


STATES = ("mem", "syn", "syn_exc", "syn_inh", "v_mem", "i_syn")
"""Names that snnTorch and sinabs give to membranes and synaptic currents."""

SAVED = "of a batch saved with the weights"
"""What a note on them says."""


def find_saved_states(tensors: Mapping[str, Outline]) -> tuple[str, ...]:
    """The keys of membranes and currents that still have the shape of a batch.

    A single number is no such state: it is what a fresh neuron has.
    """
    return tuple(
        key
        for key, tensor in tensors.items()
        if key.rpartition(".")[2] in STATES
        and tensor.is_floating_point()
        and tensor.dim() >= 1
        and tensor.numel() > 1
    )


def is_prunable(name: str, tensor: Outline) -> bool:
    """Whether name, dtype and shape are those of a Conv or Linear weight, (out, in, *kernel)."""
    return _is_weight(name, tensor) and not is_tiny(tensor)


def is_tiny(tensor: Outline) -> bool:
    """Whether it holds 8-bit floats, which torch stores and does not compute with."""
    return tensor.is_floating_point() and tensor.itemsize == 1


EMBEDDINGS = re.compile(r"(^|[._])(\w*embed\w*|wte|wpe|emb)(?=[._]|$)", re.IGNORECASE)
"""Names of tables of vectors, whose weights nothing multiplies."""


def find_unprunable(tensors: Mapping[str, Outline]) -> dict[str, str]:
    """Tensors of a file that are weights by their name and shape and are not pruned, and why.

    Of which layer a weight is, its partners may tell: what a LayerNorm scales by has a bias of its
    own shape, a convolution or linear layer one of a single dimension.
    """
    found = {}
    for name, tensor in tensors.items():
        if not 2 <= tensor.dim() <= 5:
            continue
        why = _explain_unprunable(name, tensor, tensors)
        if why is not None:
            found[name] = why
    return found


def _explain_unprunable(name: str, tensor: Outline, tensors: Mapping[str, Outline]) -> str | None:
    kind = str(tensor.dtype).removeprefix("torch.")
    if name.endswith("weight_orig"):
        mask = f"{name.removesuffix('_orig')}_mask"
        return None if mask in tensors else "its mask is not there"
    if not name.endswith("weight") or is_tiny(tensor):
        return None
    if not tensor.is_floating_point():
        return kind
    bias = tensors.get(f"{name.removesuffix('weight')}bias")
    if bias is not None and bias.shape == tensor.shape:
        return "its bias has the same shape: a normalisation"
    return "an embedding by its name" if EMBEDDINGS.search(name) else None


def find_tiny_weights(tensors: Mapping[str, Outline]) -> list[str]:
    """Weights that would be prunable in any other type."""
    return [name for name, one in tensors.items() if _is_weight(name, one) and is_tiny(one)]


def _is_weight(name: str, tensor: Outline) -> bool:
    return name.endswith("weight") and tensor.is_floating_point() and 2 <= tensor.dim() <= 5


LEARNT = ("weight", "bias", "weight_orig", "bias_orig")
"""How the names of parameters end; what else is in a file may be a mask of infinities."""


def is_statistic(name: str) -> bool:
    """Whether it is a running mean or variance of a normalisation."""
    return name.endswith(("running_mean", "running_var"))


def is_variance(name: str) -> bool:
    """Whether it is a running variance."""
    return name.endswith("running_var")


def list_prunable(tensors: Mapping[str, Outline]) -> tuple[str, ...]:
    """The keys of the prunable weights, in the file's order, all names of each."""
    others = find_unprunable(tensors)
    return tuple(key for key, one in tensors.items() if is_prunable(key, one) and key not in others)
