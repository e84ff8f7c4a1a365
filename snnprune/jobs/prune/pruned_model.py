"""A network as `prune` has made it, whole, and without the channels that are gone.

The smaller one is run beside the whole one before it is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from snnprune.checkpoint.checkpoint import is_finite
from snnprune.checkpoint.containers import SAFETENSORS
from snnprune.data.batches import copy_batch, describe_batch, iter_tensors, map_tensors
from snnprune.errors import InputError, NonFiniteError
from snnprune.graph.network import Layer, Network
from snnprune.graph.state import unwrap, use_eval_mode
from snnprune.jobs.check import count_rows
from snnprune.jobs.prune.methods import MethodChoice
from snnprune.jobs.targets.binding import load_tensors
from snnprune.jobs.targets.opening import build_module, read_example
from snnprune.jobs.targets.target import Target
from snnprune.masks import Masks, apply_masks
from snnprune.models import build_model, read_argument
from snnprune.plugins.user_code import guard_user_code
from snnprune.pruning.prune import PruneResult
from snnprune.pruning.repair import TuneOutcome
from snnprune.pruning.repair.quantize import IntegerWeight, Quantized
from snnprune.pruning.structure import Shapes
from snnprune.pruning.structure.channels import RemovedChannels
from snnprune.pruning.structure.compact import Layers, find_smaller_shapes, resize_module, slim
from snnprune.report.verdicts import RowCounts
from snnprune.runtime import make_generator

IMAGES = 32
"""On which the two are compared; a loader of the user's gives its first batch."""
TOLERANCE = 1e-5
"""Of outputs and currents in float64, relative to the largest of them."""
IN_FLOAT = 1e-3
"""The same where the network does not run in float64: rounding may flip a spike."""


@dataclass(frozen=True, kw_only=True)
class PrunedModel:
    """A pruned network: its masks and all tensors of its file."""

    cut: PruneResult
    tensors: dict[str, Tensor]
    choice: MethodChoice
    """How it was pruned, and why so."""
    tuned: TuneOutcome | None = None
    """What tuning was done."""
    quantized: Quantized | None = None
    """The integers of the weights, where they were asked for."""
    removed: RemovedChannels | None = None
    """Whole channels that are gone, where they were to go."""
    small: CompactModel | None = None
    """The same without channels that are gone, which is written then."""
    notes: tuple[str, ...] = ()
    """Why there is none, where channels were to go."""

    @property
    def channels(self) -> Mapping[str, dict[str, int]]:
        """Of layers that lost whole channels: how many are kept of how many, by weight key."""
        return {} if self.removed is None else self.removed.counts()

    def count_rows(self, network: Network | None) -> dict[str, RowCounts]:
        """Of each layer's output channels, without those that are gone from the file."""
        if self.small is not None:
            return count_rows(self.small.masks, None)
        return count_rows(self.cut.masks, network)


