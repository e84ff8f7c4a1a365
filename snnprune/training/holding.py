"""Masks held in a training loop that is somebody else's: after each step of an optimizer.

`snnprune.hold_masks` for a loop of one's own, `snnprune.MaskCallback` for Lightning's Trainer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn, optim

from snnprune.checkpoint.checkpoint import find_prunable_weights
from snnprune.checkpoint.mask_file import read_masks
from snnprune.errors import InputError, UsageError, did_you_mean, format_count, format_percent
from snnprune.graph.state import unwrap
from snnprune.masks import Masks, count_prunable, count_pruned
from snnprune.training.weights import MaskKeeper

WRAPPED = ("_orig_mod", "module")
"""Parts of keys that torch.compile and the parallel wrappers put in."""


class HasMasks(Protocol):
    """What `snnprune.prune_model` gives back."""

    masks: Masks


MaskSource = Masks | HasMasks | str | Path | None
"""Masks, a result that has some, their file, or None: where the weights are 0 now."""


class MaskHolder:
    """Keeps pruned weights at 0; see `hold_masks`."""

    def __init__(self, module: nn.Module, masks: Masks) -> None:
        """`masks` are by the keys of `module`, True = kept; from now on its weights are masked."""
        self._keeper = MaskKeeper(module)
        self._hooks: list[Any] = []
        self._keeper.set(masks)
        for key in masks:
            weight = module.get_parameter(key)
            if weight.requires_grad:
                # so that a norm which is clipped is that of the weights that are kept
                clear = partial(self._clear_gradient, key)
                self._hooks.append(weight.register_post_accumulate_grad_hook(clear))

    @property
    def masks(self) -> dict[str, Tensor]:
        """Bool by weight key, True = kept, on the CPU."""
        return self._keeper.copy_masks()

    @property
    def sparsity(self) -> float:
        """The share of the masked weights that is pruned."""
        masks = self._keeper.held
        return count_pruned(masks) / count_prunable(masks)

    def attach(self, optimizer: optim.Optimizer) -> None:
        """Mask weights, and what `optimizer` remembers of them, after each of its steps."""

        def mask(stepped: optim.Optimizer, *_: Any) -> None:
            self._follow()
            self._keeper.enforce(stepped)

        def clear(*_: Any) -> None:
            self._follow()
            self._keeper.clear_gradients()

        self._hooks.append(optimizer.register_step_pre_hook(clear))
        self._hooks.append(optimizer.register_step_post_hook(mask))

    def apply(self) -> None:
        """Mask the weights now, as after loading others."""
        self._keeper.set(self._keeper.held)

    def release(self) -> None:
        """Let go: nothing of it is left in the network or its optimizers; the zeros are."""
        while self._hooks:
            self._hooks.pop().remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        held = self._keeper.held
        state = "held" if self._hooks else "released"
        layers = format_count(len(held), "layer")
        return f"<MaskHolder: {format_percent(self.sparsity)} pruned in {layers}, {state}>"

    def _clear_gradient(self, key: str, weight: Tensor) -> None:
        if weight.grad is not None:
            weight.grad.masked_fill_(~self._keeper.held[key].to(weight.device), 0.0)

    def _follow(self) -> None:
        """Bring the masks where the weights are, which may have been moved."""
        held = self._keeper.held
        if any(self._keeper.module.get_parameter(k).device != m.device for k, m in held.items()):
            self.apply()


def hold_masks(
    model: nn.Module, masks: MaskSource = None, *optimizers: optim.Optimizer
) -> MaskHolder:
    """Keep pruned weights at 0 while a loop of yours trains the others.

        with snnprune.hold_masks(result.model, result, optimizer):
            for x, y in loader:
                ...

    From now on, and until the block ends or `release` is called, pruned weights and what the
    optimizers remember of them are 0 after each step, and no gradient reaches them. Steps may be
    few, as with accumulated gradients, left out by a GradScaler, or of several optimizers.

    Args:
        model: also inside DataParallel, DistributedDataParallel or `torch.compile`.
        masks: True = kept, by weight key; a result of `prune_model`; a `.mask.safetensors` file; or
            None: what is 0 in the weights of the model as they are.
        optimizers: those that train the weights; `attach` takes more.

    Raises:
        UsageError: something is none of these, or nothing is pruned.
        InputError: the file cannot be read, or a mask fits no weight of the model.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"a {type(model).__name__} is no torch.nn.Module", field="model")
    for one in optimizers:
        if not isinstance(one, optim.Optimizer):
            raise UsageError(f"a {type(one).__name__} is no optimizer", field="optimizers")
    holder = MaskHolder(unwrap(model), _fit_masks(_read_masks(masks, model), unwrap(model)))
    for one in optimizers:
        holder.attach(one)
    return holder


