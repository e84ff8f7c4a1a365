"""Passes that stop at one layer after another, and do not do again what earlier ones did.

What layers gave is kept as long as a later pass needs it, and given again in place of running them.
What nothing needs any more is skipped: the operations behind it run on tensors without values, so
that a value that is needed after all cannot be wrong, but only missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from snnprune.graph.call_graph import CallGraph, writes
from snnprune.graph.calls import LayerCall, NormCall, name_of
from snnprune.graph.hooks import LayerObserver, NormObserver, observe
from snnprune.graph.network import Network
from snnprune.graph.weight_uses import observe_nothing

MEMORY = 5 * 2**26  # bytes of what layers gave that are kept


class PassEnd(BaseException):
    """A pass has come to where it ends. No error, and no user's `except` is to take it."""


def run_until(
    network: Network,
    x: Any,
    on_layer: LayerObserver,
    on_norm: NormObserver = observe_nothing,
) -> None:
    """Run one batch until `on_layer` ends it; see `observe` for `on_norm`."""
    watched = observe(network, on_layer=on_layer, on_norm=on_norm)
    with watched as start, contextlib.suppress(PassEnd):
        start()
        network.run(x)


T = TypeVar("T")


class Run(Protocol):
    """Runs a batch, of that number, until `on_layer` ends it; see `observe` for `on_norm`."""

    def __call__(
        self,
        x: Any,
        number: int,
        on_layer: LayerObserver,
        on_norm: NormObserver = observe_nothing,
    ) -> None:
        """Run it."""


@dataclass
class _Plan:
    """What one pass does at each call."""

    targets: frozenset[str] = frozenset()
    """The layers whose inputs are asked for."""
    run: frozenset[int] = frozenset()
    keep: frozenset[int] = frozenset()
    """Calls whose results are there when it has ended."""


class Replay:
    """Passes over the same batches, each up to other layers, and layers are set on the way."""

    def __init__(
        self,
        network: Network,
        graph: CallGraph | None,
        *,
        batches: int,
        targets: Collection[str],
        settled: Collection[str],
        memory: int = MEMORY,
    ) -> None:
        """`targets` are asked for, those `settled` change no more; without a graph all is run."""
        self.network, self.graph, self.batches, self.memory = network, graph, batches, memory
        self.waiting, self.settled = set(targets), set(settled)
        self.held: dict[tuple[int, int], Tensor] = {}
        """What calls gave, by batch and place."""
        self._plan = _Plan()
        self._forms = OperationForms()

    def settle(self, key: str) -> None:
        """A layer is as it is going to be."""
        self.settled.add(key)

    def rehearse(self, keys: Collection[str]) -> frozenset[int]:
        """The calls that a pass up to the layers `keys` would run, by their place; none is run.

        What it would keep counts as kept from then on.
        """
        assert self.graph is not None
        self.waiting -= set(keys)
        plan = self._make_plan(self.graph, frozenset(keys))
        self.held = {(0, place): torch.empty(0) for place in plan.keep}
        return plan.run

    def collect(self, keys: Collection[str], do: Callable[[Run], T]) -> T:
        """What `do` makes of passes up to the layers `keys`, each batch run once and in order.

        Where a network does not run without all values, `do` is begun again, and all is run.
        """
        self.waiting -= set(keys)
        if self.graph is None:
            return do(self._run)
        self._plan = self._make_plan(self.graph, frozenset(keys))
        try:
            return do(self._run)
        except Exception:  # code that is not ours may do anything with what has no values
            self.graph = None
            self.held.clear()
        return do(self._run)

    def _run(
        self,
        x: Any,
        number: int,
        on_layer: LayerObserver,
        on_norm: NormObserver = observe_nothing,
    ) -> None:
        if self.graph is None:
            run_until(self.network, x, on_layer, on_norm)
            return
        one = _ReplayedBatch(self._plan, self.graph, number, self.held, self._forms)
        with one.skipping:
            watched = observe(
                self.network,
                on_layer=one.watch(on_layer),
                on_current=one.on_current,
                on_norm=one.watch_norms(on_norm),
                give=one.give,
            )
            with watched as start, contextlib.suppress(PassEnd):
                start()
                self.network.run(x)
        one.finish()

    def _make_plan(self, graph: CallGraph, targets: frozenset[str]) -> _Plan:
        there = {place for number, place in self.held if number == 0}
        run, asked = set[int](), list[int]()
        for place in graph.list_calls(targets):
            asked += graph.reads[place]
        while asked:
            place = asked.pop()
            if place not in there and place not in run:
                run.add(place)
                asked += graph.reads[place]
        return _Plan(targets, frozenset(run), self._choose_kept(graph, there | run))

    def _choose_kept(self, graph: CallGraph, having: Collection[int]) -> frozenset[int]:
        """Of the results that a pass has, those that a later one needs, the latest first."""
        settled = graph.find_settled(self.settled)
        readers = [set[int]() for _ in graph.keys]
        for place, read in enumerate(graph.reads):
            for source in read:
                readers[source].add(place)
        kept, size = set[int](), 0
        runs = [False] * len(readers)
        """Whether a later pass needs what enters it."""
        for place in reversed(range(len(readers))):
            wanted = any(runs[reader] for reader in readers[place])
            room = size + graph.sizes[place] * self.batches <= self.memory
            if wanted and settled[place] and place in having and room:
                kept.add(place)
                size += graph.sizes[place] * self.batches
            waits = graph.keys[place] in self.waiting
            runs[place] = waits or (wanted and place not in kept)
        return frozenset(kept)