def build_and_load_tensors(
    target: Target, masks: Masks, changed: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The file's tensors, pruned and repaired, which the target's network is left holding.

    `changed` are those of the network that are not as they were, by state-dict key. What no repair
    touched is taken from the file itself, in its own type.

    Raises:
        NonFiniteError: a value does not fit into the type that the file keeps it in.
    """
    # a parameter that has two names in the file is pruned under both
    tied = target.prunable.find_tied()
    all_masks = {name: mask for key, mask in masks.items() for name in tied.get(key, (key,))}
    tensors = apply_masks(target.checkpoint.tensors, all_masks)
    network = target.network
    for key in all_masks if network is None else _iter_repairable(network.module):
        if key in changed and key in tensors:
            tensors[key] = _convert_to_stored(changed[key], tensors[key], all_masks.get(key), key)
    if network is not None:
        load_tensors(network.module, tensors)  # what is measured now is what the file will hold
    return tensors


def list_integers_by_name(target: Target, quantized: Quantized) -> dict[str, IntegerWeight]:
    """The integers of each weight by key, under all names that it has in the file."""
    tied, names = target.prunable.find_tied(), target.checkpoint.tensors
    return {
        name: held
        for key, held in quantized.weights.items()
        for name in tied.get(key, (key,))
        if name in names
    }


def require_exact(
    integers: Mapping[str, IntegerWeight], tensors: Mapping[str, Tensor], *, file: Path
) -> None:
    """Refuse grids that the file's own type is too coarse for.

    Raises:
        InputError: the integers cannot be read back from a weight.
    """
    for key, held in integers.items():
        stored = tensors[key].reshape(held.integers.shape).double()
        if not torch.equal((stored / held.scale.double()).round(), held.integers.double()):
            raise InputError(
                f"a grid of so many bits does not fit into {str(tensors[key].dtype)[6:]}",
                file=file,
                field=key,
                hint="choose fewer --bits, or convert the checkpoint to float32",
            )


def slim_integers(
    network: Network, integers: Mapping[str, IntegerWeight], removed: RemovedChannels
) -> dict[str, IntegerWeight]:
    """The same without the channels that are gone."""
    cut = slim(network, {key: one.integers for key, one in integers.items()}, removed)
    spread = {key: one.scale.expand_as(one.integers) for key, one in integers.items()}
    scales = slim(network, spread, removed)
    for key, one in integers.items():
        for axis in (axis for axis, size in enumerate(one.scale.shape) if size == 1):
            scales[key] = scales[key].narrow(axis, 0, 1)
    return {
        key: IntegerWeight(integers=cut[key], scale=scales[key].contiguous()) for key in integers
    }


def _iter_repairable(module: nn.Module) -> Iterator[str]:
    """What a repair may change: parameters and running statistics, but no state of a neuron."""
    yield from (name for name, _ in module.named_parameters(remove_duplicate=False))
    names = [name for name, _ in module.named_buffers(remove_duplicate=False)]
    yield from (name for name in names if name.endswith(("running_mean", "running_var")))


def _convert_to_stored(repaired: Tensor, before: Tensor, mask: Tensor | None, key: str) -> Tensor:
    """A tensor in the type that the file keeps it in; 0 where it is pruned."""
    if mask is not None:
        repaired = torch.where(mask, repaired, torch.zeros_like(repaired))
    if torch.equal(repaired, before.to(repaired.dtype)):
        return before
    stored = repaired.to("cpu", before.dtype, copy=True).reshape(before.shape)
    if not bool(is_finite(stored).all()):
        raise NonFiniteError(
            f"does not fit into {str(before.dtype).removeprefix('torch.')} after repair",
            field=key,
            hint="choose --repair none, or convert the checkpoint to float32",
        )
    return stored


@dataclass(frozen=True, kw_only=True)
class CompactModel:
    """A network without the channels that are gone."""

    tensors: dict[str, Tensor]
    masks: dict[str, Tensor]
    shapes: Shapes
    """Of the tensors that are not as large as the model's own code makes them."""


def require_smaller(out: Path) -> None:
    """Refuse a file that cannot be without the channels that have to go.

    Raises:
        InputError: it is no .safetensors file.
    """
    if out.suffix.lower() not in SAFETENSORS:
        raise InputError(
            "whole channels have to go, and only a .safetensors file can say which are gone",
            field="--out",
            hint=f"name it {out.stem}.safetensors",
        )


def build_compact_model(
    target: Target, whole: Mapping[str, Tensor], masks: Masks, removed: RemovedChannels
) -> CompactModel:
    """The network with `whole` tensors, without the channels that are gone from them.

    Raises:
        InputError: something reads the channels in a way that cannot be cut, the smaller network
            does not run, or it does something else.
    """
    network = target.network
    assert network is not None
    cut = slim(network, whole, removed)
    shapes = find_smaller_shapes(_build_fresh(target), cut)
    small = CompactModel(tensors=cut, masks=slim(network, masks, removed), shapes=shapes)
    _require_same(target, whole, small, removed)
    return small


def warn_of_masks(error: InputError) -> str:
    """A warning that there is no smaller network, with the reason in one line."""
    why = str(error.message).partition("\n")[0]
    where = f"{error.field}: " if error.field and not error.field.startswith("-") else ""
    return "the file keeps the network's shapes, with zeros where channels are gone: " + where + why


def _build_fresh(target: Target) -> nn.Module:
    """The module as its code makes it."""
    assert target.spec is not None
    assert target.network is not None
    module = unwrap(build_model(target.spec))
    held = {id(one) for one in target.network.module.parameters()}
    if any(id(one) in held for one in module.parameters()):
        raise InputError(f"{target.spec.name} gives the same module at each call")
    return module


def _require_same(
    target: Target, whole: Mapping[str, Tensor], small: CompactModel, removed: RemovedChannels
) -> None:
    """Run both networks on calibration images."""
    x, kept = _make_example(target), _find_kept_channels(removed)
    try:
        with use_double():
            ran = [one.double() for one in _build_both(target, whole, small)]
            pairs, tolerance = (
                _compare_networks(target, ran, map_tensors(_convert_to_double, x), kept),
                TOLERANCE,
            )
    except InputError:  # code that asks for float32, or that cannot run at this size
        ran = _build_both(target, whole, small)
        pairs, tolerance = _compare_networks(target, ran, x, kept), IN_FLOAT
    for name, one, other in pairs:
        if not _is_close(one, other, tolerance):
            raise InputError(f"{name} not the same without these channels")


def _build_both(
    target: Target, whole: Mapping[str, Tensor], small: CompactModel
) -> list[nn.Module]:
    """The whole network and the small one, new and at rest."""
    assert target.spec is not None
    modules = (
        build_module(target.spec, target.checkpoint),
        resize_module(_build_fresh(target), small.shapes),
    )
    for module, held in zip(modules, (whole, small.tensors), strict=True):
        load_tensors(module, held)
    return [module.to(target.device) for module in modules]


OutputPairs = list[tuple[str, Tensor, Tensor]]


def _compare_networks(
    target: Target, modules: list[nn.Module], x: Any, kept: Mapping[str, Tensor]
) -> OutputPairs:
    """What both networks put out, and the currents of their layers by channel, side by side."""
    assert target.network is not None
    found = []
    for module in modules:
        with _record_currents(module, target.network.layers) as sums:
            found.append((_run_network(target, module, x), sums))
    (whole, currents), (part, fewer) = found
    if [one.shape for one in whole] != [one.shape for one in part]:
        raise InputError("what it puts out has other shapes without these channels")
    pairs = [("what it puts out is", one, other) for one, other in zip(whole, part, strict=True)]
    for key, current in currents.items():
        stay = kept.get(key, torch.ones(len(current), dtype=torch.bool))
        if len(stay) == len(current):  # else its channels lie elsewhere in what its module gives
            same = current[stay.to(current.device)]
            pairs.append((f"the current of {key} is", same, fewer[key]))
    return pairs


def _run_network(target: Target, module: nn.Module, x: Any) -> list[Tensor]:
    assert target.network is not None
    forward = target.network.forward
    what = f"running it without these channels on {describe_batch(x)}"
    with torch.random.fork_rng(), guard_user_code(what, field="--model"):
        torch.manual_seed(target.options.seed)  # for what it draws
        with torch.no_grad(), use_eval_mode(module):
            return [*iter_tensors(forward(module, copy_batch(x, target.device)))]


@contextlib.contextmanager
def _record_currents(module: nn.Module, layers: Mapping[str, Layer]) -> Iterator[dict[str, Tensor]]:
    """Sums of |current| by channel (C,) over all else, by weight key, of what the block runs."""
    sums: dict[str, Tensor] = {}

    def watch(key: str, axis: int) -> Any:
        def add(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                by_channel = output.double().abs().movedim(axis, -1).flatten(0, -2).sum(0)
                sums[key] = sums.get(key, 0) + by_channel

        return _find_owner(module, key).register_forward_hook(add)

    hooks = [
        watch(key, layer.current_axis)
        for key, layer in layers.items()
        if isinstance(_find_owner(module, key), Layers)
    ]
    try:
        yield sums
    finally:
        for hook in hooks:
            hook.remove()


def _find_owner(module: nn.Module, key: str) -> nn.Module:
    return module.get_submodule(key.rpartition(".")[0])


def _find_kept_channels(removed: RemovedChannels) -> dict[str, Tensor]:
    return {key: removed.of(group) for group in removed.groups for key in group.layers}


def _is_close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    if one.shape != other.shape:
        return False
    scale = max(1.0, float(one.double().abs().max())) if one.numel() else 1.0
    return torch.allclose(one.double(), other.double(), rtol=0, atol=tolerance * scale)


def _make_example(target: Target) -> Any:
    """Some images, or noise where there are none."""
    assert target.spec is not None
    if target.data is not None:
        found = read_example(target.spec, target.data, target.device, count=IMAGES)
        assert found is not None
        return found.x
    channels, size = (read_argument(target.spec, name) for name in ("in_channels", "size"))
    drawn = make_generator(target.options.seed, "example")
    return torch.rand(2, channels, size, size, generator=drawn).to(target.device)


def _convert_to_double(one: Any) -> Any:
    return one.double() if isinstance(one, Tensor) and one.is_floating_point() else one


@contextlib.contextmanager
def use_double() -> Iterator[None]:
    """float64 in place of float32 for all that the block asks of torch."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _DoubleMode():
            yield
    finally:
        torch.set_default_dtype(before)


class _DoubleMode(TorchFunctionMode):
    """float64 wherever code asks for float32, as `(membrane > 0).float()` does."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        asked = torch.Tensor.double if func is torch.Tensor.float else func
        named = {key: _replace_float32(value) for key, value in (kwargs or {}).items()}
        return asked(*map(_replace_float32, args), **named)


def _replace_float32(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value
