"""What exporters of other programs need: their packages, and a network to hold a file against.

A file has to hold the weights of the network, zeros and all, and its outputs.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.checkpoint.checkpoint import find_prunable_weights
from snnprune.data.batches import copy_batch
from snnprune.errors import InputError, SnnpruneError, says_out_of_memory
from snnprune.graph.libraries import use_plain_operations
from snnprune.graph.network import Network

NEEDED = {
    "nir": ("nir", "nirtorch"),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "lava": ("h5py",),
}
"""By format."""

PRINTED = re.compile(r"^\[WARNING\] *(.+)$", re.MULTILINE)  # what snnTorch says of what it drops


def import_package(name: str, *, to: str) -> Any:
    """The module of that name.

    Raises:
        InputError: a package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or name).partition(".")[0]
        known = NEEDED[to] if missing in NEEDED[to] else (missing,)
        raise InputError(
            f"needs the package {missing}",
            field=f"--to {to}",
            hint=f"pip install {' '.join(known)}",
        ) from None


@contextlib.contextmanager
def convert_package_errors(who: str, *, to: str, hint: str | None = None) -> Iterator[None]:
    """Turn whatever a package of somebody else's raises into an error that has its words.

    What it prints is kept off the screen: only of what went wrong is it worth reading.
    """
    said = io.StringIO()
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            yield
    except (SnnpruneError, OSError):
        raise
    except Exception as error:
        if says_out_of_memory(error):
            raise
        printed = "; ".join(dict.fromkeys(PRINTED.findall(said.getvalue())))
        raise InputError(
            f"{who} says: {printed or _first_paragraph(error)}", field=f"--to {to}", hint=hint
        ) from error


def _first_paragraph(error: Exception) -> str:
    """Its first paragraph, in one line."""
    text = str(error).strip().split("\n\n")[0]
    return f"{type(error).__name__}: {' '.join(text.split())}".rstrip(".: ")


@dataclass(frozen=True, kw_only=True)
class RecordedNetwork:
    """A network, and the first call of each of its modules in a pass."""

    network: Network
    fed: Any = None
    """The batch, as the data has it."""
    blank: bool = False
    """Whether that is a blank picture, for want of data."""
    inputs: dict[str, Tensor] = field(default_factory=dict)
    """By the name of the module; "" is the network. The first tensor of several."""
    outputs: dict[str, Tensor] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    """Modules whose input was changed in place after another had put it out."""
    called: Counter[str] = field(default_factory=Counter)
    """How often each module was."""
    put_out: dict[int, tuple[Tensor, int]] = field(default_factory=dict)
    """During the pass: outputs, held so that no id is used twice, and their versions."""

    @property
    def module(self) -> nn.Module:
        """The network's module, in eval mode."""
        return self.network.module

    @property
    def sample(self) -> Tensor:
        """A batch as the module itself gets it, whatever `--forward` makes of the data."""
        return self.inputs[""]

    @property
    def calls(self) -> int:
        """How often the network was called for one batch."""
        return self.called[""]

    @property
    def batch_dims(self) -> int:
        """How many dimensions a batch has in front of a sample's own, at the first layer."""
        key, layer = next(iter(self.network.layers.items()))
        entered = self.inputs.get(key.rpartition(".")[0], self.sample)
        own = len(layer.shape) - 1  # (in) of a linear layer, (in, *place) of a convolution
        return entered.dim() - own


@torch.no_grad()
def record_first_calls(network: Network, x: Any) -> RecordedNetwork:
    """What the network does on `x`, from rest; it is left at rest.

    Raises:
        InputError: the way to run it never calls the network with a tensor.
    """
    seen = RecordedNetwork(network=network, fed=copy_batch(x))  # it may work in place
    with (
        use_plain_operations(network.module),
        network.reset_between_batches() as reset,
        _record_calls(seen),
    ):
        reset()
        network.run(x)
    if "" not in seen.inputs:
        raise InputError("never calls the model with a tensor", field="--forward")
    return seen


@contextlib.contextmanager
def _record_calls(seen: RecordedNetwork) -> Iterator[None]:
    hooks = []
    for name, module in seen.module.named_modules():
        hooks.append(module.register_forward_pre_hook(partial(_on_input, seen, name)))
        hooks.append(module.register_forward_hook(partial(_on_output, seen, name)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        seen.put_out.clear()


def _on_input(seen: RecordedNetwork, name: str, _: nn.Module, args: tuple[Any, ...]) -> None:
    seen.called[name] += 1
    x = args[0] if args else None
    if name in seen.inputs or not isinstance(x, Tensor):
        return
    seen.inputs[name] = x.detach().clone()  # later code may work in place
    if x._version != seen.put_out.get(id(x), (x, x._version))[1]:
        seen.changed.append(name)


def _on_output(seen: RecordedNetwork, name: str, _: nn.Module, __: Any, output: Any) -> None:
    y = output[0] if isinstance(output, tuple) and output else output
    if isinstance(y, Tensor):
        seen.put_out[id(y)] = (y, y._version)
        seen.outputs.setdefault(name, y.detach().clone())


@dataclass(frozen=True, kw_only=True)
class LayerValues:
    """Of one layer, as it was before anything was exported."""

    weight: Tensor
    bias: Tensor | None


def copy_layer_values(network: Network) -> dict[str, LayerValues]:
    """A copy of what each layer holds, by weight key."""
    own = dict(network.module.named_parameters(remove_duplicate=False))
    biases = {key: own.get(f"{key.removesuffix('weight')}bias") for key in network.layers}
    return {
        key: LayerValues(
            weight=network.weight(key).cpu().clone(),
            bias=None if bias is None else bias.detach().cpu().clone(),
        )
        for key, bias in biases.items()
    }


def require_weights(
    found: Mapping[str, Tensor], layers: Mapping[str, LayerValues], *, what: str = "graph"
) -> None:
    """Every layer's weight is in `found` once, value for value, and with it its bias.

    Raises:
        InputError: one is missing, another, or there more often.
    """
    places = find_prunable_weights(found)
    for key, layer in layers.items():
        same = [place for place in places if _is_equal(layer.weight, found[place])]
        alike = sum(_is_equal(layer.weight, other.weight) for other in layers.values())
        if len(same) < alike:
            raise InputError(
                f"is not in the {what} as it is", field=key, hint="its library changed or lost it"
            )
        if len(same) > alike:
            raise InputError(
                f"is {len(same)} times in the {what}",
                field=key,
                hint="a loop over time was unrolled: export a network for one step, or let "
                "--forward loop",
            )
        beside = (found.get(f"{place.removesuffix('weight')}bias") for place in same)
        if not any(_is_same_bias(layer, bias) for bias in beside):
            raise InputError(f"has another bias in the {what}", field=key)


def _is_same_bias(layer: LayerValues, given: Tensor | None) -> bool:
    """Zeros are no bias."""
    if layer.bias is None or given is None:
        return all(bias is None or not bias.any() for bias in (layer.bias, given))
    return _is_equal(layer.bias, given)


def _is_equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.double(), other.double())
