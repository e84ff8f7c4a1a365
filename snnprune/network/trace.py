"""Finding the links of any network in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.batches import copied
from snnprune.errors import InputError
from snnprune.network.feeding import device_of
from snnprune.network.following import Follower, Observers
from snnprune.network.libraries import library_of
from snnprune.network.linking import chosen, link_of, names_of, renamed, unique, united
from snnprune.network.links import Layer, Network, Neuron
from snnprune.network.mode import evaluating
from snnprune.network.operations import LayerCall
from snnprune.network.origins import Origin
from snnprune.network.rest import at_rest
from snnprune.network.sites import COMPARISON, Site
from snnprune.network.walking import Term, recurrent, terms
from snnprune.network.wrappers import bare


@torch.no_grad()
def trace(
    module: nn.Module,
    example: Any,
    *,
    run: Callable[[nn.Module, Any], Any] = lambda module, x: module(x),
    links: Mapping[str, str] | None = None,
) -> Network:
    """The links of `module`, from one forward pass over `example` (a batch as it is fed to it).

    Where a layer drives several neurons, `links` may name, by weight key, the only one that counts,
    or "none". A module inside DataParallel or torch.compile is taken out of it.

    Raises:
        InputError: no spiking neuron is found, one weight is used in two ways, or `links` names
            what is not there.
    """
    module = bare(module)
    example = copied(example, device_of(module))  # a forward may work in place
    seen = _Seen(module)
    known = {n: _neuron(n, m) for n, m in module.named_modules() if library_of(m) is not None}
    with evaluating(module), at_rest(Network(module=module, neurons=known)) as reset:
        reset()
        with seen.follower.following(scripts=True):
            seen.finish(run(module, example))
    return chosen(seen.network(), links or {})


class _Seen:
    """What is met on the pass."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.layers: dict[str, Layer] = {}
        self.made: dict[str, str] = {}
        self.drives: dict[str, list[Term]] = {}
        self.entering: dict[str, list[str | None]] = {}
        """Neurons whose spikes enter each layer."""
        self.put_out: list[str | None] = []
        """Neurons whose spikes are the output."""
        self.sources: dict[str, bool] = {}
        """Neurons whose spikes reach a layer or the output; whether something else has a say."""
        self.follower = Follower(
            module,
            Observers(on_layer=self.on_layer, on_made=self.on_made, on_drive=self.on_drive),
        )

    def on_layer(self, weight: str, call: LayerCall, neuron: str | None) -> None:
        origins = self.follower.origins(call.input)
        fed = neuron is not None or any(origin.fed for origin in origins)
        if neuron is not None:
            self.drives.setdefault(neuron, []).append(recurrent(weight))
        for neuron, gated in united(origins).items():
            self.sources[neuron] = self.sources.get(neuron, False) or gated
        layer = Layer(
            weight=weight,
            kind=call.kind,
            shape=tuple(call.weight.shape),
            groups=call.groups,
            encoding=not fed,
        )
        found = (term.neuron for origin in origins for term in terms(origin))
        self.entering.setdefault(weight, []).extend(found)
        before = self.layers.get(weight, layer)
        if replace(before, encoding=layer.encoding) != layer:
            raise InputError(
                f"is used in two ways: {_use_of(before)} and {_use_of(layer)}", field=weight
            )
        # at the first time step it may be fed with nothing yet
        self.layers[weight] = replace(layer, encoding=layer.encoding and before.encoding)

    def on_made(self, parameters: list[str], how: str, weight: Tensor) -> None:
        shapes = {key: self.module.get_parameter(key).shape for key in parameters}
        alike = [key for key, shape in shapes.items() if shape == weight.shape]
        self.made.update(dict.fromkeys(alike or parameters, how.lstrip("_")))

    def on_drive(self, neuron: str, inputs: tuple[Origin, ...]) -> None:
        found = self.drives.setdefault(neuron, [])
        found += [term for origin in inputs for term in terms(origin)]

    def finish(self, output: Any) -> None:
        # a membrane may be put out beside the spikes
        origins = self.follower.origins(output)
        self.put_out = [term.neuron for origin in origins for term in terms(origin)]
        for neuron, gated in united(origins).items():
            self.sources.setdefault(neuron, gated)

    def network(self) -> Network:
        """The links that were seen.

        Raises:
            InputError: as `trace`.
        """
        sites = [site for site in self.follower.sites.found if site.key in self.sources]
        homes = {site.key: self._home(site, sites) for site in sites}
        names = names_of(sites, homes)
        neurons = {
            **{name: (found, None) for name, found in self.drives.items()},
            **{names[site.key]: (renamed(site.terms, names), site) for site in sites},
        }
        if not self.layers:
            raise InputError(
                "no layer was used in the forward pass",
                field="--model",
                hint="does the function call the network? module types: "
                + ", ".join(_module_types(self.module)),
            )
        if not neurons:
            raise InputError(
                "no spiking neuron found in the network",
                field="--model",
                hint="nothing that comes from a layer is compared with a threshold; module types: "
                + ", ".join(_module_types(self.module)),
            )
        layers = {
            key: replace(layer, sources=unique(names.get(n or "", n) for n in self.entering[key]))
            for key, layer in self.layers.items()
        }
        for name, (found, site) in neurons.items():
            for key in unique(term.layer for term in found):
                ways = [term for term in found if term.layer == key]
                link = link_of(name, ways, homes[site.key] if site else "")
                layers[key] = replace(layers[key], links=(*layers[key].links, link))
        return Network(
            module=self.module,
            layers=layers,
            neurons={
                name: self._neuron(name, renamed(found, names), site, homes, neurons)
                for name, (found, site) in neurons.items()
            },
            outputs=unique(names.get(n or "", n) for n in self.put_out),
            made=self.made,
        )

    def _neuron(
        self,
        name: str,
        found: list[Term],
        site: Site | None,
        homes: Mapping[str, str],
        known: Collection[str],
    ) -> Neuron:
        module = self.module.get_submodule(homes[site.key] if site else name)
        return replace(
            _neuron(name, module, site),
            gated=site is not None and self.sources[site.key],
            feeders=unique(term.layer for term in found),
            # its own state may come back to it as an argument
            identities=unique(
                term.neuron for term in found if term.neuron in known and term.neuron != name
            ),
        )

    def _home(self, site: Site, sites: list[Site]) -> str:
        """The outermost module around a site that has no layer and no other site; "" if none is."""
        home = ""
        for name in reversed(site.place.inside):
            below = f"{name}." if name else ""
            shared = any(name in other.place.inside for other in sites if other is not site)
            if shared or any(key.startswith(below) for key in self.layers):
                break
            home = name
        return home


def _neuron(name: str, module: nn.Module, site: Site | None = None) -> Neuron:
    library = COMPARISON if site else library_of(module)
    assert library is not None
    constants = library.constants(module)
    if site:
        constants = replace(constants, fires_at_threshold=site.also_equal)
    return Neuron(
        name=name,
        module=module,
        library=library,
        constants=constants,
        site=site.index if site else None,
    )


def _use_of(layer: Layer) -> str:
    return f"{layer.kind} of {layer.groups} groups"


def _module_types(module: nn.Module) -> list[str]:
    return sorted({type(child).__name__ for child in module.modules()})[:12]
