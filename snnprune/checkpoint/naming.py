"""What a file's tensors are by keys, types and shapes, and whether their values can be such.

A header is enough for the first; of values it is given what others counted. Imports no torch.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from snnprune.errors import InputError, Note, format_count, format_names


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
        notes.append(Note(f"stripped the prefix {prefix} from {format_count(count, 'key')}"))
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


@dataclass(frozen=True, kw_only=True)
class ValueCounts:
    """What is to be known of a tensor's values; what `must_count` asks for no one is 0."""

    nonfinite: int = 0
    """NaN or infinite."""
    first: int = 0
    """Flat index of the first of these."""
    zeros: int = 0
    least: float = 0.0


def must_count_zeros(name: str, tensor: Outline) -> bool:
    """Whether anybody asks how many values of a tensor are 0."""
    return is_prunable(name, tensor) or (is_variance(name) and not is_tiny(tensor))


def must_find_least(name: str, tensor: Outline) -> bool:
    """Whether anybody asks for the least of a tensor's values."""
    return is_variance(name) and tensor.is_floating_point()


def judge_values(
    tensors: Mapping[str, Outline],
    look: Callable[[str], ValueCounts],
    path: Path,
    *,
    allow_nonfinite: bool,
) -> tuple[str, ...]:
    """Notes on odd values; `look` gives what is known of those of a key.

    Raises:
        InputError: a value of a weight, bias or running statistic is NaN or infinite (unless
            `allow_nonfinite`, which never covers a running variance), or a running variance is
            negative.
    """
    notes, seen = [], dict[str, ValueCounts]()
    for name, tensor in tensors.items():
        seen[name] = found = look(name)
        learnt = is_statistic(name) or name.endswith(LEARNT)
        if found.nonfinite and learnt and (is_variance(name) or not allow_nonfinite):
            hint = "take a checkpoint from before training went wrong"
            raise InputError(_describe_nonfinite(found), file=path, field=name, hint=hint)
        if found.nonfinite:
            notes.append(f"{name}: {_describe_nonfinite(found)}")
        if must_find_least(name, tensor) and found.least < 0:
            raise InputError(
                f"a variance is negative ({found.least:g})",
                file=path,
                field=name,
                hint="the file is damaged or no BatchNorm's: copy it again",
            )
    return (*notes, *_note_zeros(tensors, seen), *note_left_alone(tensors))


def _describe_nonfinite(found: ValueCounts) -> str:
    values = format_count(found.nonfinite, "value")
    return f"{values} NaN or infinite, the first at flat index {found.first}"


def _note_zeros(tensors: Mapping[str, Outline], seen: Mapping[str, ValueCounts]) -> list[str]:
    notes = []
    zero = [
        name
        for name, tensor in tensors.items()
        if is_prunable(name, tensor) and 0 < tensor.numel() == seen[name].zeros
    ]
    if zero:
        notes.append(f"{format_count(len(zero), 'tensor')} all zero: {format_names(zero)}")
    still = [
        f"{name} ({seen[name].zeros:,} of {tensor.numel():,})"
        for name, tensor in tensors.items()
        if is_variance(name) and seen[name].zeros
    ]
    if still:
        notes.append(f"variance 0, as of channels that never change: {format_names(still)}")
    return notes


def note_left_alone(tensors: Mapping[str, Outline]) -> list[str]:
    """Notes on what keys, types and shapes alone tell to be no weights of layers."""
    notes: list[str] = []
    if tiny := find_tiny_weights(tensors):
        weights = format_count(len(tiny), "weight")
        notes.append(Note(f"{weights} of 8-bit floats left alone: {format_names(tiny)}"))
    if others := find_unprunable(tensors):
        named = format_names([f"{name} ({why})" for name, why in others.items()])
        notes.append(Note(f"not taken for weights of layers: {named}"))
    if states := find_saved_states(tensors):
        saved = format_count(len(states), "neuron state")
        notes.append(Note(f"{saved} {SAVED}: {format_names(states)}"))
    return notes
