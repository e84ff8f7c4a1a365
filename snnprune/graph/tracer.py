"""Following a forward pass: where each tensor came from, and what happens at layers and neurons.

Every tensor carries a note of its origin; functions pass the notes on. A spiking neuron module of a
known library is opaque: what goes in is its drive, what comes out is its spikes. Layers are known
by the identity of their parameter in a call that applies a weight, so neither class nor name
matters. Where the channels of a layer are in what comes of its current is followed by numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from snnprune.graph.calls import (
    LayerCall,
    NormCall,
    find_restless_reason,
    get_other_operand,
    is_partial_index,
    name_of,
    read_comparison_call,
    read_norm_call,
)
from snnprune.graph.comparisons import ComparisonReader
from snnprune.graph.libraries import library_of
from snnprune.graph.network import NOWHERE, Gain, Norm, TraceSettings
from snnprune.graph.origins import (
    MOVES,
    PICKS,
    SCALINGS,
    SHIFTS,
    VIEWS,
    Origin,
    OriginNotes,
    list_tensors,
    make_origin,
    make_spike_origin,
)
from snnprune.graph.weight_uses import Observers, TracePass, WeightReader

NUMBERS = "_snnprune_channels"
# These are never run on the tensors of the network, which they would change.
WRITES = frozenset({"__setitem__", "__set__", "copy"})
SOME = frozenset({"index", "index_select", "flip", "roll"})
POOLING = ("pool", "interpolate", "pad", "mean", "dropout")
# What takes from a tensor its shape alone.
CONSTRUCTORS = frozenset(
    {"zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"}
    | {"randint_like", "new_zeros", "new_ones", "new_empty", "new_full", "new_tensor"}
    | {"size", "stride", "dim", "numel", "__len__"}
)
# What leaves in a tensor nothing of what was in it.
EMPTYING = frozenset({"zero", "fill", "normal", "uniform"})
# What may give back the tensor that it was given.
KEEPING = (VIEWS | MOVES) - WRITES
# What takes its values from the first argument, and from others their shape or type.
LIKE = frozenset({"to", "type_as", "view_as", "expand_as", "reshape_as", "type", "_to_copy"})


class Tracer(TorchFunctionMode):
    """Passes origins from tensor to tensor, and tells what arrives at layers and neurons."""

    def __init__(
        self,
        module: nn.Module,
        observers: Observers,
        settled: TraceSettings | None = None,
        *,
        numbering: bool = False,
    ) -> None:
        """With `numbering`, the channels of currents are followed to where they are compared."""
        super().__init__()
        self.module, self.observers = module, observers
        self.followed = TracePass(module, observers, settled or TraceSettings())
        self.notes = self.followed.notes
        self.weights = WeightReader(self.followed, self.axis)
        self.comparisons = ComparisonReader(self.followed)
        self.channels = ChannelNumbers(self.notes) if numbering else None
        self.neurons = {n: m for n, m in module.named_modules() if library_of(m) is not None}
        self.neuron: str | None = None
        """The outermost neuron module that we are inside of."""

    @property
    def watches_neurons(self) -> bool:
        """As `models.lif.native` asks: what a neuron module does inside is its own."""
        return not self.followed.depth

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.followed.depth:
            return self._run_inside_neuron(function, args, kwargs)
        if function is functional.multi_head_attention_forward:
            with self:
                return _make_transparent(function)(*args, **kwargs)
        return self._trace_call(function, args, kwargs)

    def _trace_call(self, function: Any, args: Any, kwargs: Any) -> Any:
        name = name_of(function)
        if what := find_restless_reason(function, args, kwargs):
            self.observers.on_restless(
                self.followed.inside[-1] if self.followed.inside else "", what
            )
        # before the call: it may work in place
        parents = (
            ()
            if name in CONSTRUCTORS | EMPTYING
            else self.notes.list_origins(_data_of(name, args, kwargs))
        )
        origin = self._make_origin(function, args, kwargs, parents) if parents else None
        call = read_comparison_call(function, args, kwargs)
        reached = any(parent.data for parent in parents)
        membrane = self.comparisons.membrane(call) if call and reached else None
        resting = self.comparisons.find_resting_distance(call) if call and not reached else None
        given = self._find_given(origin)
        result = function(*args, **kwargs) if given is None else given
        made = args[0] if name in ("__setitem__", "__set__") else result
        if call is not None and resting is not None and isinstance(result, Tensor):
            self.comparisons.keep(call, resting, result)
        if membrane is not None and isinstance(result, Tensor):
            origin = self.comparisons.tell_fired(membrane, result)
            self._number(function, args, kwargs, result, origin)
        elif origin is not None:
            origin = self._complete_origin(origin, function, args, kwargs, made)
        if name in EMPTYING:
            self.notes.forget(result)
        if origin is not None:
            self._note(made, origin)
            if made is not result or (args and made is args[0] and name not in KEEPING):
                self._note_whole(made, origin)
        return result

    @contextlib.contextmanager
    def trace_calls(self, *, scripts: bool) -> Iterator[None]:
        """Follow what is run in the block; with `scripts` also what TorchScript calls."""
        handles: list[Any] = []
        try:
            for name, module in self.module.named_modules():
                handles += self._hooks(name, module)
            with self, _TransparentMode() if scripts else contextlib.nullcontext():
                yield
        finally:
            for handle in handles:
                handle.remove()
            self.weights.call = None  # it is in a cycle, and what entered the last layer is large

    def apart(self) -> contextlib.AbstractContextManager[None]:
        """Follow nothing in the block."""
        return self.followed.apart()

    def start(self) -> None:
        """Begin a pass: what was met before it is forgotten."""
        self.followed.start()
        self.comparisons.start()

    def find_origins(self, tree: Any) -> tuple[Origin, ...]:
        """Where the tensors in `tree` came from, as far as it is known."""
        return self.notes.list_origins(tree)

    def axis(self, leaf: object) -> int | None:
        """Where a tensor has the channels of the layer before it, from the end."""
        if self.channels is None:
            return None
        with self.apart():
            return self.channels.axis(leaf)

    def _hooks(self, name: str, module: nn.Module) -> list[Any]:
        neuron = name in self.neurons
        enter = self._enter_neuron if neuron else self._enter
        leave = self._leave_neuron if neuron else self._leave
        if isinstance(module, ScriptModule):  # takes no hooks of its own
            return [
                register_module_forward_pre_hook(
                    lambda called, args: enter(name, args) if called is module else None
                ),
                register_module_forward_hook(
                    lambda called, _, out: leave(name, out) if called is module else None
                ),
            ]
        return [
            module.register_forward_pre_hook(
                lambda _, args, kwargs: enter(name, (args, kwargs)), with_kwargs=True
            ),
            module.register_forward_hook(lambda _, __, output: leave(name, output)),
        ]

    def _enter(self, name: str, inputs: Any) -> None:
        if not self.followed.inside:
            new = [leaf for leaf in list_tensors(inputs) if self.notes.of(leaf) is None]
            self._note(new, Origin(name="input", data=True, analog=True))
        self.followed.inside.append(name)

    def _leave(self, _: str, __: Any) -> None:
        self.followed.inside.pop()

    def _enter_neuron(self, name: str, inputs: Any) -> None:
        if not self.followed.depth:
            axes = [self.axis(leaf) for leaf in list_tensors(inputs)]
            axis = next((one for one in axes if one is not None), None)
            self.observers.on_drive(name, self.notes.list_origins(inputs), axis)
            self.neuron = name
        self.followed.depth += 1

    def _leave_neuron(self, name: str, outputs: Any) -> None:
        self.followed.depth -= 1
        if not self.followed.depth:
            self.neuron = None
            self._note(outputs, make_spike_origin(name))

    def _run_inside_neuron(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Run a call inside a neuron module, or of an observer."""
        weight = None
        if self.neuron is not None:
            weight = self.weights.tell_inside_neuron(function, args, kwargs, self.neuron)
        result = function(*args, **kwargs)
        if weight is not None:
            with self.apart():
                self.observers.on_current(weight, result)
        return result

    def _note(self, tree: Any, origin: Origin) -> None:
        leaves = list_tensors(tree)
        for leaf in leaves:
            # parts of one tensor are told apart, as its time steps
            self.notes.put(leaf, origin if len(leaves) == 1 else replace(origin))

    def _note_whole(self, made: Any, origin: Origin) -> None:
        """What is written into a part of a tensor that held nothing is in the whole of it."""
        whole = made._base if isinstance(made, Tensor) else None
        held = self.notes.of(whole)
        if whole is None or not (held is None or held.name == "__setitem__"):
            return
        parents = (origin,) if held is None else (held, origin)
        self.notes.put(
            whole, make_origin("__setitem__", parents, inside=tuple(self.followed.inside))
        )

    def _make_origin(
        self, function: Any, args: Any, kwargs: Any, parents: tuple[Origin, ...]
    ) -> Origin:
        """The origin of what a call is going to make."""
        current = self.weights.current(function, args, kwargs)
        if current is not None:
            return current
        normed = read_norm_call(function, args, kwargs)
        if normed and (key := self.notes.buffers.get(id(normed.variance))):
            with self.apart():
                self.observers.on_norm(key, normed)
            if not normed.training:  # else nothing constant describes it
                return self._trace_norm(key, normed)
        name = name_of(function)
        if name == "__getitem__" and is_partial_index(args):
            name = "index"
        made = make_origin(name, parents, inside=tuple(self.followed.inside))
        return self._make_scaled_origin(made, args, kwargs) if name in SCALINGS | SHIFTS else made

    def _find_given(self, origin: Origin | None) -> Tensor | None:
        """What an observer gives in place of running the call of a layer."""
        if origin is None or origin.layer is None:
            return None
        with self.apart():
            return self.observers.give(origin.layer)

    def _complete_origin(
        self, origin: Origin, function: Any, args: Any, kwargs: Any, result: Any
    ) -> Origin:
        """The origin, once there is what was made."""
        if isinstance(result, Tensor):
            if not origin.data:
                return self.weights.add_parameter_form(origin, function, args, kwargs, result)
            if origin.layer:
                with self.apart():
                    self.observers.on_current(origin.layer, result)
                origin = replace(origin, shape=self._find_shape(result))
            elif origin.name in PICKS and _is_as_many(args[0], result):
                origin = replace(origin, name="view")  # an index of None adds a dimension
            else:
                origin = self.comparisons.find_surrogate_spikes(origin, result)
        self._number(function, args, kwargs, result, origin)
        return origin

    def _find_shape(self, current: Tensor) -> tuple[int, ...]:
        """Of what a layer gave; with its channels in one dimension."""
        call = self.weights.call
        if call is None or call.channels is not None:
            return tuple(current.shape)
        with self.apart():
            return tuple(call.arranged(current).shape)

    def _number(self, function: Any, args: Any, kwargs: Any, result: Any, origin: Origin) -> None:
        # of spikes only where a product may add up over them, with the features first
        matrix = isinstance(result, Tensor) and result.dim() == 2
        if self.channels is None or not (origin.driven or matrix):
            return
        with self.apart():
            call = self.weights.call
            if origin.layer is None:
                self.channels.follow(function, args, kwargs, result, origin.name)
            elif call is not None:
                self.channels.begin(result, call)

    def _make_scaled_origin(self, made: Origin, args: Any, kwargs: Any) -> Origin:
        """The origin of a product, quotient, sum or difference, with the constant in it."""
        data = [leaf for leaf in list_tensors((args, kwargs)) if self._is_data(leaf)]
        if len(data) != 1:
            return made
        if made.name == "neg":
            return replace(made, gain=Gain(value=-1.0))
        other = get_other_operand(args, kwargs, data[0])
        if made.name == "div" and args and args[0] is not data[0]:
            return made  # one over it is no factor
        constant = self.notes.name_constant(other)
        if made.name in SHIFTS:
            return replace(made, constant=constant)
        gain = Gain(value=other, divides=made.name == "div")
        return replace(made, constant=constant, gain=gain)

    def _is_data(self, leaf: Any) -> bool:
        origin = self.notes.of(leaf)
        return origin is not None and origin.data

    def _trace_norm(self, key: str, call: NormCall) -> Origin:
        scale = self.notes.parameter(call.scale)
        norm = Norm(scale=scale.parameter if scale else None, variance=key, eps=call.eps)
        return make_origin("batch_norm", self.notes.list_origins(call.input), norm=norm)


