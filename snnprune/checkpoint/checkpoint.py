"""A checkpoint in memory: its tensors, which of them are weights, and whether they are sound."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from snnprune.errors import InputError
from snnprune.errors.text import format_count, format_names


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The tensors and text of a file, before anything is said about their values."""

    tensors: dict[str, Tensor]
    """On the CPU (or on `meta`, where only the outline was read), in the file's order."""
    metadata: dict[str, str]
    notes: tuple[str, ...] = ()
    """What was done on the way in, one line each."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The name in the file of each tensor that goes by a shorter one here."""
    packed: bool = False
    """Whether the zeros were left out of the file."""
    entry: str | None = None
    """Which dict of a torch file the tensors are: `model`, `model.state_dict`, `.` for the top."""
    odd: Mapping[str, str] = field(default_factory=dict)
    """Tensors that only a file of the same container can keep, by name, and what they are."""


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A file's tensors as they were stored, and its text."""

    path: Path
    container: str
    """`safetensors`, `packed`, `sharded-safetensors`, `torch` or `nir`."""
    tensors: dict[str, Tensor]
    """On the CPU, in the file's order."""
    metadata: dict[str, str]
    """Of safetensors; empty for other files."""
    sha256: str
    """Of the file; of a sharded checkpoint, see `safetensors.hash_shards`."""
    notes: tuple[str, ...]
    """What was done on the way in and what looks odd, one line each."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The key in the file of every key of `tensors`."""
    folded: Mapping[str, str] = field(default_factory=dict)
    """Keys of the file that were folded into one tensor, and the key that replaces them there."""
    dropped: frozenset[str] = frozenset()
    """Keys of the file that are not written again."""
    entry: str | None = None
    """Which dict of a torch file the tensors are: `model`, `model.state_dict`, `.` for the top."""

    odd: Mapping[str, str] = field(default_factory=dict)
    """Tensors that only a file of the same container can keep, by name, and what they are."""

    def in_file(self, values: Mapping[str, T]) -> dict[str, T]:
        """The same values by the keys of the file: `module.fc.weight` for `fc.weight`."""
        return {self.names.get(key, key): value for key, value in values.items()}


def strip_prefix(checkpoint: Checkpoint, prefix: str) -> Checkpoint:
    """The checkpoint with `prefix` taken off the keys that have it; the other keys stay.

    Raises:
        InputError: two tensors would have one key then.
    """
    short = {key: key.removeprefix(prefix) or key for key in checkpoint.tensors}
    seen: dict[str, str] = {}
    for key, new in short.items():
        if new in seen:
            raise InputError(
                f"is {new} without the prefix {prefix}, which {seen[new]} is too",
                file=checkpoint.path,
                field=key,
                hint="rename one of them",
            )
        seen[new] = key
    count = sum(new != key for key, new in short.items())
    return replace(
        checkpoint,
        tensors={short[key]: tensor for key, tensor in checkpoint.tensors.items()},
        names={short[key]: checkpoint.names.get(key, key) for key in checkpoint.tensors},
        notes=(
            *checkpoint.notes,
            f"stripped the prefix {prefix} from {format_count(count, 'key')}",
        ),
    )


ORIGINAL, MASK = "_orig", "_mask"
"""What torch.nn.utils.prune puts behind the name of a parameter."""