class _MissingValuesError(Exception):
    """Something is asked for that was skipped."""


class OperationForms:
    """What operations gave for tensors of some shapes, as tensors without values.

    Asking torch for it takes longer than most operations, and seconds of imports at first.
    """

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def note(self, function: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Remember what came of a call, where that is one tensor or several."""
        several = result if type(result) in (list, tuple) else (result,)
        sign = _sign((function, args, kwargs))
        if sign is not None and all(isinstance(one, Tensor) for one in several):
            self._known[sign] = tree_map(
                lambda one: torch.empty(one.shape, dtype=one.dtype, device="meta"), result
            )

    def find(self, function: Any, args: Any, kwargs: Any) -> Any:
        """What would come of it; None if no such call was seen."""
        found = self._known.get(_sign((function, args, kwargs)))
        if isinstance(found, Tensor):
            return found.detach()
        return found if found is None else type(found)(one.detach() for one in found)


def _sign(value: Any) -> Any:
    """What stands for a value in a key: of a tensor shape and type; None if nothing can."""
    parts: Any
    match value:
        case Tensor():
            return (value.shape, value.dtype)
        case tuple() | list():
            parts = value
        case dict():
            parts = [part for item in sorted(value.items()) for part in item]
        case slice():
            parts = (value.start, value.stop, value.step)
        case _:
            return (type(value), value) if isinstance(value, Hashable) else None
    signs = tuple(_sign(part) for part in parts)
    return None if None in signs else (type(value), *signs)


class _Skipping(TorchFunctionMode):
    """Where something without values enters an operation, so does all else."""

    def __init__(self, forms: OperationForms) -> None:
        super().__init__()
        self.forms = forms
        self.next = False
        """Whether the operation that comes is skipped, whatever enters it."""
        self.failed = False
        """Whether something asked for values, and whoever did may have taken the error."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.next or _has_empty(args) or (kwargs and _has_empty(kwargs.values())):
            self.next = False
            try:
                return self._skip(function, args, kwargs)
            except Exception:
                self.failed = True
                raise
        result = function(*args, **kwargs)
        self.forms.note(function, args, kwargs, result)
        return result

    def _skip(self, function: Any, args: Any, kwargs: Any) -> Any:
        if writes(function, kwargs):
            changed = kwargs.get("out", args[0] if args else None)
            if not _is_empty(changed):
                raise _MissingValuesError
            return None if name_of(function) == "__setitem__" else changed
        found = self.forms.find(function, args, kwargs)
        if found is not None:
            return found
        args, kwargs = tree_map(_empty, (args, kwargs))
        result = function(*args, **kwargs)
        self.forms.note(function, args, kwargs, result)
        return result


def _has_empty(values: Iterable[object]) -> bool:
    for value in values:
        if isinstance(value, list | tuple):
            if _has_empty(value):
                return True
        elif _is_empty(value):
            return True
    return False


def _is_empty(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_meta


def _empty(leaf: Any) -> Any:
    return leaf.detach().to("meta") if isinstance(leaf, Tensor) and not leaf.is_meta else leaf


class _ReplayedBatch:
    """One batch of a pass: which calls are run, given as they were, or skipped."""

    def __init__(
        self,
        plan: _Plan,
        graph: CallGraph,
        number: int,
        held: dict[tuple[int, int], Tensor],
        forms: OperationForms,
    ) -> None:
        self.plan, self.graph, self.number, self.held = plan, graph, number, held
        self.skipping = _Skipping(forms)
        self.place = -1
        self.norms: dict[str, bool] = {}

    def watch(self, on_layer: LayerObserver) -> LayerObserver:
        """The observer of the layers that are asked for."""

        def see(key: str, call: LayerCall) -> None:
            self.place += 1
            if self.place >= len(self.graph.keys) or self.graph.keys[self.place] != key:
                self._fail()  # another way through the network than before
            if key in self.plan.targets:
                if call.input.is_meta:
                    self._fail()
                on_layer(key, call)

        return see

    def watch_norms(self, on_norm: NormObserver) -> NormObserver:
        """The observer of the normalisations that are not skipped."""

        def see(key: str, call: NormCall) -> None:
            if self.norms.setdefault(key, call.input.is_meta) != call.input.is_meta:
                self._fail()  # its statistics would be of some calls alone
            if not call.input.is_meta:
                on_norm(key, call)

        return see

    def give(self, _: str) -> Tensor | None:
        """What the call gives that comes, where it is not run."""
        there = self.held.get((self.number, self.place))
        if there is not None:
            return there.clone()  # it may be worked on in place
        self.skipping.next = self.place not in self.plan.run
        return None

    def on_current(self, _: str, result: Tensor) -> None:
        """Keep what a later pass needs."""
        at = (self.number, self.place)
        if self.place in self.plan.keep and at not in self.held:
            if result.is_meta:
                self._fail()
            self.held[at] = result.clone()

    def finish(self) -> None:
        """Let go what no later pass needs.

        Raises:
            _MissingValuesError: the pass could not be cut short.
        """
        if self.skipping.failed:
            raise _MissingValuesError
        for number, place in [*self.held]:
            if number == self.number and place not in self.plan.keep:
                del self.held[number, place]

    def _fail(self) -> None:
        self.skipping.failed = True
        raise _MissingValuesError
