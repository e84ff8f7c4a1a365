"""Putting a parametrization on a weight of any network, and taking it off without a trace."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from snnprune.checkpoint.folding import MASK, ORIGINAL
from snnprune.errors import InputError
from snnprune.network import Network

PLAIN = "a search needs plain parameters: give the network as it is before that"


@contextlib.contextmanager
def parametrized(owner: nn.Module, name: str, part: nn.Module) -> Iterator[None]:
    """`owner.name` is what `part` makes of it, in the block."""
    order = list(owner._parameters)
    parametrize.register_parametrization(owner, name, part)
    # a class of torch's would hide from `network.at_rest` that the states in it are a user's
    type(owner).__module__ = type(owner).__bases__[0].__module__
    try:
        yield
    finally:
        parametrize.remove_parametrizations(owner, name, leave_parametrized=False)
        for each in order:  # it came back as the last
            owner._parameters[each] = owner._parameters.pop(each)


def place_of(module: nn.Module, key: str) -> tuple[nn.Module, str]:
    """The module that holds a parameter, and the parameter's name in it."""
    path, _, name = key.rpartition(".")
    return module.get_submodule(path), name


def places_of(module: nn.Module, names: Iterable[str]) -> list[tuple[nn.Module, str]]:
    """Where a parameter is held; a module that has several names itself counts once."""
    places = [place_of(module, name) for name in names]
    return list({(id(owner), name): (owner, name) for owner, name in places}.values())


def require_plain(network: Network) -> None:
    """Refuse weights that are not plain parameters with values.

    Raises:
        InputError: one is lazy, made of others, masked or compiled to TorchScript.
    """
    for key, parameter in network.module.named_parameters():
        if is_lazy(parameter):
            raise InputError("has no shape yet", field=key, hint="run a batch through it first")
    for key, how in network.made.items():
        raise InputError(f"is made by {how}", field=key, hint=PLAIN)
    for key in network.layers:
        if reason := _obstacle(*place_of(network.module, key)):
            raise InputError(reason, field=key, hint=PLAIN)


def _obstacle(owner: nn.Module, name: str) -> str | None:
    if isinstance(owner, parametrize.ParametrizationList):
        return "is parametrized already"
    if name.endswith(ORIGINAL) and hasattr(owner, name.removesuffix(ORIGINAL) + MASK):
        return "is masked by torch.nn.utils.prune"
    if isinstance(owner, torch.jit.ScriptModule):
        return "belongs to a module of TorchScript"
    return None