def fold_masks(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with `X.weight` = `X.weight_orig` * `X.weight_mask`, in the first's place.

    So for every parameter that torch.nn.utils.prune has split; without any, the same checkpoint.
    """
    split = _find_split_parameters(checkpoint.tensors)
    if not split:
        return checkpoint
    part_of = {part: name for name in split for part in (name + ORIGINAL, name + MASK)}
    tensors: dict[str, Tensor] = {}
    for key, tensor in checkpoint.tensors.items():
        name = part_of.get(key)
        if name is None:
            tensors[key] = tensor
        elif name not in tensors:
            tensors[name] = _apply_mask(checkpoint.tensors[name + ORIGINAL],
                                     checkpoint.tensors[name + MASK])  # fmt: skip
    stored = {part: checkpoint.names.get(part, part) for part in part_of}
    whole = {name: stored[name + ORIGINAL].removesuffix(ORIGINAL) for name in split}
    return replace(
        checkpoint,
        tensors=tensors,
        names={key: whole.get(key) or checkpoint.names.get(key, key) for key in tensors},
        folded={stored[part]: whole[name] for part, name in part_of.items()},
        notes=(
            *checkpoint.notes,
            f"folded {format_count(len(split), 'mask')} of torch.nn.utils.prune into the weights: "
            + format_names(split),
        ),
    )


def compute_effective_weight(tensors: Mapping[str, Tensor], key: str) -> Tensor:
    """The values that a weight has in its network, where a mask of torch.nn.utils.prune is on."""
    mask = tensors.get(key.removesuffix(ORIGINAL) + MASK) if key.endswith(ORIGINAL) else None
    return tensors[key] if mask is None else _apply_mask(tensors[key], mask)


def find_parametrized(tensors: Mapping[str, Tensor]) -> dict[str, str]:
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


def _find_split_parameters(tensors: Mapping[str, Tensor]) -> list[str]:
    names = [key.removesuffix(ORIGINAL) for key in tensors if key.endswith(ORIGINAL)]
    return [
        name
        for name in names
        if name + MASK in tensors
        and name not in tensors
        and tensors[name + MASK].shape == tensors[name + ORIGINAL].shape
    ]


def _apply_mask(original: Tensor, mask: Tensor) -> Tensor:
    # not a bare product, which gives -0.0, and NaN for an infinite weight
    product = original * mask.to(original.dtype)
    return torch.where(mask != 0, product, torch.zeros_like(original))


PREFIXES = ("module.", "_orig_mod.")
"""Of DataParallel, DistributedDataParallel and AveragedModel; of torch.compile."""


def strip_prefixes(
    tensors: dict[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, str], tuple[str, ...]]:
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


def _find_wrapper_prefix(tensors: dict[str, Tensor]) -> str | None:
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


STATES = ("mem", "syn", "syn_exc", "syn_inh", "v_mem", "i_syn")
"""Names that snnTorch and sinabs give to membranes and synaptic currents."""

SAVED = "of a batch saved with the weights"
"""What a note on them says."""


def find_saved_states(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
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


def is_prunable(name: str, tensor: Tensor) -> bool:
    """Whether name, dtype and shape are those of a Conv or Linear weight, (out, in, *kernel)."""
    return _is_weight(name, tensor) and not is_tiny(tensor)


def is_tiny(tensor: Tensor) -> bool:
    """Whether it holds 8-bit floats, which torch stores and does not compute with."""
    return tensor.is_floating_point() and tensor.itemsize == 1


EMBEDDINGS = re.compile(r"(^|[._])(\w*embed\w*|wte|wpe|emb)(?=[._]|$)", re.IGNORECASE)
"""Names of tables of vectors, whose weights nothing multiplies."""


def find_unprunable(tensors: Mapping[str, Tensor]) -> dict[str, str]:
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


def _explain_unprunable(name: str, tensor: Tensor, tensors: Mapping[str, Tensor]) -> str | None:
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


def find_tiny_weights(tensors: Mapping[str, Tensor]) -> list[str]:
    """Weights that would be prunable in any other type."""
    return [name for name, one in tensors.items() if _is_weight(name, one) and is_tiny(one)]


def _is_weight(name: str, tensor: Tensor) -> bool:
    return name.endswith("weight") and tensor.is_floating_point() and 2 <= tensor.dim() <= 5


def find_prunable_weights(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The names of the prunable weights, in the file's order; one for each that has several."""
    same, others = find_tied_tensors(tensors), find_unprunable(tensors)
    first: dict[tuple[str, ...], str] = {}
    for name, tensor in tensors.items():
        if is_prunable(name, tensor) and name not in others:
            first.setdefault(same[name], name)
    return tuple(first.values())


def find_tied_tensors(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """For each tensor, by name, all names of the same memory in the same shape."""
    together: dict[object, list[str]] = {}
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        stored = tensor.numel() > 0 and not tensor.is_meta
        together.setdefault(place if stored else name, []).append(name)
    return {name: tuple(names) for names in together.values() for name in names}


LEARNT = ("weight", "bias", "weight_orig", "bias_orig")
"""How the names of parameters end; what else is in a file may be a mask of infinities."""


def require_sound(
    tensors: dict[str, Tensor], path: Path, *, allow_nonfinite: bool
) -> tuple[str, ...]:
    """Notes on odd values.

    Raises:
        InputError: a value of a weight, bias or running statistic is NaN or infinite (unless
            `allow_nonfinite`, which never covers a running variance), or a running variance is
            negative.
    """
    notes = []
    for name, tensor in tensors.items():
        found = _describe_nonfinite(tensor)
        learnt = _is_statistic(name) or name.endswith(LEARNT)
        if found and learnt and (_is_variance(name) or not allow_nonfinite):
            hint = "take a checkpoint from before training went wrong"
            raise InputError(found, file=path, field=name, hint=hint)
        if found:
            notes.append(f"{name}: {found}")
        if _is_variance(name) and tensor.is_floating_point():
            _require_nonnegative(name, tensor, path)
    zero = [name for name, tensor in tensors.items() if _is_all_zero(name, tensor)]
    if zero:
        notes.append(f"{format_count(len(zero), 'tensor')} all zero: {format_names(zero)}")
    if still := _find_zero_variances(tensors):
        notes.append(f"variance 0, as of channels that never change: {format_names(still)}")
    if tiny := find_tiny_weights(tensors):
        notes.append(
            f"{format_count(len(tiny), 'weight')} of 8-bit floats left alone: " + format_names(tiny)
        )
    if others := find_unprunable(tensors):
        named = format_names([f"{name} ({why})" for name, why in others.items()])
        notes.append(f"not taken for weights of layers: {named}")
    if states := find_saved_states(tensors):
        notes.append(
            f"{format_count(len(states), 'neuron state')} {SAVED}: " + format_names(states)
        )
    return tuple(notes)


def is_finite(tensor: Tensor) -> Tensor:
    """Whether each value is neither NaN nor infinite, bool in the shape of `tensor`."""
    if not is_tiny(tensor):
        return torch.isfinite(tensor)
    try:
        return torch.isfinite(tensor.float())  # isfinite itself knows only some of the 8-bit floats
    except (NotImplementedError, RuntimeError):  # a type that torch can do nothing with but keep it
        return torch.ones(tensor.shape, dtype=torch.bool)


def _is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var"))


def _is_variance(name: str) -> bool:
    return name.endswith("running_var")


def _describe_nonfinite(tensor: Tensor) -> str | None:
    """How many values are NaN or infinite and where the first is; None if none is."""
    if not tensor.is_floating_point():
        return None
    finite = is_finite(tensor)
    if finite.all():
        return None
    lost = (~finite).flatten().to(torch.uint8)
    values = format_count(int(lost.count_nonzero()), "value")
    return f"{values} NaN or infinite, the first at flat index {int(lost.argmax())}"


def _require_nonnegative(name: str, tensor: Tensor, path: Path) -> None:
    values = tensor.double()  # since 8-bit floats cannot be compared
    if (values < 0).any():
        raise InputError(
            f"a variance is negative ({values.min().item():g})",
            file=path,
            field=name,
            hint="the file is damaged or no BatchNorm's: copy it again",
        )


def _find_zero_variances(tensors: dict[str, Tensor]) -> list[str]:
    """The running variances that are 0 somewhere, and how often."""
    zeros = {
        name: int((tensor == 0).sum())
        for name, tensor in tensors.items()
        if _is_variance(name) and not is_tiny(tensor)
    }
    return [f"{name} ({n:,} of {tensors[name].numel():,})" for name, n in zeros.items() if n]


def _is_all_zero(name: str, tensor: Tensor) -> bool:
    return is_prunable(name, tensor) and tensor.numel() > 0 and not bool(tensor.any())