def _read_masks(masks: MaskSource, model: nn.Module) -> Masks:
    if masks is None:
        return _find_zeros(unwrap(model))
    if isinstance(masks, str | Path):
        return read_masks(Path(masks))
    found = masks if isinstance(masks, Mapping) else getattr(masks, "masks", None)
    if not isinstance(found, Mapping) or not found:
        raise UsageError(
            f"a {type(masks).__name__} has no masks",
            field="masks",
            hint="give a result of prune_model, its .masks, or a .mask.safetensors file",
        )
    for key, mask in found.items():
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise UsageError(f"{key} is no bool tensor", field="masks", hint="True = kept")
    return found


def _find_zeros(module: nn.Module) -> Masks:
    """What is 0 in weights that can be pruned."""
    weights = dict(module.named_parameters())
    found = {
        key: weights[key].detach() != 0
        for key in find_prunable_weights({key: one.detach() for key, one in weights.items()})
    }
    if not count_pruned(found):
        raise UsageError("no weight is 0", field="masks", hint="give masks, or a pruned model")
    return found


def _fit_masks(masks: Masks, module: nn.Module) -> Masks:
    """The masks by the keys of the module: these may be longer, or wrapped, on either side.

    Raises:
        InputError: a mask fits no weight, or more than one.
    """
    weights = dict(module.named_parameters(remove_duplicate=False))
    found = {}
    for key, mask in masks.items():
        name = key if key in weights else _find_weight(key, weights)
        if mask.shape != weights[name].shape:
            raise InputError(
                f"the mask has shape {list(mask.shape)}, the weight {list(weights[name].shape)}",
                field=name,
                hint="are these the masks of this model?",
            )
        found[name] = mask
    return found


def _find_weight(key: str, weights: Iterable[str]) -> str:
    """The one weight whose key is `key` but for wrappers, and what one of them has in front."""
    wanted = _strip_wrappers(key)
    plain = {name: _strip_wrappers(name) for name in weights}
    fitting = [name for name, one in plain.items() if one == wanted] or [
        name
        for name, one in plain.items()
        if one.endswith(f".{wanted}") or wanted.endswith(f".{one}")
    ]
    if len(fitting) != 1:
        told = f"fits {' and '.join(fitting[:3])}" if fitting else "is no weight of the model"
        raise InputError(
            f"{key} {told}", field="masks", hint=None if fitting else did_you_mean(key, weights)
        )
    return fitting[0]


def _strip_wrappers(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in WRAPPED)


HOMES = ("lightning.pytorch", "pytorch_lightning")
"""Where Lightning has its Callback, by the two names that it goes by."""


class MaskCallback:
    """Holds masks while Lightning's Trainer trains; see `hold_masks` for what `masks` may be.

        trainer = Trainer(callbacks=[snnprune.MaskCallback(result)])

    It is an instance of the Callback of whichever Lightning is imported, else of one that is
    installed; without any it has the three methods that a loop of one's own may call.
    """

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """An instance of a class that Lightning takes."""
        bases = _find_callbacks()
        if bases and not issubclass(cls, bases):
            cls = type(cls.__name__, (cls, *bases), {"__module__": cls.__module__})
        return super().__new__(cls)

    def __init__(self, masks: MaskSource = None) -> None:
        super().__init__()
        self.given = masks
        self.holder: MaskHolder | None = None

    def __reduce__(self) -> tuple[type, tuple[MaskSource]]:
        """As it was made: the class that Lightning takes is found nowhere by its name."""
        return MaskCallback, (self.given,)

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Begin to hold, once weights and optimizers are as training begins with."""
        self.holder = hold_masks(pl_module, self.given, *trainer.optimizers)

    def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:  # noqa: ARG002  # Lightning's
        """Let go."""
        if self.holder is not None:
            self.holder.release()

    def on_exception(self, trainer: Any, pl_module: nn.Module, exception: BaseException) -> None:  # noqa: ARG002  # likewise
        """Let go."""
        self.on_train_end(trainer, pl_module)


def _find_callbacks() -> tuple[type, ...]:
    """The base classes of callbacks, of the Lightning that is in use."""
    loaded = [name for name in HOMES if name in sys.modules]
    there = (name for name in HOMES if find_spec(name.partition(".")[0]) is not None)
    names = loaded or [*there][:1]
    return tuple(dict.fromkeys(import_module(name).Callback for name in names))
