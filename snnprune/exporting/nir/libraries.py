"""Each library's own exporter, called as the versions at hand need it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from snnprune.checkpoint.naming import first_few
from snnprune.errors import InputError
from snnprune.exporting.nir.graph import completed
from snnprune.exporting.packages import NEEDED, required, speaking
from snnprune.exporting.running import Running

WHAT_IT_TAKES = "docs/exporting.md says what each library exports"
PER_NEURON = ("alpha", "beta", "threshold")


def _snntorch(seen: Running) -> Any:
    """NIR has a number for each neuron; snnTorch exports one for all of them as it is."""
    for name, neuron in seen.network.neurons.items():
        shape = seen.outputs[name].shape[1:]
        for constant in PER_NEURON:
            _spread(neuron.module, constant, shape)
    export = required("snntorch.export_nir", to="nir").export_to_nir
    return export(seen.module, seen.sample, ignore_dims=[0])


def _spread(neuron: nn.Module, name: str, shape: torch.Size) -> None:
    held = getattr(neuron, name, None)
    if isinstance(held, torch.Tensor) and held.numel() == 1:
        whole = held.detach().reshape(()).expand(shape).clone()
        setattr(neuron, name, nn.Parameter(whole) if isinstance(held, nn.Parameter) else whole)


def _spikingjelly(seen: Running) -> Any:
    export = required("spikingjelly.activation_based.nir_exchange", to="nir").export_to_nir
    return export(seen.module, seen.sample)


def _sinabs(seen: Running) -> Any:
    return completed(required("sinabs.nir", to="nir").to_nir(seen.module, seen.sample), seen)


def _norse(seen: Running) -> Any:
    export = required("norse.torch.utils.export_nir", to="nir").to_nir
    return completed(export(seen.module, seen.sample), seen)


EXPORTERS: dict[str, Callable[[Running], Any]] = {
    "snnTorch": _snntorch,
    "SpikingJelly": _spikingjelly,
    "sinabs": _sinabs,
    "norse": _norse,
}


def graph_of(seen: Running) -> Any:
    """The network as its own library exports it.

    Raises:
        InputError: no library or several, or it cannot.
    """
    _require_no_batchnorm(seen.module)
    library = _library_of(seen)
    for package in NEEDED["nir"]:
        required(package, to="nir")
    with speaking(library, to="nir", hint=WHAT_IT_TAKES):
        return EXPORTERS[library](seen)


def _library_of(seen: Running) -> str:
    names = {neuron.library.name for neuron in seen.network.neurons.values()}
    if strange := [
        n for n, one in seen.network.neurons.items() if one.library.name not in EXPORTERS
    ]:
        raise InputError(
            f"no library exports the neurons {first_few(strange)}",
            field="--to nir",
            hint=f"those of {', '.join(EXPORTERS)} can be exported",
        )
    if len(names) > 1:
        raise InputError(
            f"no exporter takes neurons of {' and '.join(sorted(names))} at once", field="--to nir"
        )
    return names.pop()


def _require_no_batchnorm(module: nn.Module) -> None:
    norms = [name for name, part in module.named_modules() if isinstance(part, _BatchNorm)]
    if norms:
        raise InputError(
            f"NIR has no BatchNorm (modules {first_few(norms)})",
            field="--to nir",
            hint="fold each into the layer before it (torch.nn.utils.fusion.fuse_conv_bn_eval "
            "keeps zeros) and export that network",
        )