def _data_of(name: str, args: Any, kwargs: Any) -> Any:
    """The arguments whose values go into what a call makes."""
    if name in LIKE:
        return (args[:1], kwargs.get("input"))
    if name in ("copy", "__set__") and len(args) > 1:
        return args[1]
    return (args, kwargs)


def _is_as_many(before: object, after: Tensor) -> bool:
    return isinstance(before, Tensor) and before.numel() == after.numel()


def _make_transparent(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, that does not ask whether somebody follows it: its parts are followed."""
    plain = cast(FunctionType, function)
    return FunctionType(
        plain.__code__,
        {**plain.__globals__, "has_torch_function": lambda _: False},
        plain.__name__,
        plain.__defaults__,
        plain.__closure__,
    )


class _TransparentMode(TorchDispatchMode):
    """Changes nothing; while it is there, a function mode also sees what TorchScript calls."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler on the first call, which takes a second

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return function(*args, **(kwargs or {}))


class ChannelNumbers:
    """Which channel of its layer each value of a current is of, whatever its shape becomes."""

    def __init__(self, notes: OriginNotes) -> None:
        self.notes = notes

    def begin(self, current: Tensor, call: LayerCall) -> None:
        """Number the channels of what a layer gives."""
        self._put(current, call.numbers(current))

    def follow(self, function: Any, args: Any, kwargs: Any, result: Any, name: str) -> None:
        """Number what an operation makes of what is numbered."""
        known = [leaf for leaf in list_tensors((args, kwargs)) if self.of(leaf) is not None]
        if not known or (name in VIEWS | MOVES and len(known) > 1 and name not in WRITES):
            return
        with torch._C.DisableTorchFunction():
            try:
                if name in WRITES:
                    self._write(args, result, name)
                else:
                    self._follow(function, args, kwargs, result, known, name)
            except (RuntimeError, TypeError, ValueError, IndexError):
                return  # then nobody can say

    def _follow(
        self, function: Any, args: Any, kwargs: Any, result: Any, known: list[Tensor], name: str
    ) -> None:
        if name not in VIEWS | MOVES | SOME:
            same = [
                one for one in known if isinstance(result, Tensor) and one.shape == result.shape
            ]
            if same:
                self._put(result, self.of(same[0]))
                return
            if not any(word in name for word in POOLING):
                return
        numbered = tree_map(self._get_numbers, (args, kwargs))
        made = function(*numbered[0], **numbered[1])
        for leaf, numbers in zip(tree_leaves(result), tree_leaves(made), strict=True):
            if isinstance(leaf, Tensor) and leaf.shape == numbers.shape:
                self._put(leaf, numbers)

    def of(self, leaf: object) -> Tensor | None:
        """The numbers of a tensor, in its shape."""
        when, numbers = getattr(leaf, NUMBERS, (None, None))
        return numbers if when is self.notes.now else None

    def _write(self, args: Any, result: Any, name: str) -> None:
        """Number what is written into a tensor; the rest of it stays as it is."""
        numbers, new = self.of(args[0]), self.of(args[-1])
        if name != "__setitem__":
            self._put(result, None if new is None else new.expand(result.shape))
        elif new is not None:
            blank = torch.full(result.shape, -1, dtype=torch.int32, device=result.device)
            numbers = blank if numbers is None else numbers.clone()
            numbers[args[1]] = new
            self._put(result, numbers)

    def axis(self, leaf: object) -> int | None:
        """Along which dimension a tensor's channels lie, from the end; None if it is not known.

        NOWHERE where they are known and lie along no single one.
        """
        numbers = self.of(leaf)
        if numbers is None:
            return None
        with torch._C.DisableTorchFunction():
            for axis in range(-numbers.dim(), 0):
                first = numbers.movedim(axis, 0).flatten(1)[:, :1]
                alike = (numbers.movedim(axis, 0).flatten(1) == first).all()
                if bool(alike) and len(first) > 1 and _is_in_order(first.flatten()):
                    return axis
            return NOWHERE if bool(numbers.any()) else None

    def _get_numbers(self, leaf: Any) -> Any:
        numbers = self.of(leaf)
        return leaf if numbers is None else numbers.float()

    def _put(self, leaf: Any, numbers: Tensor | None) -> None:
        if isinstance(leaf, Tensor) and id(leaf) not in self.notes.buffers:
            setattr(leaf, NUMBERS, (self.notes.now, numbers))


def _is_in_order(numbers: Tensor) -> bool:
    return bool((numbers == torch.arange(len(numbers), device=numbers.device)).all())
